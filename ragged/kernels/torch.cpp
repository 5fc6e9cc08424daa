// The kernels of `ragged/kernels` as functions that Python calls with addresses.
#include <mutex>
#include <thread>

#include "backward.hpp"

using namespace ragged;

// What OpenMP gives a compiler to run a team of threads. A second team beside torch's
// would compete with it for the cores.
using Team = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Start up to `count` threads: fewer are no error.
template <class Work>
static std::vector<std::thread> start(Index count, const Work& work) {
  std::vector<std::thread> threads;
  threads.reserve(count);
  try {
    while (Index(threads.size()) < count) threads.emplace_back(work);
  } catch (const std::exception&) {
  }
  return threads;
}

// Whether so many threads can be had at once: where they cannot, OpenMP ends the process. Each
// thread that calls has a team of its own, which stays awake.
static bool can_wake(Index threads) {
  thread_local Index known = 1;
  if (threads <= known) return true;
  std::mutex gate;
  std::unique_lock closed(gate);
  auto others = start(threads - 1, [&gate] { std::lock_guard pass(gate); });
  closed.unlock();
  for (auto& other : others) other.join();
  if (Index(others.size()) == threads - 1) known = threads;
  return threads <= known;
}

static Parallel in_threads(Team team) {
  return [team](Index workers, const Task& task) {
    Tasks tasks(workers, task);
    if (workers > 1 && team && can_wake(workers)) {
      team([](void* all) { static_cast<Tasks*>(all)->work(); }, &tasks, unsigned(workers), 0);
    } else {
      auto others = start(workers - 1, [&tasks] { tasks.work(); });
      tasks.work();
      for (auto& other : others) other.join();
    }
    tasks.finish();
  };
}

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
