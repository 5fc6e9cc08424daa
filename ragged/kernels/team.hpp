// The tasks of a call shared among threads, and what leaves a call instead of an exception.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>

#include "simd.hpp"

namespace ragged {

constexpr double WORTH_A_WORKER = 5e5;  // products: fewer take less time than it takes to wake up

// Calls what a worker does, which has to outlive it.
class Task {
 public:
  template <class Body>
  Task(const Body& body)
      : body(&body), call([](const void* of, Index worker) { (*static_cast<const Body*>(of))(worker); }) {}

  void operator()(Index worker) const { call(body, worker); }

 private:
  const void* const body;
  void (*const call)(const void*, Index);
};

// Runs work(all) in up to so many threads, who calls among them, and returns once none does. It is
// what OpenMP gives a compiler: a second team beside the framework's would compete for the cores.
using Team = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Runs task(worker) for every worker, in the threads of a team, or in threads of its own without one.
struct Parallel {
  Team team = nullptr;
  bool is_openmp = false;  // it is OpenMP's

  void operator()(Index workers, const Task& task) const;  // in `threads.hpp`
};

// Tasks that each run once, in whichever thread comes for it. An exception that left a thread would
// end the process, so the first one waits for the caller.
class Tasks {
 public:
  Tasks(Index count, const Task& task) : count(count), task(task) {}

  // Run tasks until none is left.
  void work() noexcept {
    for (Index taken; (taken = next++) < count;) try {
        task(taken);
      } catch (...) {
        if (!failed.test_and_set()) thrown = std::current_exception();
      }
  }

  // Called once all have run.
  void finish() const {
    if (thrown) std::rethrow_exception(thrown);
  }

 private:
  const Index count;
  const Task& task;  // not touched once all tasks are taken
  std::atomic<Index> next{0};
  std::atomic_flag failed = ATOMIC_FLAG_INIT;
  std::exception_ptr thrown;
};

// Run body(worker, n) for n below count, each in whichever worker comes for it.
template <class Body>
void share(Index count, Index workers, const Parallel& parallel, Body&& body) {
  std::atomic<Index> next{0};
  parallel(std::max<Index>(1, std::min(workers, count)), [&](Index worker) {
    for (Index n; (n = next++) < count;) body(worker, n);
  });
}

// What became of a call; `ragged.kernels` knows these numbers too.
enum class Status : int { done, bad_lengths, no_memory, failed };

struct BadLengths {};

// Neither C nor XLA lets an exception through.
template <class Body>
Status guarded(Body&& body) noexcept {
  try {
    body();
    return Status::done;
  } catch (const BadLengths&) {
    return Status::bad_lengths;
  } catch (const std::exception&) {  // std::bad_alloc, or std::length_error: more than any vector holds
    return Status::no_memory;
  } catch (...) {
    return Status::failed;
  }
}

}  // namespace ragged
