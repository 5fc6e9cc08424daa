// Memory that frameworks have allocated: pages of it that read as 0, and huge ones.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.hpp"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ragged {

constexpr Index WORTH_A_CALL = 8 << 20;  // bytes: fewer are written faster than given back
constexpr Index HUGE_PAGE = 2 << 20;     // bytes, of most systems

// Let an array that a framework has allocated read as 0 by giving its pages back to the system, which
// makes zeros of them when they are touched: padding then costs no memory. False if it cannot be.
// One call does it before threads start, since each makes every other processor forget the pages.
template <class T>
bool renew(T* from, T* to) {
#ifdef __linux__
  static const auto page = std::uintptr_t(sysconf(_SC_PAGESIZE));
  const auto first = (std::uintptr_t(from) + page - 1) / page * page;
  const auto last = std::uintptr_t(to) / page * page;
  if (first < last) {
    auto* mark = reinterpret_cast<volatile char*>(first);
    *mark = 1;  // it stays in memory of a kind that is not made anew
    if (!madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED) && !*mark) {
      std::fill(from, reinterpret_cast<T*>(first), T(0));
      std::fill(reinterpret_cast<T*>(last), to, T(0));
      return true;
    }
  }
#endif
  return false;
}

// Ask for huge pages below an array, all of which is about to be written: what a framework allocates anew
// for each call is touched for the first time here, and every page that is costs a fault. They reach
// beyond it on both sides, since arrays lie side by side in a heap, and most are of a few such pages.
template <class T>
void take_huge_pages(T* from, T* to) {
#ifdef __linux__
  if (Index(sizeof(T)) * (to - from) < HUGE_PAGE / 4) return;
  const auto first = std::uintptr_t(from) / HUGE_PAGE * HUGE_PAGE;
  const auto last = (std::uintptr_t(to) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace ragged
