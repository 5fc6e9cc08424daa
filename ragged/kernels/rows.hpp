// Rows of different lengths: where their steps stand, and who computes them.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "memory.hpp"
#include "team.hpp"

namespace ragged {

constexpr Index TILE = 48;                // most rows that go through the weights together
constexpr double WORTH_A_WORKER = 5e5;    // products: fewer take less time than it takes to wake up

struct Sizes {
  Index batch, width, inputs, hidden;
  bool reverse;          // each row is read from its last step back
  const Index* lengths;  // (batch,)
  Index room = 0;        // tokens that fit into what is kept for the backward pass
  bool padded = false;   // it lies as y does, 0 at padding; else rows lie end to end

  void check(bool keeps) const {
    const bool fit = std::all_of(lengths, lengths + batch, [&](Index n) { return 0 <= n && n <= width; });
    if (!fit || (keeps && !padded && room < tokens())) throw BadLengths();
  }

  Index tokens() const { return std::accumulate(lengths, lengths + batch, Index(0)); }

  // Where the n-th step that is read of a row stands in a (batch, width) array.
  Index place(Index row, Index step) const {
    return row * width + (reverse ? lengths[row] - 1 - step : step);
  }

  // How many of `threads` find enough to do.
  Index workers(Index threads) const {
    const double products = 4.0 * double(tokens()) * double(hidden * (inputs + hidden));
    const Index worth = 1 + Index(products / WORTH_A_WORKER);
    return std::max<Index>(1, std::min({threads, batch, worth}));
  }
};

// Where the n-th step that is read of a row is kept, once the sizes are checked.
class Tokens {
 public:
  Tokens(const Sizes& sizes, bool keeps) : sizes(sizes), first(sizes.batch + 1, 0) {
    sizes.check(keeps);
    std::partial_sum(sizes.lengths, sizes.lengths + sizes.batch, first.begin() + 1);
  }

  Index operator()(Index row, Index step) const {
    return sizes.padded ? sizes.place(row, step) : first[row] + step;
  }

 private:
  const Sizes sizes;
  std::vector<Index> first;
};

// Rows that one worker runs together: sorted, longest first.
using Tile = std::vector<Index>;

// Deal the sorted rows out like cards, so that all tiles take about as long.
inline std::vector<Tile> deal(const Sizes& sizes, Index workers) {
  Tile order(sizes.batch);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
    return sizes.lengths[a] > sizes.lengths[b];
  });
  const Index rounds = std::max<Index>(1, round_up(sizes.batch, workers * TILE) / (workers * TILE));
  std::vector<Tile> tiles(workers * rounds);
  for (Index rank = 0; rank < sizes.batch; ++rank)
    tiles[rank % tiles.size()].push_back(order[rank]);
  return tiles;
}

template <class T>
void clear_padding(const Sizes& sizes, Index row, T* array, Index features) {
  T* start = array + row * sizes.width * features;
  clear(start + sizes.lengths[row] * features, start + sizes.width * features);
}

}  // namespace ragged
