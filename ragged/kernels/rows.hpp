// Rows of different lengths: where their tokens stand, and who computes them.
#pragma once

#include <algorithm>
#include <vector>

#include "memory.hpp"
#include "team.hpp"

namespace ragged {

constexpr Index TILE = 48;  // most rows that go through the weights together

// How the tokens of x and y lie. Each is one filling of the two tables of `Rows`.
enum class Layout : Index { padded, time_major, jagged, packed };

// Where the state of a row starts anew, beside its beginning.
struct Resets {
  const bool* at = nullptr;  // (places,), true where it does before that token; null = nowhere
  bool to_initial = false;   // to the row's initial state; else to zeros
};

// The rows of a call, cut where their state starts anew: what lies between is a piece, read like a
// row of its own. A token stands at base + step_base[step] of an array of `places`.
class Rows {
 public:
  // `lengths` of packed rows go down, as their order does.
  Rows(Layout layout, Index batch, Index width, Index places, bool reverse, const Index* lengths,
       Resets resets = {})
      : batch(batch), width(width), places(places), reverse(reverse), to_initial(resets.to_initial) {
    check_lengths(layout, lengths);
    pitch = layout == Layout::padded ? 1 : layout == Layout::time_major ? batch : 0;
    fill_steps(layout, lengths);
    for (Index row = 0, end = 0; row < batch; end += lengths[row++])
      cut(row, layout == Layout::padded ? row * width : layout == Layout::jagged ? end : row,
          lengths[row], resets.at);
  }

  const Index batch, width, places;
  const bool reverse;  // each piece is read from its last step back
  const bool to_initial;

  Index count() const { return Index(pieces.size()); }
  Index tokens() const { return total; }
  Index length(Index piece) const { return pieces[piece].length; }
  Index row(Index piece) const { return pieces[piece].row; }

  // Whether a row's own state enters before a piece is read, and leaves after it.
  bool enters(Index piece) const { return reverse ? pieces[piece].is_last : pieces[piece].goes_on; }
  bool leaves(Index piece) const { return reverse ? pieces[piece].is_first : pieces[piece].is_last; }
  bool starts_from_row(Index piece) const { return to_initial || enters(piece); }

  // Where the n-th step that is read of a piece stands.
  Index place(Index piece, Index step) const {
    const Piece& p = pieces[piece];
    return p.base + step_base[p.first + (reverse ? p.length - 1 - step : step)];
  }

  // Where the padding of a row begins, with the last of its pieces, and how often it is found; then
  // `pitch` places further each.
  Index first_padding(Index piece) const {
    const Piece& p = pieces[piece];
    return p.base + step_base[p.first + p.length];
  }
  Index count_padding(Index piece) const {
    const Piece& p = pieces[piece];
    return pitch && p.is_last ? width - p.first - p.length : 0;
  }
  Index pitch = 0;  // from one step of a row to the next; 0 = rows have no padding

 private:
  struct Piece {
    Index row, base, first, length;
    bool is_first, is_last;  // of its row, in time
    bool goes_on;            // it is the first, and there is no reset before it
  };

  void check_lengths(Layout layout, const Index* lengths) {
    const bool fit = std::all_of(lengths, lengths + batch, [&](Index n) { return 0 <= n && n <= width; });
    if (!fit) throw BadLengths();
    for (Index row = 0; row < batch; ++row) total += lengths[row];
    const bool is_dense = layout == Layout::padded || layout == Layout::time_major;
    if (is_dense ? places != batch * width : total > places) throw BadLengths();
    if (layout == Layout::packed && !std::is_sorted(lengths, lengths + batch, [](Index a, Index b) { return a > b; }))
      throw BadLengths();
  }

  // What a step adds to where a row begins. Packed, the n-th steps of all rows lie together.
  void fill_steps(Layout layout, const Index* lengths) {
    step_base.resize(width + 1);
    Index alive = batch, end = 0;
    for (Index step = 0; step <= width; ++step) {
      while (alive && lengths[alive - 1] <= step) --alive;
      step_base[step] = layout == Layout::packed ? end
                        : layout == Layout::time_major ? step * batch : step;
      end += alive;
    }
  }

  void cut(Index row, Index base, Index length, const bool* resets) {
    const auto is_reset = [&](Index step) { return resets && resets[base + step_base[step]]; };
    const bool goes_on = !length || !is_reset(0);
    Index first = 0;
    for (Index step = 1; step < length; ++step)
      if (is_reset(step)) {
        pieces.push_back({row, base, first, step - first, !first, false, !first && goes_on});
        first = step;
      }
    pieces.push_back({row, base, first, length - first, !first, true, !first && goes_on});
  }

  Index total = 0;
  std::vector<Index> step_base;
  std::vector<Piece> pieces;
};

// What no token fills of an array `(places, features)`, and is to read as 0.
template <class T>
class Padding {
 public:
  // No array, nothing is done.
  Padding(const Rows& rows, T* array, Index features)
      : rows(rows), array(array), features(features), end_to_end(!rows.pitch), is_clear(!array) {
    if (is_clear) return;
    T *const end = array + rows.places * features, *const rest = array + rows.tokens() * features;
    const bool is_worth = (end - rest) * Index(sizeof(T)) >= WORTH_A_CALL;
    is_clear = is_worth && renew(end_to_end ? rest : array, end);
    if (end_to_end || !is_clear) take_huge_pages(array, end_to_end ? rest : end);
  }

  // Clear a row's, with the last of its pieces.
  void clear_row(Index piece) const {
    if (is_clear || end_to_end) return;
    T* to = array + rows.first_padding(piece) * features;
    const Index count = rows.count_padding(piece);
    if (rows.pitch == 1)
      std::fill_n(to, count * features, T(0));
    else
      for (Index k = 0; k < count; ++k) std::fill_n(to + k * rows.pitch * features, features, T(0));
  }

  // Clear a worker's share of what lies beyond all tokens, where they lie end to end.
  void clear_rest(Index worker, Index workers) const {
    if (is_clear || !end_to_end) return;
    const Index first = rows.tokens(), free = rows.places - first;
    std::fill(array + (first + free * worker / workers) * features,
              array + (first + free * (worker + 1) / workers) * features, T(0));
  }

 private:
  const Rows& rows;
  T* const array;
  const Index features;
  const bool end_to_end;
  bool is_clear;
};

// The states `(batch, hidden)` of rows as their pieces meet them: a row's own, or zeros.
template <class T>
class States {
 public:
  States(const Rows& rows, Index hidden) : rows(rows), hidden(hidden), zeros(hidden) {}

  // What a piece starts from.
  const T* start(const T* of_rows, Index piece) const {
    return rows.starts_from_row(piece) ? of_rows + rows.row(piece) * hidden : none();
  }

  // What belongs to the state after a piece, its gradient say.
  const T* end(const T* of_rows, Index piece) const {
    return rows.leaves(piece) ? of_rows + rows.row(piece) * hidden : none();
  }

  const T* none() const { return zeros.data(); }

 private:
  const Rows& rows;
  const Index hidden;
  const Numbers<T> zeros;
};

// What a layer is asked for.
struct Sizes {
  Index inputs, hidden;
  Index room = 0;  // tokens that fit into what is kept for the backward pass, end to end
};

// How many of `threads` find enough to do.
inline Index count_workers(const Rows& rows, const Sizes& sizes, int gates, Index threads) {
  const double products = double(gates) * double(rows.tokens()) * double(sizes.hidden) *
                          double(sizes.inputs + sizes.hidden);
  const Index worth = 1 + Index(products / WORTH_A_WORKER);
  return std::max<Index>(1, std::min({threads, rows.count(), worth}));
}

// Where the n-th step that is read of a piece is kept.
class Tokens {
 public:
  Tokens(const Rows& rows, const Sizes& sizes, bool keeps) : first(rows.count() + 1, 0) {
    if (keeps && sizes.room < rows.tokens()) throw BadLengths();
    for (Index piece = 0; piece < rows.count(); ++piece)
      first[piece + 1] = first[piece] + rows.length(piece);
  }

  Index operator()(Index piece, Index step) const { return first[piece] + step; }

 private:
  std::vector<Index> first;
};

// Pieces that one worker runs together: sorted, longest first.
using Tile = std::vector<Index>;

// The pieces, longest first. Lengths are small whole numbers, so they are counted.
inline Tile sort(const Rows& rows) {
  std::vector<Index> places(rows.width + 2);  // where the pieces of a length go, after those of longer ones
  for (Index piece = 0; piece < rows.count(); ++piece) ++places[rows.width - rows.length(piece) + 1];
  for (Index n = 0; n < rows.width; ++n) places[n + 1] += places[n];
  Tile order(rows.count());
  for (Index piece = 0; piece < rows.count(); ++piece) order[places[rows.width - rows.length(piece)]++] = piece;
  return order;
}

// Deal the sorted pieces out like cards, back and forth, so that all tiles take about as long.
inline std::vector<Tile> deal(const Rows& rows, Index workers) {
  const Tile order = sort(rows);
  const Index rounds = std::max<Index>(1, round_up(rows.count(), workers * TILE) / (workers * TILE));
  std::vector<Tile> tiles(workers * rounds);
  const Index count = Index(tiles.size());
  for (Index rank = 0; rank < rows.count(); ++rank) {
    const Index place = rank % count;
    tiles[rank / count % 2 ? count - 1 - place : place].push_back(order[rank]);
  }
  return tiles;
}

}  // namespace ragged
