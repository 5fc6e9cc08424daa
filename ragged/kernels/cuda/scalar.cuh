// The numbers of a GPU's lane: each holds one hidden unit of a row, where a CPU's hold a vector of them.
#pragma once
#define RAGGED_SCALAR  // `cells.hpp` takes these in place of a CPU's

#include "device.cuh"

namespace ragged {

template <class T>
using Vec = T;

template <class T>
INLINE T sigmoid(T x) { return T(1) / (T(1) + expf(-x)); }

template <class T>
INLINE T tanh(T x) { return tanhf(x); }

// How arrays are stored; all sums are float.
struct Bfloat16 {
  unsigned short bits;

  Bfloat16() = default;
  INLINE Bfloat16(float value) {  // to the nearest, ties to even; NaN stays NaN
    const unsigned all = bits_of(value);
    bits = value != value ? 0x7fc0 : (all + 0x7fff + (all >> 16 & 1)) >> 16;
  }
  INLINE operator float() const { return float_of(unsigned(bits) << 16); }
};

struct Float16 {
  unsigned short bits;

  Float16() = default;
  INLINE Float16(float value) : bits(float_to_half(value)) {}
  INLINE operator float() const { return half_to_float(bits); }
};

}  // namespace ragged
