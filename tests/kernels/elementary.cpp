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

// to (rows, width) += a (rows, count) @ b (count, width), of whole vectors; a stands the other way round if it is turned.
extern "C" void evaluate_product(Index rows, Index vectors, Index count, bool is_turned, const REAL* a, const REAL* b,
                                 REAL* to) {
  const Index pitch = is_turned ? 1 : count, stride = is_turned ? rows : 1, width = vectors * LANES<REAL>;
  multiply<true>(rows, vectors, count, a, pitch, stride, b, width, to, width);
}

// What the kernels cut their work by: tests follow them.
extern "C" const Index boundaries[] = {TILE, CHUNK, ROWS, VECTORS * LANES<REAL>};
