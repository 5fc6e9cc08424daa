// The tasks of a call shared among the threads of its framework.
#pragma once

#include <pthread.h>

#include <vector>

#include "team.hpp"

namespace ragged {

// Start up to `count` threads: fewer are no error.
inline std::vector<pthread_t> start(Index count, void* (*work)(void*), void* given) {
  std::vector<pthread_t> threads(count);
  Index started = 0;
  while (started < count && !pthread_create(&threads[started], nullptr, work, given)) ++started;
  threads.resize(started);
  return threads;
}

inline void join(const std::vector<pthread_t>& threads) {
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
}

// Whether so many threads can be had at once: where they cannot, OpenMP ends the process. Each
// thread that calls has a team of its own, which stays awake.
inline bool can_wake(Index threads) {
  thread_local Index known = 1;
  if (threads <= known) return true;
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  const auto pass = [](void* given) -> void* {
    auto* gate = static_cast<pthread_mutex_t*>(given);
    pthread_mutex_lock(gate), pthread_mutex_unlock(gate);
    return nullptr;
  };
  pthread_mutex_lock(&gate);
  const auto others = start(threads - 1, pass, &gate);
  pthread_mutex_unlock(&gate);
  join(others);
  if (Index(others.size()) == threads - 1) known = threads;
  return threads <= known;
}

inline void Parallel::operator()(Index workers, const Task& task) const {
  Tasks tasks(workers, task);
  const auto work = [](void* all) -> void* { return static_cast<Tasks*>(all)->work(), nullptr; };
  if (workers > 1 && team && (!is_openmp || can_wake(workers))) {
    team([](void* all) { static_cast<Tasks*>(all)->work(); }, &tasks, unsigned(workers), 0);
  } else {
    const auto others = start(workers - 1, work, &tasks);
    tasks.work();
    join(others);
  }
  tasks.finish();
}

}  // namespace ragged
