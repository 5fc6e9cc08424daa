// The recurrent kernels of a cell and a dtype as functions that take addresses.
#include "backward.hpp"
#include "threads.hpp"

using namespace ragged;

// sizes: batch, width, places, layout, reverse, inputs, hidden, room, threads, whether the team is
// OpenMP's, whether resets are to the initial state. arrays: in the order of the structs, null where
// there is none. resets: null where there are none.
static Rows rows_of(const Index* s, const Index* lengths, const bool* resets) {
  return {Layout(s[3]), s[0], s[1], s[2], s[4] != 0, lengths, {resets, s[10] != 0}};
}

static Sizes sizes_of(const Index* s) { return {s[5], s[6], s[7]}; }

extern "C" Status recurrent_forward(const Index* sizes, const Index* lengths, REAL* const* a,
                                    const bool* resets, Team team) {
  return guarded([&] {
    const Rows rows = rows_of(sizes, lengths, resets);
    Forward<REAL, CELL>(rows, sizes_of(sizes), {a[0], a[1], a[2], a[3], a[4], a[5], a[6]},
                        {a[7], a[8], a[9], a[10]})
        .run(sizes[8], {team, sizes[9] != 0});
  });
}

extern "C" Status recurrent_backward(const Index* sizes, const Index* lengths, REAL* const* a,
                                     const bool* resets, Team team) {
  return guarded([&] {
    const Rows rows = rows_of(sizes, lengths, resets);
    Backward<REAL, CELL>(rows, sizes_of(sizes), {a[0], a[1], a[2], a[3], a[4], nullptr, nullptr},
                         {a[5], a[6]}, {a[7], a[8], a[9]},
                         {a[10], a[11], a[12], a[13], a[14], a[15], a[16]})
        .run(sizes[8], {team, sizes[9] != 0});
  });
}
