// Products of matrices that lie in cache, and sums over lanes.
#pragma once

#include "simd.hpp"

namespace ragged {

// to[r][v] = (or +=) sum over k of a[r * a_pitch + k * a_stride] * b[k * b_pitch + v].
template <bool ADDS, class T>
void multiply(Index rows, Index vectors, Index count, const T* a, Index a_pitch, Index a_stride,
              const T* b, Index b_pitch, T* to, Index to_pitch) {
  constexpr Index L = LANES<T>;
  in_parts<VECTORS>(vectors, [&](Index vector, auto width) {
    constexpr int V = decltype(width)::value;
    in_parts<ROWS>(rows, [&](Index row, auto height) {
      constexpr int R = decltype(height)::value;
      const T* from[R];
      for (int r = 0; r < R; ++r) from[r] = a + (row + r) * a_pitch;
      T* target = to + row * to_pitch + vector * L;
      Vec<T> sums[R][V] = {};
      if (ADDS)
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < V; ++v) sums[r][v] = load(target + r * to_pitch + v * L);
      accumulate<V>(sums, from, a_stride, b + vector * L, b_pitch, count);
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) store(target + r * to_pitch + v * L, sums[r][v]);
    });
  });
}

// The sum of N lanes that lie in memory, halves added to halves: no lane waits for the one before it.
template <Index N, class T>
T add_halves(const T* lanes) {
  if constexpr (N == 1) {
    return *lanes;
  } else {
    typedef T Half __attribute__((vector_size(N / 2 * sizeof(T)), aligned(alignof(T)), may_alias));
    const Half* halves = reinterpret_cast<const Half*>(lanes);
    const Half sum = halves[0] + halves[1];
    return add_halves<N / 2>(reinterpret_cast<const T*>(&sum));
  }
}

template <class T>
T add_lanes(Vec<T> sum) {
  return add_halves<LANES<T>>(reinterpret_cast<const T*>(&sum));
}

}  // namespace ragged
