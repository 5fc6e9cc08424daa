// What the harnesses of kernels share: memory that ends on demand, drawn numbers, and what is expected.
//
// Each harness includes the kernels' source before.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <vector>

static std::atomic<Index> allocations_left{-1};  // negative: any number

static bool may_allocate() {
  if (allocations_left == 0) return false;
  if (allocations_left > 0) --allocations_left;
  return true;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return may_allocate() ? std::malloc(size ? size : 1) : nullptr;
}
void* operator new(std::size_t size) {
  if (void* found = operator new(size, std::nothrow)) return found;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  void* found = nullptr;
  if (!may_allocate() || posix_memalign(&found, std::size_t(alignment), size)) throw std::bad_alloc();
  return found;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// The plain loops cost most of the time, and the kernels alone are on trial.
#define UNWATCHED __attribute__((no_sanitize("address", "thread", "undefined")))

// A sanitizer of threads has nothing to see in a call that one thread works at.
#ifdef __SANITIZE_THREAD__
constexpr Index LEAST_WORKERS = 2;
#else
constexpr Index LEAST_WORKERS = 1;
#endif

using Values = std::vector<double>;

static std::mt19937 generator(0);

static Index any(Index most) { return Index(generator() % (most + 1)); }

// Holds nearly always, millions of times: a text is put together by a caller where it does not.
static void expect(bool holds, const char* what, Index where = 0) {
  if (holds) return;
  std::fprintf(stderr, "%s (%ld)\n", what, long(where));
  std::exit(1);
}

// Call again and again with one more allocation, until there are enough.
template <class Call>
static Status with_little_memory(Call&& call) {
  Status status = Status::no_memory;
  Index failures = 0;
  for (; status == Status::no_memory && failures < 1000; ++failures) {
    allocations_left = failures;
    status = call();
    allocations_left = -1;
  }
  if (status == Status::done) expect(failures > 3, "calls without memory that were told", failures);
  return status;
}
