// Dropout without memory: what is dropped follows from a seed and a place.
#pragma once

#include <algorithm>
#include <cmath>

#include "simd.hpp"

namespace ragged {

// What is dropped: a hash of the seed and of where a number stands, the same wherever and however often it
// is computed; `keep_mask` of both backends gives the same.
//
// Source: lowbias32 of C. Wellons, Hash Prospector (2018).
class Dropped {
 public:
  Dropped(double rate, std::uint64_t seed)
      : threshold(std::uint64_t(std::min(std::round(rate * 4294967296.0), 4294967295.0))),
        kept(rate < 1 ? 1 / (1 - rate) : 0) {
    words[0] = mix(mix(std::uint32_t(seed)) ^ std::uint32_t(seed >> 32));
    words[1] = mix(words[0] ^ 0x9E3779B9u);
  }

  const std::uint64_t threshold;
  const double kept;  // what is not dropped is multiplied by it

  // The two words of a query of a row and a head.
  struct Query {
    std::uint32_t first, second;
  };
  Query query(Index row, Index head) const { return within(within({words[0], words[1]}, row), head); }
  Query query(Index row, Index head, Index query) const { return within(this->query(row, head), query); }

  // The words of one among several.
  static Query within(Query all, Index one) {
    return {mix(all.first ^ std::uint32_t(one)), mix(all.second ^ std::uint32_t(one))};
  }

  // Of LANES keys: all ones where a weight is kept.
  template <class T>
  auto keeps(Query q, Index key) const {
    using Integer = typename Simd<T>::Integer;
    typename Simd<T>::Integers bits = (count_lanes<T>() + Integer(key)) ^ Integer(q.first);
    bits = multiply<T>(bits ^ (bits >> 16), 0x7FEB352Du) ^ Integer(q.second);
    bits = multiply<T>(bits ^ (bits >> 15), 0x846CA68Bu);
    bits ^= bits >> 16;
    return bits >= Integer(threshold);
  }

 private:
  std::uint32_t words[2];

  static std::uint32_t mix(std::uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
  }

  // 0, 1, 2 and so on.
  template <class T>
  static typename Simd<T>::Integers count_lanes() {
    typename Simd<T>::Integers lanes{};
#pragma GCC unroll 16
    for (int lane = 0; lane < LANES<T>; ++lane) lanes[lane] = typename Simd<T>::Integer(lane);
    return lanes;
  }

  template <class T>
  static typename Simd<T>::Integers multiply(typename Simd<T>::Integers x, std::uint32_t factor) {
    x *= typename Simd<T>::Integer(factor);
    if constexpr (sizeof(T) == 8) x &= typename Simd<T>::Integer(0xFFFFFFFFu);
    return x;
  }
};

}  // namespace ragged
