// The kernels of `ragged/kernels` as functions that Python calls with addresses.
#include "backward.hpp"
#include "torch_threads.hpp"

using namespace ragged;

// sizes: batch, width, places, layout, reverse, inputs, hidden, room, threads; arrays: in the order
// of the structs, null where there is none.
static Rows rows_of(const Index* s, const Index* lengths) {
  return {Layout(s[3]), s[0], s[1], s[2], s[4] != 0, lengths};
}

static Sizes sizes_of(const Index* s) { return {s[5], s[6], s[7]}; }

extern "C" Status recurrent_forward(const Index* sizes, const Index* lengths, REAL* const* a,
                                    Team team) {
  return guarded([&] {
    const Rows rows = rows_of(sizes, lengths);
    Forward<REAL, CELL>(rows, sizes_of(sizes), {a[0], a[1], a[2], a[3], a[4], a[5], a[6]},
                        {a[7], a[8], a[9], a[10]})
        .run(sizes[8], in_threads(team));
  });
}

extern "C" Status recurrent_backward(const Index* sizes, const Index* lengths, REAL* const* a,
                                     Team team) {
  return guarded([&] {
    const Rows rows = rows_of(sizes, lengths);
    Backward<REAL, CELL>(rows, sizes_of(sizes), {a[0], a[1], a[2], a[3], a[4], nullptr, nullptr},
                         {a[5], a[6]}, {a[7], a[8], a[9]},
                         {a[10], a[11], a[12], a[13], a[14], a[15], a[16]})
        .run(sizes[8], in_threads(team));
  });
}
