// The kernels of `ragged/kernels` as custom calls of XLA's programs.
#include <condition_variable>
#include <memory>
#include <mutex>

#include "lstm_backward.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using namespace ragged;

// XLA's own threads help, as far as they are free; who called works too, and waits for all.
static Parallel in_threads(ffi::ThreadPool pool) {
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

// What a call is made with: x first, lengths last, all else in the order of the structs.
class Call {
 public:
  Call(ffi::RemainingArgs args, ffi::RemainingRets rets, bool reverse) : args(args), rets(rets) {
    const auto shape = args.get<ffi::AnyBuffer>(0)->dimensions();
    const auto given = *args.get<ffi::AnyBuffer>(args.size() - 1);
    lengths.assign(given.typed_data<std::int32_t>(), given.typed_data<std::int32_t>() + shape[0]);
    sizes = {shape[0], shape[1], shape[2], args.get<ffi::AnyBuffer>(1)->dimensions()[1], reverse,
             lengths.data()};
    sizes.padded = true;
  }

  const REAL* in(std::size_t place) { return args.get<ffi::AnyBuffer>(place)->typed_data<REAL>(); }

  REAL* out(std::size_t place) {
    auto array = *rets.get<ffi::AnyBuffer>(place);
    return array->element_count() ? array->typed_data<REAL>() : nullptr;
  }

  Sizes sizes;

 private:
  ffi::RemainingArgs args;
  ffi::RemainingRets rets;
  std::vector<Index> lengths;
};

template <class Body>
static ffi::Error told(Body&& body) {
  switch (guarded(body)) {
    case Status::done:
      return ffi::Error::Success();
    case Status::bad_lengths:
      return ffi::Error::InvalidArgument(
          "lstm: `lengths` are not all between 0 and the width; expected the valid steps of each "
          "row. Check them before they are traced, e.g. by ragged.Lengths(lengths, width).");
    case Status::no_memory:
      return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                        "lstm: no memory is left for the kernels. Give fewer rows at once.");
    default:
      return ffi::Error::Internal("lstm: the kernels failed. Set RAGGED_KERNELS=0.");
  }
}

static ffi::Error forward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                          bool reverse) {
  return told([&] {
    Call c(args, rets, reverse);
    Forward<REAL>(c.sizes, {c.in(0), c.in(1), c.in(2), c.in(3), c.in(4), c.in(5), c.in(6)},
                  {c.out(0), c.out(1), c.out(2), c.out(3), c.out(4)})
        .run(pool.num_threads(), in_threads(pool));
  });
}

static ffi::Error backward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                           bool reverse) {
  return told([&] {
    Call c(args, rets, reverse);
    const std::size_t of_x = rets.size() - 5;  // 0 if x's gradient is not wanted
    Backward<REAL>(c.sizes, {c.in(0), c.in(1), c.in(2), c.in(3), c.in(4), nullptr, nullptr},
                   {c.in(5), c.in(6), c.in(7)}, {c.in(8), c.in(9), c.in(10)},
                   {of_x ? c.out(0) : nullptr, c.out(of_x), c.out(of_x + 1), c.out(of_x + 2),
                    c.out(of_x + 3), c.out(of_x + 4)})
        .run(pool.num_threads(), in_threads(pool));
  });
}

#define PASS                                                                            \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<bool>( \
      "reverse")
XLA_FFI_DEFINE_HANDLER_SYMBOL(lstm_forward, forward, PASS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(lstm_backward, backward, PASS);
