// A library with the CUDA driver's functions that runs kernels on threads of the host. Memory of the
// device is memory of the host. A cubin is "Forward" or "Backward"; what was asked for is remembered.
#include <cstring>
#include <string>

#include "recurrent.cu"

struct Launched {
  unsigned grid, threads, shared;
  const void *stream;
  int limit, nonportable, launches;
};
static Launched launched;
static int status;  // of the next call that can fail

extern "C" {
const Launched* get_launched() { return &launched; }
void fail_with(int code) { status = code; }
void forget() { launched = {}, status = 0; }

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
  return status;
}
int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  *kernel = library;
  return std::string(name) == "recurrent" ? 0 : 500;
}
int cuCtxGetDevice(int* device) { return *device = 0, 0; }
int cuKernelSetAttribute(int attribute, int value, void*, int) {
  (attribute == 8 ? launched.limit : launched.nonportable) = value;
  return 0;
}
int cuLaunchKernel(void* kernel, unsigned grid, unsigned, unsigned, unsigned threads, unsigned, unsigned,
                   unsigned shared, void* stream, void** arguments, void**) {
  if (status) return status;
  launched = {grid, threads, shared, stream, launched.limit, launched.nonportable, launched.launches + 1};
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
