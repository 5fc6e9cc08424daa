// Attention over rows of different lengths: what its two passes share.
//
//     weights[i, j] = softmax over the visible j of scale * (q[i] . k[j])
//     out[i]        = sum over j of weights[i, j] * v[j]
//
// for every head; or, where the heads share their values, the mean of that over them. Queries go
// through the keys of their row in tiles, with the weights of a tile in memory that stays in cache.
// The backward pass computes them again from each query's log of its sum of exponentials.
#pragma once

#include <limits>
#include <vector>

#include "dropped.hpp"
#include "products.hpp"
#include "rows.hpp"

namespace ragged {

constexpr Index QUERIES = 2 * ROWS;  // of a tile


// Rows that lie end to end, or padded, in an array of `places`.
struct Spans {
  Spans(Layout layout, Index batch, Index width, Index places, const Index* given)
      : places(places), lengths(given, given + batch), starts(batch) {
    Index end = 0;
    for (Index row = 0; row < batch; ++row) {
      if (lengths[row] < 0 || lengths[row] > width) throw BadLengths();
      starts[row] = layout == Layout::padded ? row * width : end;
      end = starts[row] + lengths[row];
      if (end > places) throw BadLengths();
    }
    if (layout == Layout::padded && batch * width != places) throw BadLengths();
  }

  const Index places;
  const std::vector<Index> lengths;
  std::vector<Index> starts;

  // Set to 0 what stands in an array before a row's first token (`row` = batch: after the last).
  template <class T>
  void clear_before(Index row, T* array, Index features) const {
    const Index first = row ? starts[row - 1] + lengths[row - 1] : 0;
    const Index last = row < Index(starts.size()) ? starts[row] : places;
    std::fill(array + first * features, array + last * features, T(0));
  }
};

struct Attended {
  Index heads, size, value_size;  // of queries and keys, and of values
  bool is_shared;                 // values are (places, value_size), the same for all heads
  bool is_causal;                 // query i sees key j if j - i <= keys - queries + diagonal
  Index diagonal;
  double scale;
  double dropout;                 // the share of weights that is dropped
  std::uint64_t seed;

  Index value_heads() const { return is_shared ? 1 : heads; }
  double value_share() const { return is_shared ? 1.0 / double(heads) : 1.0; }

  // How many keys, the first ones, a query sees.
  Index count_visible(Index query, Index queries, Index keys) const {
    if (!is_causal) return keys;
    return std::max<Index>(0, std::min(keys, keys - queries + diagonal + query + 1));
  }
};

// A row's tokens in one head, copied so that products read them in order: as rows of whole
// vectors, and transposed, in panels of WIDE tokens.
template <class T>
class PackedTokens {
 public:
  static constexpr Index L = LANES<T>, WIDE = VECTORS * L;

  void read(const T* from, Index pitch, Index count, Index size) {
    this->size = size, columns = round_up(size, L), padded = round_up(count, L);
    rows.assign(count * columns, T(0));
    panels.assign(padded * size, T(0));
    for (Index j = 0; j < count; ++j) std::copy_n(from + j * pitch, size, &rows[j * columns]);
    for (Index j = 0; j < count; j += L) {
      T* to = panels.data() + j / WIDE * WIDE * size + j % WIDE;
      const Index width = panel_width(j / WIDE), lanes = std::min(L, count - j);
      for (Index k = 0; k < size; ++k)
        for (Index lane = 0; lane < lanes; ++lane) to[k * width + lane] = from[(j + lane) * pitch + k];
    }
  }

  Index size = 0, columns = 0, padded = 0;
  Numbers<T> rows, panels;

  Index panel_width(Index panel) const { return std::min(WIDE, padded - panel * WIDE); }

  // to (queries, pitch) = a (queries, size) @ tokens.T, for the first `visible` tokens.
  void score(Index queries, const T* a, Index visible, T* to, Index pitch) const {
    for (Index first = 0; first < visible; first += WIDE) {
      const Index vectors = round_up(std::min(WIDE, visible - first), L) / L;
      multiply<false>(queries, vectors, size, a, size, 1, panels.data() + first * size,
                      panel_width(first / WIDE), to + first, pitch);
    }
  }

  // to (queries, columns) = a (queries, pitch) @ tokens, of the first `visible` tokens.
  void mix(Index queries, const T* a, Index pitch, Index visible, T* to) const {
    multiply<false>(queries, columns / L, visible, a, pitch, 1, rows.data(), columns, to, columns);
  }
};

// Copy `count` tokens of a head, times a factor.
template <class T>
void gather(const T* from, Index pitch, Index count, Index size, T factor, Numbers<T>& to) {
  to.resize(QUERIES * size);
  for (Index r = 0; r < count; ++r)
    for (Index n = 0; n < size; ++n) to[r * size + n] = from[r * pitch + n] * factor;
}

// From one query's weights to the next: an odd number of vectors, so that those of a tile do not meet
// in few sets of the cache.
template <class T>
Index pitch_of(Index visible) {
  return (round_up(visible, LANES<T>) / LANES<T> | 1) * LANES<T>;
}

// Queries of a row that one worker takes.
struct Part {
  Index row, first, last;
};

// Cut every row's queries into parts of at most `most`, the most work first.
inline std::vector<Part> cut(const Spans& queries, const Spans& keys, Index most) {
  std::vector<Part> parts;
  for (Index row = 0; row < Index(queries.starts.size()); ++row)
    for (Index first = 0; first < queries.lengths[row]; first += most)
      parts.push_back({row, first, std::min(first + most, queries.lengths[row])});
  std::sort(parts.begin(), parts.end(), [&](const Part& a, const Part& b) {
    const Index more = (a.last - a.first) * keys.lengths[a.row] - (b.last - b.first) * keys.lengths[b.row];
    return more ? more > 0 : a.row != b.row ? a.row < b.row : a.first < b.first;
  });
  return parts;
}

// How many of `threads` find enough to do.
inline Index count_workers(const Spans& queries, const Spans& keys, const Attended& call, Index threads) {
  double pairs = 0;
  for (std::size_t row = 0; row < queries.starts.size(); ++row)
    pairs += double(queries.lengths[row]) * double(keys.lengths[row]);
  const double products = pairs * double(call.heads) * double(call.size + call.value_size);
  return std::max<Index>(1, std::min(threads, 1 + Index(products / WORTH_A_WORKER)));
}

// The keys and values of a row, of each head.
template <class T>
struct Row {
  std::vector<PackedTokens<T>> k, v;

  void read(const Spans& keys, Index row, const Attended& call, const T* from_k, const T* from_v) {
    k.resize(call.heads), v.resize(call.value_heads());
    read(keys, row, from_k, call.size, k);
    read(keys, row, from_v, call.value_size, v);
  }

 private:
  static void read(const Spans& keys, Index row, const T* from, Index size, std::vector<PackedTokens<T>>& to) {
    const Index heads = Index(to.size()), pitch = heads * size;
    for (Index head = 0; head < heads; ++head)
      to[head].read(from + keys.starts[row] * pitch + head * size, pitch, keys.lengths[row], size);
  }
};

}  // namespace ragged
