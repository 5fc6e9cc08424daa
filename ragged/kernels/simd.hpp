// Vectors of one width, the functions that cells need of them, and the product that all else is made of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace ragged {

using Index = std::int64_t;

// ROWS x WIDTH sums, WIDTH weights and a factor: what 32 registers hold, or 16. Fewer rows take up to
// VECTORS at once, as many as stand side by side where products read a matrix in order.
constexpr int VECTORS = 4;
#if defined(__AVX512F__)
constexpr int BYTES = 64, ROWS = 6, WIDTH = 4;
#elif defined(__AVX__)
constexpr int BYTES = 32, ROWS = 6, WIDTH = 2;
#elif defined(__aarch64__)
constexpr int BYTES = 16, ROWS = 6, WIDTH = 4;
#else  // without fused products one more is between
constexpr int BYTES = 16, ROWS = 3, WIDTH = 4;
#endif

template <class T>
struct Simd {
  typedef T Vec __attribute__((vector_size(BYTES)));
  typedef T Loose __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));
  using Integer = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  typedef Integer Integers __attribute__((vector_size(BYTES)));
};
template <class T>
using Vec = typename Simd<T>::Vec;
template <class T>
constexpr Index LANES = BYTES / sizeof(T);

// Memory that begins with a line of the cache: a vector that lies across two of them takes twice as long.
template <class T>
struct Aligned {
  using value_type = T;
  static constexpr std::align_val_t LINE{64};
  Aligned() = default;
  template <class Other>
  Aligned(const Aligned<Other>&) {}
  T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), LINE)); }
  void deallocate(T* from, std::size_t) { ::operator delete(from, LINE); }
  friend bool operator==(const Aligned&, const Aligned&) { return true; }
  friend bool operator!=(const Aligned&, const Aligned&) { return false; }
};
template <class T>
using Numbers = std::vector<T, Aligned<T>>;

// The same without zeros to begin with, for what is written before it is read.
template <class T>
struct Unset : Aligned<T> {
  template <class Other>
  struct rebind {
    using other = Unset<Other>;
  };
  Unset() = default;
  template <class Other>
  Unset(const Unset<Other>&) {}
  template <class Other>
  void construct(Other* at) { ::new (static_cast<void*>(at)) Other; }
};
template <class T>
using Room = std::vector<T, Unset<T>>;

inline Index round_up(Index value, Index grain) { return (value + grain - 1) / grain * grain; }

template <class T>
Vec<T> load(const T* from) {
  return *reinterpret_cast<const typename Simd<T>::Loose*>(from);
}

template <class T>
void store(T* to, Vec<T> value) {
  *reinterpret_cast<typename Simd<T>::Loose*>(to) = value;
}

// The first `count` lanes, or all of them; the others are 0.
template <class T>
Vec<T> load(const T* from, Index count) {
  if (count >= LANES<T>) return load(from);
  Vec<T> value{};
  for (Index lane = 0; lane < count; ++lane) value[lane] = from[lane];
  return value;
}

template <class T>
void store(T* to, Vec<T> value, Index count) {
  if (count >= LANES<T>) return store(to, value);
  for (Index lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

// Transpose a square: blocks of S lanes change places between rows that are S apart, for S = 1, 2, 4, ...
#if __has_builtin(__builtin_shufflevector)
template <Index S, class V, std::size_t... I>
void exchange(V& a, V& b, std::index_sequence<I...>) {
  constexpr Index N = sizeof...(I);
  const V upper = __builtin_shufflevector(a, b, (Index(I) / S % 2 ? N + Index(I) - S : Index(I))...);
  b = __builtin_shufflevector(a, b, (Index(I) / S % 2 ? N + Index(I) : Index(I) + S)...);
  a = upper;
}

template <class T, Index S = 1>
void transpose(Vec<T> (&square)[LANES<T>]) {
  if constexpr (S < LANES<T>) {
#pragma GCC unroll 16
    for (Index row = 0; row < LANES<T>; ++row)
      if (!(row & S)) exchange<S>(square[row], square[row + S], std::make_index_sequence<LANES<T>>());
    transpose<T, 2 * S>(square);
  }
}
#else
template <class T>
void transpose(Vec<T> (&square)[LANES<T>]) {
  for (Index row = 0; row < LANES<T>; ++row)
    for (Index lane = 0; lane < row; ++lane) {
      const T value = square[row][lane];
      square[row][lane] = square[lane][row];
      square[lane][row] = value;
    }
}
#endif

// to[c * to_pitch + r] = from[r * pitch + c], a square at a time, so that what is read and what is written both stay in
// the cache. Rows of `to` have room for so many numbers; beyond those of `from` they are 0, up to whole vectors.
template <class T>
void copy_transposed(Index rows, Index columns, const T* from, Index pitch, T* to, Index to_pitch, Index room) {
  constexpr Index L = LANES<T>;
  for (Index r = 0; r < rows; r += L)
    for (Index c = 0; c < columns; c += L) {
      Vec<T> square[L] = {};
      for (Index n = 0; n < std::min(L, rows - r); ++n) square[n] = load(from + (r + n) * pitch + c, columns - c);
      transpose<T>(square);
      for (Index n = 0; n < std::min(L, columns - c); ++n) store(to + (c + n) * to_pitch + r, square[n], room - r);
    }
}

constexpr double LOG2_E = 1.44269504088896340736, LOG_2 = 0.693147180559945309417;  // powers are of 2

template <class T>
constexpr T LIMIT = sizeof(T) == 4 ? 87 : 708;  // beyond it e^x or e^-x is no normal number

// The sum of r^k * base^k / (k + FIRST)! for k < TERMS.
template <int TERMS, int FIRST, class T>
[[gnu::always_inline]] inline Vec<T> sum_powers(Vec<T> r, double base) {
  T factors[TERMS];
  double factor = 1;
#pragma GCC unroll 16
  for (int k = 0; k < TERMS; ++k) factors[k] = T(factor), factor *= base / (k + 1 + FIRST);
  Vec<T> sum = Vec<T>{} + factors[TERMS - 1];
#pragma GCC unroll 16
  for (int k = TERMS - 2; k >= 0; --k) sum = sum * r + factors[k];
  return sum;
}

// exp(x) - 1, right to its last bits near 0 too: with x = n log 2 + r it is 2^n series(r) + 2^n - 1.
// Beyond LIMIT it stays what it is there. NaN stays NaN, for no comparison holds of it.
template <class T>
[[gnu::always_inline]] inline Vec<T> expm1(Vec<T> x) {
  constexpr bool is_float = sizeof(T) == 4;
  constexpr int terms = is_float ? 7 : 13;  // of the Taylor series, for |r| <= log(2) / 2
  constexpr int mantissa = is_float ? 23 : 52, bias = is_float ? 127 : 1023;
  constexpr T magic = is_float ? 12582912.0 : 6755399441055744.0;  // adding it rounds to integers
  constexpr T log2_high = is_float ? 0.693359375 : 0.693147180369123816490;  // few bits: n * it is exact
  constexpr T log2_low = is_float ? -2.121944400546905827679e-4 : 1.90821492927058770002e-10;
  using Integers = typename Simd<T>::Integers;
  x = x < -LIMIT<T> ? Vec<T>{} - LIMIT<T> : x;
  x = x > LIMIT<T> ? Vec<T>{} + LIMIT<T> : x;
  const Vec<T> rounded = x * T(1.44269504088896340736) + magic;  // its last bits are those of n
  const Vec<T> n = rounded - magic;
  const Vec<T> r = (x - n * log2_high) - n * log2_low;
  const Vec<T> series = sum_powers<terms, 1, T>(r, 1);
  const Integers exponent = (Integers)rounded - (Integers)(Vec<T>{} + magic);
  const Vec<T> power = (Vec<T>)((exponent + bias) << mantissa);
  return power * (series * r) + (power - T(1));
}

// 2^x; below the normal numbers 0. With x = n + r it is 2^n series(r). NaN stays NaN.
template <class T>
[[gnu::always_inline]] inline Vec<T> exp2(Vec<T> x) {
  constexpr bool is_float = sizeof(T) == 4;
  constexpr int terms = is_float ? 6 : 13;  // of the Taylor series, for |r| <= 1 / 2
  constexpr int mantissa = is_float ? 23 : 52, bias = is_float ? 127 : 1023;
  constexpr T magic = is_float ? 12582912.0 : 6755399441055744.0;  // adding it rounds to integers
  constexpr double log2 = 0.693147180559945309417;
  using Integers = typename Simd<T>::Integers;
  const Vec<T> rounded = x + magic;  // its last bits are those of n
  const Vec<T> r = x - (rounded - magic);
  const Vec<T> series = sum_powers<terms + 1, 0, T>(r, log2);
  const Integers exponent = (Integers)rounded - (Integers)(Vec<T>{} + magic);
  const Vec<T> power = (Vec<T>)((exponent + bias) << mantissa);
  return x < T(1 - bias) ? Vec<T>{} : power * series;
}

template <class T>
[[gnu::always_inline]] inline Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> value = T(1) / (expm1<T>(-x) + T(2));
  return x < -LIMIT<T> ? Vec<T>{} : value;
}

template <class T>
[[gnu::always_inline]] inline Vec<T> tanh(Vec<T> x) {
  const Vec<T> e = expm1<T>(x + x);
  return e / (e + T(2));
}

// body(0), body(1) and so on, N times, by constants: arrays that they index stay in registers.
template <class Body, int... I>
[[gnu::always_inline]] inline void repeat(Body&& body, std::integer_sequence<int, I...>) {
  (body(std::integral_constant<int, I>{}), ...);
}
template <int N, class Body>
[[gnu::always_inline]] inline void repeat(Body&& body) {
  repeat(body, std::make_integer_sequence<int, N>());
}

// How many of V vectors R rows take at once.
template <int R, int V>
constexpr int width_of() {
  return R * V <= ROWS * WIDTH ? V : WIDTH;
}

// sums[r][v] += sum over k of a[r][k * stride] * weight(k, v), in registers throughout.
template <class T, int R, int V, class Weight>
[[gnu::always_inline]] inline void accumulate(Vec<T> (&sums)[R][V], const T* const (&a)[R], Index stride, Index count,
                                              Weight&& weight) {
  for (Index k = 0; k < count; ++k) {
    Vec<T> weights[V];
    repeat<V>([&](auto v) { weights[v] = weight(k, v); });
    repeat<R>([&](auto r) {
      const T factor = a[r][k * stride];
      repeat<V>([&](auto v) { sums[r][v] += factor * weights[v]; });
    });
  }
}

template <int N, class Body>
void with_constant(Index value, Body&& body) {
  if constexpr (N > 0) {
    if (value == N) return body(std::integral_constant<int, N>{});
    with_constant<N - 1>(value, body);
  }
}

// Cut 0 .. total into parts of at most N: body(where a part begins, its size as a constant).
template <int N, class Body>
void in_parts(Index total, Body&& body) {
  for (Index first = 0; first < total; first += N)
    with_constant<N>(std::min<Index>(N, total - first), [&](auto size) { body(first, size); });
}

// Cut rows into parts of at most ROWS. Products of one row or of ROWS - 2 are slow, so where such a part would be
// the last, the one before it is smaller.
template <class Body>
void in_rows(Index rows, Body&& body) {
  for (Index first = 0, count; first < rows; first += count) {
    const Index left = rows - first, over = left - ROWS;
    count = over <= 0 ? left : over == 1 || over == ROWS - 2 ? ROWS - 1 : ROWS;
    with_constant<ROWS>(count, [&](auto size) { body(first, size); });
  }
}

}  // namespace ragged
