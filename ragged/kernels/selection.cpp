// The kernels of `selection.hpp` for a dtype as functions that take addresses.
#include "selection_backward.hpp"
#include "threads.hpp"

using namespace ragged;

// sizes: features, tokens, inputs, hidden, size, seed, threads, whether the team is OpenMP's. arrays: x, weights,
// those of the networks; then the result, or its gradient and the gradients of all before.
static Selection selection(const Index* s, double dropout) {
  return {s[0], s[1], s[2], s[3], s[4], dropout, std::uint64_t(s[5])};
}

extern "C" Status selection_forward(const Index* sizes, double dropout, REAL* const* a, Team team) {
  return guarded([&] {
    SelectionForward<REAL>(selection(sizes, dropout), a[0], a[1], a + 2, a[2 + ARRAYS])
        .run(sizes[6], in_threads(team, sizes[7]));
  });
}

extern "C" Status selection_backward(const Index* sizes, double dropout, REAL* const* a, Team team) {
  return guarded([&] {
    REAL* const* found = a + 3 + ARRAYS;
    SelectionBackward<REAL>(selection(sizes, dropout), a[0], a[1], a + 2, a[2 + ARRAYS], found[0], found[1], found + 2)
        .run(sizes[6], in_threads(team, sizes[7]));
  });
}
