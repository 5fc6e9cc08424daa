// The tasks of a call shared among the threads of its framework.
#pragma once

#include <mutex>
#include <thread>
#include <vector>

#include "team.hpp"

namespace ragged {

// Start up to `count` threads: fewer are no error.
template <class Work>
std::vector<std::thread> start(Index count, const Work& work) {
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
inline bool can_wake(Index threads) {
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

inline Parallel in_threads(Team team, bool is_openmp) {
  return [team, is_openmp](Index workers, const Task& task) {
    Tasks tasks(workers, task);
    if (workers > 1 && team && (!is_openmp || can_wake(workers))) {
      team([](void* all) { static_cast<Tasks*>(all)->work(); }, &tasks, unsigned(workers), 0);
    } else {
      auto others = start(workers - 1, [&tasks] { tasks.work(); });
      tasks.work();
      for (auto& other : others) other.join();
    }
    tasks.finish();
  };
}

}  // namespace ragged
