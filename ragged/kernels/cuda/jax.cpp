// CUDA kernels as custom calls of XLA's programs.
//
// It needs neither CUDA's headers nor its libraries: the driver is looked up when the first kernel
// runs. A program names its kernel, whose code Python has registered in this process: an address in a
// program would not outlive the process. No GPU has run this; RAGGED_PLAYED names a library that plays the
// driver for programs of the CPU, which have no stream.
#include <dlfcn.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "device_rows.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int SHARED = 8, CLUSTER = 14;  // the driver's numbers for attributes of a kernel
constexpr int PORTABLE_CLUSTER = 8;
constexpr int RELAXED = 2;  // what a thread may do while a CUDA graph is captured: all

struct Kernel {
  std::string cubin;
  unsigned cluster, threads, shared;
  void* handle = nullptr;
  std::set<int> devices;  // where it is ready
};

std::mutex mutex;
std::map<std::string, Kernel, std::less<>> kernels;

// The driver's functions; null where there is no driver.
struct Driver {
#ifdef RAGGED_PLAYED
  void* library = dlopen(RAGGED_PLAYED, RTLD_NOW);
#else
  void* library = dlopen("libcuda.so.1", RTLD_NOW);
#endif

  template <class Function>
  Function* find(const char* name) const {
    return library ? reinterpret_cast<Function*>(dlsym(library, name)) : nullptr;
  }

  using Load = int(void**, const void*, void*, void*, unsigned, void*, void*, unsigned);
  using Get = int(void**, void*, const char*);
  using GetFunction = int(void**, void*);
  using ExchangeMode = int(int*);
  using GetDevice = int(int*);
  using SetAttribute = int(int, int, void*, int);
  using Launch = int(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                     void**, void**);
  using Clear = int(void*, unsigned char, std::size_t, void*);

  Load* load = find<Load>("cuLibraryLoadData");
  Get* get = find<Get>("cuLibraryGetKernel");
  GetFunction* get_function = find<GetFunction>("cuKernelGetFunction");
  ExchangeMode* exchange_mode = find<ExchangeMode>("cuThreadExchangeStreamCaptureMode");
  GetDevice* get_device = find<GetDevice>("cuCtxGetDevice");
  SetAttribute* set_attribute = find<SetAttribute>("cuKernelSetAttribute");
  Launch* launch = find<Launch>("cuLaunchKernel");
  Clear* clear = find<Clear>("cuMemsetD8Async");

  bool is_complete() const {
    return load && get && get_function && exchange_mode && get_device && set_attribute && launch && clear;
  }
};

const Driver& driver() {
  static const Driver found;
  return found;
}

ffi::Error failed(const char* function, int status) {
  return ffi::Error::Internal(std::string("recurrent layer: the CUDA driver's ") + function + " gave " +
                              std::to_string(status) + ". Set RAGGED_KERNELS=0 to do without kernels.");
}

// XLA may be capturing a CUDA graph, which does not record what is loaded: this thread may load for as
// long as there is one of these.
class Relaxed {
 public:
  Relaxed() { driver().exchange_mode(&mode); }
  ~Relaxed() { driver().exchange_mode(&mode); }

 private:
  int mode = RELAXED;
};

// Load a kernel once, and let it have its memory on this device.
ffi::Error prepare(Kernel& kernel) {
  std::lock_guard lock(mutex);
  int device;
  if (int status = driver().get_device(&device)) return failed("cuCtxGetDevice", status);
  if (kernel.devices.count(device)) return ffi::Error::Success();
  Relaxed relaxed;
  if (!kernel.handle) {
    void *library, *handle;
    if (int status = driver().load(&library, kernel.cubin.data(), nullptr, nullptr, 0, nullptr, nullptr, 0))
      return failed("cuLibraryLoadData", status);
    if (int status = driver().get(&handle, library, "recurrent")) return failed("cuLibraryGetKernel", status);
    kernel.handle = handle;
  }
  if (int status = driver().set_attribute(SHARED, int(kernel.shared), kernel.handle, device))
    return failed("cuKernelSetAttribute", status);
  if (kernel.cluster > PORTABLE_CLUSTER)
    if (int status = driver().set_attribute(CLUSTER, 1, kernel.handle, device))
      return failed("cuKernelSetAttribute", status);
  void* function;  // or it would be loaded at its first launch, which may be captured
  if (int status = driver().get_function(&function, kernel.handle))
    return failed("cuKernelGetFunction", status);
  kernel.devices.insert(device);
  return ffi::Error::Success();
}

Kernel* find_kernel(std::string_view name) {
  std::lock_guard lock(mutex);
  const auto found = kernels.find(name);
  return found == kernels.end() ? nullptr : &found->second;
}

// The argument of either pass: rows, then inputs and outputs in the order of `calls.cuh`.
struct Call {
  ragged::DeviceRows rows;
  void* arrays[12];
};

// An array of no elements is none.
template <class Buffer>
void* data_of(const Buffer& buffer) {
  return buffer.element_count() ? buffer.untyped_data() : nullptr;
}

// Launch a kernel; the results whose bit is set in `cleared` are to read as 0 where it does not write.
ffi::Error run(void* stream, ffi::RemainingArgs args, ffi::RemainingRets rets, unsigned cleared,
               std::string_view name, std::int64_t clusters, bool reverse, bool to_initial) {
  Kernel* kernel = find_kernel(name);
  if (!kernel)
    return ffi::Error::Internal("recurrent layer: this process has not registered the kernel " +
                                std::string(name) +
                                ". Trace the program here, or export it with RAGGED_KERNELS=0.");
  if (!driver().is_complete())
    return ffi::Error::Internal(
        "recurrent layer: no CUDA driver of version 12 or newer. Set RAGGED_KERNELS=0.");
  if (auto error = prepare(*kernel); error.failure()) return error;

  const auto in = [&](std::size_t k) { return *args.get<ffi::AnyBuffer>(k); };
  const auto table = [&](std::size_t k) { return static_cast<const int*>(data_of(in(k))); };
  Call call{};
  call.rows = {table(0), table(1), table(2), table(3), static_cast<const unsigned char*>(data_of(in(4))),
               int(in(2).element_count()), reverse, to_initial};
  void** to = call.arrays;
  for (std::size_t k = 5; k < args.size(); ++k) *to++ = data_of(in(k));
  for (std::size_t k = 0; k < rets.size(); ++k) {
    auto result = *rets.get<ffi::AnyBuffer>(k);
    *to++ = data_of(*result);
    if ((cleared >> k & 1) && result->element_count())
      if (int status = driver().clear(result->untyped_data(), 0, result->size_bytes(), stream))
        return failed("cuMemsetD8Async", status);
  }
  if (!clusters) return ffi::Error::Success();
  void* arguments[] = {&call};
  const unsigned grid = unsigned(clusters) * kernel->cluster;
  const int status = driver().launch(kernel->handle, grid, 1, 1, kernel->threads, 1, 1, kernel->shared,
                                     stream, arguments, nullptr);
  return status ? failed("cuLaunchKernel", status) : ffi::Error::Success();
}

#ifdef RAGGED_PLAYED
#define STREAM
#define STREAM_PARAMETER
void* const stream = nullptr;
#else
#define STREAM .Ctx<ffi::PlatformStream<void*>>()
#define STREAM_PARAMETER void *stream,
#endif

// y and what is kept are 0 at padding.
ffi::Error forward(STREAM_PARAMETER ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                   std::int64_t clusters, bool reverse, bool to_initial) {
  return run(stream, args, rets, 0b1001, name, clusters, reverse, to_initial);
}

// So are the gradients of the sums, and h before.
ffi::Error backward(STREAM_PARAMETER ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                    std::int64_t clusters, bool reverse, bool to_initial) {
  return run(stream, args, rets, 0b0011, name, clusters, reverse, to_initial);
}

}  // namespace

// Make a kernel known by its name.
extern "C" void register_kernel(const char* name, const char* cubin, std::int64_t size, unsigned cluster,
                                unsigned threads, unsigned shared) {
  std::lock_guard lock(mutex);
  kernels.try_emplace(name, Kernel{std::string(cubin, size), cluster, threads, shared});
}

#define PASS                                                                              \
  ffi::Ffi::Bind() STREAM.RemainingArgs().RemainingRets().Attr<std::string_view>("kernel") \
      .Attr<std::int64_t>("clusters").Attr<bool>("reverse").Attr<bool>("to_initial")
XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrent_forward, forward, PASS, {ffi::Traits::kCmdBufferCompatible});
XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrent_backward, backward, PASS, {ffi::Traits::kCmdBufferCompatible});
