// The kernels of `gated.hpp` for a dtype as functions that take addresses.
#include "gated_backward.hpp"
#include "threads.hpp"

using namespace ragged;

// sizes: features, tokens, inputs, hidden, size, whether the residual is stretched, the numbers that x is made of,
// whether the result is a softmax, seed, threads, whether the team is OpenMP's. arrays: what tokens have, and the
// networks; then the result, or its gradient; what is kept between, or null; and the gradients of all before.
static Gated gated(const Index* s, double dropout) {
  return {s[0], s[1], s[2], s[3], s[4], bool(s[5]), dropout, std::uint64_t(s[8]), s[6], bool(s[7])};
}

extern "C" Status gated_forward(const Index* sizes, double dropout, REAL* const* a, Team team) {
  return guarded([&] {
    REAL* const* const networks = a + TOKENS;
    GatedForward<REAL>(gated(sizes, dropout), {a[0], a[1], a[2], a[3]}, networks, networks[ARRAYS],
                       networks[ARRAYS + 1])
        .run(sizes[9], {team, sizes[10] != 0});
  });
}

extern "C" Status gated_backward(const Index* sizes, double dropout, REAL* const* a, Team team) {
  return guarded([&] {
    REAL *const *const networks = a + TOKENS, *const *const found = networks + ARRAYS + 2;
    GatedBackward<REAL>(gated(sizes, dropout), {a[0], a[1], a[2], a[3]}, networks, networks[ARRAYS],
                        networks[ARRAYS + 1], {found[0], found[1], found[2], found[3]}, found + TOKENS)
        .run(sizes[9], {team, sizes[10] != 0});
  });
}
