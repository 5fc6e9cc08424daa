// The kernels of `ragged/kernels` as functions that Python calls with addresses.
#include <thread>

#include "lstm_backward.hpp"

using namespace ragged;

// What OpenMP gives a compiler to run a team of threads. Torch's own team is awake already, and
// a second one beside it would fight for its cores.
using Team = void (*)(void (*)(void*), void*, unsigned, unsigned);

static Parallel in_threads(Team team) {
  return [team](Index workers, const Task& task) {
    std::atomic<Index> next{0};
    auto work = [&] {
      for (Index worker; (worker = next++) < workers;) task(worker);
    };
    if (workers > 1 && team)
      return team([](void* work_) { (*static_cast<decltype(work)*>(work_))(); }, &work,
                  unsigned(workers), 0);
    std::vector<std::thread> others;
    for (Index worker = 1; worker < workers; ++worker) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
  };
}

// sizes: batch, width, inputs, hidden, reverse, threads; arrays: in the order of the structs.
static Sizes sizes_of(const Index* s, const Index* lengths) {
  return {s[0], s[1], s[2], s[3], s[4] != 0, lengths};
}

extern "C" void lstm_forward(const Index* sizes, const Index* lengths, REAL* const* a, Team team) {
  const Sizes own = sizes_of(sizes, lengths);
  Forward<REAL>(own, {a[0], a[1], a[2], a[3], a[4], a[5], a[6]}, {a[7], a[8], a[9], a[10], a[11]})
      .run(own.workers(sizes[5]), in_threads(team));
}

extern "C" void lstm_backward(const Index* sizes, const Index* lengths, REAL* const* a, Team team) {
  const Sizes own = sizes_of(sizes, lengths);
  Backward<REAL>(own, {a[0], a[1], a[2], a[3], a[4], nullptr, nullptr}, {a[5], a[6], a[7]},
                 {a[8], a[9], a[10]}, {a[11], a[12], a[13], a[14], a[15], a[16]})
      .run(own.workers(sizes[5]), in_threads(team));
}
