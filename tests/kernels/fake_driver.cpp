// A library with the CUDA driver's functions that runs kernels on threads of the host. Memory of the
// device is memory of the host. A cubin is "Forward" or "Backward"; what was asked for is remembered.
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "recurrent.cu"

struct Launched {
  unsigned grid, threads, shared;
  const void *stream;
  int limit, nonportable, launches, device;
};
static Launched launched;
static int status;              // of the next call that can fail
static int of_framework = 0;    // the device whose context a framework has made current; -1 = none has
static bool captures = false;   // a CUDA graph, for which a thread that is not relaxed loads nothing
static std::set<const void*> loaded;  // kernels; others are loaded at their first launch
static thread_local std::vector<int> pushed;
static thread_local int mode = 1;
enum { RELAXED = 2, NO_CONTEXT = 201, CAPTURED = 900 };

static int current() { return pushed.empty() ? of_framework : pushed.back(); }
static int loads() {
  if (captures && mode != RELAXED) return CAPTURED;
  return status;
}

extern "C" {
const Launched* get_launched() { return &launched; }
void fail_with(int code) { status = code; }
void forget() {
  const int limit = launched.limit;  // a kernel that is ready stays so
  launched = {}, launched.limit = limit, status = 0, of_framework = 0, captures = false;
}
void let_framework(int device) { of_framework = device; }
void capture(bool is_captured) { captures = is_captured; }
int get_current() { return current(); }

int cuInit(unsigned) { return status; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGet(int* device, int index) { return *device = index, 0; }
int cuDeviceGetName(char* name, int, int) { return std::strcpy(name, "Played GPU"), 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 16 ? 2 : attribute == 75 ? 9 : attribute == 76 ? 0 : 232448;
  return 0;
}
int cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR_PLAYED", 0; }

int cuLibraryLoadData(void** library, const void* cubin, void*, void*, unsigned, void*, void*, unsigned) {
  *library = *static_cast<const char*>(cubin) == 'F' ? &launched.grid : &launched.threads;
  loaded.erase(*library);
  return loads();
}
int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  *kernel = library;
  return std::string(name) == "recurrent" ? 0 : 500;
}
int cuKernelGetFunction(void** function, void* kernel) {
  if (current() < 0) return NO_CONTEXT;
  loaded.insert(kernel);
  return *function = kernel, loads();
}
int cuCtxGetDevice(int* device) { return *device = current(), current() < 0 ? NO_CONTEXT : 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) {
  return *context = reinterpret_cast<void*>(std::intptr_t(device + 1)), 0;
}
int cuCtxPushCurrent_v2(void* context) { return pushed.push_back(int(std::intptr_t(context)) - 1), 0; }
int cuCtxPopCurrent_v2(void** context) {
  if (pushed.empty()) return NO_CONTEXT;
  *context = reinterpret_cast<void*>(std::intptr_t(pushed.back() + 1));
  return pushed.pop_back(), 0;
}
int cuThreadExchangeStreamCaptureMode(int* given) { return std::swap(mode, *given), 0; }
int cuKernelSetAttribute(int attribute, int value, void*, int) {
  (attribute == 8 ? launched.limit : launched.nonportable) = value;
  return 0;
}
int cuLaunchKernel(void* kernel, unsigned grid, unsigned, unsigned, unsigned threads, unsigned, unsigned,
                   unsigned shared, void* stream, void** arguments, void**) {
  if (current() < 0) return NO_CONTEXT;
  if (const int refused = loaded.count(kernel) ? status : loads()) return refused;
  const int launches = launched.launches + 1;
  launched = {grid, threads, shared, stream, launched.limit, launched.nonportable, launches, current()};
  if (threads != THREADS || grid % CLUSTER || int(shared) > launched.limit) return 1;
  const auto clusters = int(grid / CLUSTER);
  if (kernel == &launched.grid) {
    const auto call = *static_cast<const ForwardCall*>(arguments[0]);  // a driver copies it too
    played::launch([&] { Forward<CELL<float>>(call).run(); }, clusters, shared / sizeof(float));
  } else {
    const auto call = *static_cast<const BackwardCall*>(arguments[0]);
    played::launch([&] { Backward<CELL<float>>(call).run(); }, clusters, shared / sizeof(float));
  }
  return 0;
}
int cuMemsetD8Async(void* to, unsigned char value, std::size_t count, void*) {
  return std::memset(to, value, count), 0;
}
}
