// Products of matrices that lie in cache, and sums over lanes.
#pragma once

#include "simd.hpp"

namespace ragged {

// What the sums of a product begin with: (r, v) at from[r * pitch + v]; nowhere = 0.
template <class T>
struct Begin {
  const T* from = nullptr;
  Index pitch = 0;
};

// `multiply_from` of R rows and V vectors, as many at once as can be.
template <int R, int V, class T>
void multiply_tile(Index count, const T* a, Index a_pitch, Index a_stride, const T* b, Index b_pitch, Begin<T> begin,
                   T* to, Index to_pitch) {
  constexpr int W = width_of<R, V>();
  constexpr Index L = LANES<T>;
  const T* from[R];
  Vec<T> sums[R][W];
  repeat<R>([&](auto r) {
    from[r] = a + r * a_pitch;
    repeat<W>([&](auto v) { sums[r][v] = begin.from ? load(begin.from + r * begin.pitch + v * L) : Vec<T>{}; });
  });
  accumulate<T>(sums, from, a_stride, count, [&](Index k, Index v) { return load(b + k * b_pitch + v * L); });
  repeat<R>([&](auto r) { repeat<W>([&](auto v) { store(to + r * to_pitch + v * L, sums[r][v]); }); });
  if constexpr (W < V) {
    if (begin.from) begin.from += W * L;
    multiply_tile<R, V - W>(count, a, a_pitch, a_stride, b + W * L, b_pitch, begin, to + W * L, to_pitch);
  }
}

// to[r][v] = what it begins with + sum over k of a[r * a_pitch + k * a_stride] * b[k * b_pitch + v].
template <class T>
void multiply_from(Begin<T> begin, Index rows, Index vectors, Index count, const T* a, Index a_pitch, Index a_stride,
                   const T* b, Index b_pitch, T* to, Index to_pitch) {
  in_parts<VECTORS>(vectors, [=](Index vector, auto width) {
    in_rows(rows, [=](Index row, auto height) {
      const Index at = vector * LANES<T>;
      const Begin<T> own{begin.from ? begin.from + row * begin.pitch + at : nullptr, begin.pitch};
      multiply_tile<height, width>(count, a + row * a_pitch, a_pitch, a_stride, b + at, b_pitch, own,
                                   to + row * to_pitch + at, to_pitch);
    });
  });
}

// to[r][v] = (or +=) the same sum.
template <bool ADDS, class T>
void multiply(Index rows, Index vectors, Index count, const T* a, Index a_pitch, Index a_stride, const T* b,
              Index b_pitch, T* to, Index to_pitch) {
  const Begin<T> begin = ADDS ? Begin<T>{to, to_pitch} : Begin<T>{};
  multiply_from(begin, rows, vectors, count, a, a_pitch, a_stride, b, b_pitch, to, to_pitch);
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
