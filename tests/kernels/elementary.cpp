// The kernels' own functions over an array, for tests of how good they are.
#include "backward.hpp"

using namespace ragged;

template <class Function>
static void over(const REAL* in, REAL* out, Index count, Function function) {
  for (Index at = 0; at < count; at += LANES<REAL>)
    store(out + at, function(load(in + at, count - at)), count - at);
}

extern "C" void evaluate_expm1(const REAL* in, REAL* out, Index count) {
  over(in, out, count, [](Vec<REAL> x) { return expm1<REAL>(x); });
}

extern "C" void evaluate_sigmoid(const REAL* in, REAL* out, Index count) {
  over(in, out, count, [](Vec<REAL> x) { return sigmoid<REAL>(x); });
}

extern "C" void evaluate_tanh(const REAL* in, REAL* out, Index count) {
  over(in, out, count, [](Vec<REAL> x) { return ragged::tanh<REAL>(x); });
}

// What the kernels cut their work by: tests follow them.
extern "C" const Index boundaries[] = {TILE, CHUNK, ROWS, VECTORS * LANES<REAL>};
