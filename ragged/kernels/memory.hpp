// Memory that reads as 0.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ragged {

constexpr std::uintptr_t WORTH_A_CALL = 32 << 10;  // bytes: fewer are written faster than given back

// Set what a framework has allocated to 0. Whole pages are given back to the system, which makes
// zeros of them when they are touched: what is padding in a large array then costs no memory.
template <class T>
void clear(T* from, T* to) {
#ifdef __linux__
  static const auto page = std::uintptr_t(sysconf(_SC_PAGESIZE));
  const auto first = (std::uintptr_t(from) + page - 1) / page * page;
  const auto last = std::uintptr_t(to) / page * page;
  if (first < last && last - first >= WORTH_A_CALL) {
    auto* mark = reinterpret_cast<volatile char*>(first);
    *mark = 1;  // it stays in memory of a kind that is not made anew
    if (!madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED) && !*mark) {
      std::fill(from, reinterpret_cast<T*>(first), T(0));
      std::fill(reinterpret_cast<T*>(last), to, T(0));
      return;
    }
  }
#endif
  std::fill(from, to, T(0));
}

}  // namespace ragged
