// XLA's own threads as the team of a call, and what XLA is told of its failure.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "team.hpp"
#include "xla/ffi/api/ffi.h"

namespace ragged {

namespace ffi = xla::ffi;

// The threads that help with the call that this one makes.
inline thread_local ffi::ThreadPool* pool_of_call = nullptr;

// They help as far as they are free; who called works too. Who comes late finds all done.
inline void in_pool(void (*work)(void*), void* all, unsigned threads, unsigned) noexcept {
  struct Shared {
    std::mutex mutex;
    std::condition_variable left;
    Index working = 0;
    bool is_over = false;
  };
  std::shared_ptr<Shared> shared;
  try {
    shared = std::make_shared<Shared>();
    const std::function<void()> help = [=] {
      {
        std::lock_guard lock(shared->mutex);
        if (shared->is_over) return;
        ++shared->working;
      }
      work(all);
      std::lock_guard lock(shared->mutex);
      if (!--shared->working) shared->left.notify_one();
    };
    for (unsigned other = 1; other < threads; ++other) pool_of_call->Schedule(std::function<void()>(help));
  } catch (const std::bad_alloc&) {  // fewer threads are no error
  }
  work(all);
  if (!shared) return;
  std::unique_lock lock(shared->mutex);
  shared->is_over = true;
  shared->left.wait(lock, [&] { return !shared->working; });
}

inline ffi::Error told(Status status, const std::string& function) {
  switch (status) {
    case Status::done:
      return ffi::Error::Success();
    case Status::bad_lengths:
      return ffi::Error::InvalidArgument(
          function + ": `lengths` are not all between 0 and the width, or more in all than there is room "
          "for; expected the valid steps of each row. Check them before they are traced, e.g. by "
          "ragged.Lengths(lengths, width), and their sum against `token_capacity` where one is given.");
    case Status::no_memory:
      return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                        function + ": no memory is left for the kernels. Give fewer rows at once.");
    default:
      return ffi::Error::Internal(function + ": the kernels failed. Set RAGGED_KERNELS=0.");
  }
}

}  // namespace ragged
