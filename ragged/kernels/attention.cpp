// The kernels of `attention.hpp` for a dtype as functions that take addresses.
#include "attention_backward.hpp"
#include "threads.hpp"

using namespace ragged;

// sizes: layout, batch; width and places of queries, then of keys; heads, size, value size, whether
// values are shared, whether it is causal, diagonal, seed, threads, whether the team is OpenMP's.
// reals: scale, dropout. arrays: in the order of the structs.
static Attended attended(const Index* s, const double* reals) {
  return {s[6], s[7], s[8], s[9] != 0, s[10] != 0, s[11], reals[0], reals[1], std::uint64_t(s[12])};
}

static Spans spans(const Index* s, int first, const Index* lengths) {
  return {Layout(s[0]), s[1], s[first], s[first + 1], lengths};
}

extern "C" Status attention_forward(const Index* sizes, const double* reals, const Index* q_lengths,
                                    const Index* k_lengths, REAL* const* a, Team team) {
  return guarded([&] {
    const Spans queries = spans(sizes, 2, q_lengths), keys = spans(sizes, 4, k_lengths);
    AttentionForward<REAL>(queries, keys, attended(sizes, reals), {a[0], a[1], a[2]}, {a[3], a[4]})
        .run(sizes[13], {team, sizes[14] != 0});
  });
}

extern "C" Status attention_backward(const Index* sizes, const double* reals, const Index* q_lengths,
                                     const Index* k_lengths, REAL* const* a, Team team) {
  return guarded([&] {
    const Spans queries = spans(sizes, 2, q_lengths), keys = spans(sizes, 4, k_lengths);
    AttentionBackward<REAL>(queries, keys, attended(sizes, reals), {a[0], a[1], a[2]}, {a[3], a[4]},
                            {a[5], a[6], a[7]})
        .run(sizes[13], {team, sizes[14] != 0});
  });
}
