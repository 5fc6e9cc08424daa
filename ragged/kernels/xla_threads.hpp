// The tasks of a call shared among XLA's own threads, and what XLA is told of its failure.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "team.hpp"
#include "xla/ffi/api/ffi.h"

namespace ragged {

namespace ffi = xla::ffi;

// XLA's own threads help, as far as they are free; who called works too, and waits for all.
inline Parallel in_threads(ffi::ThreadPool pool) {
  return [pool](Index workers, const Task& task) mutable {
    struct Shared {
      Tasks tasks;
      Index left;
      std::mutex mutex;
      std::condition_variable done;
      Shared(Index workers, const Task& task) : tasks(workers, task), left(workers) {}
    };
    auto shared = std::make_shared<Shared>(workers, task);
    const auto work = [shared] {
      const Index ran = shared->tasks.work();
      std::lock_guard lock(shared->mutex);
      shared->left -= ran;
      if (!shared->left) shared->done.notify_one();
    };
    try {
      for (Index worker = 1; worker < workers; ++worker) pool.Schedule(std::function<void()>(work));
    } catch (const std::bad_alloc&) {  // fewer threads are no error
    }
    work();
    std::unique_lock lock(shared->mutex);
    shared->done.wait(lock, [&] { return !shared->left; });
    shared->tasks.finish();
  };
}

template <class Body>
ffi::Error told(const std::string& function, Body&& body) {
  switch (guarded(body)) {
    case Status::done:
      return ffi::Error::Success();
    case Status::bad_lengths:
      return ffi::Error::InvalidArgument(
          function + ": `lengths` are not all between 0 and the width; expected the valid steps of each "
          "row. Check them before they are traced, e.g. by ragged.Lengths(lengths, width).");
    case Status::no_memory:
      return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                        function + ": no memory is left for the kernels. Give fewer rows at once.");
    default:
      return ffi::Error::Internal(function + ": the kernels failed. Set RAGGED_KERNELS=0.");
  }
}

}  // namespace ragged
