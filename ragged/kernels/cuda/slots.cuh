// ROWS rows go through the weights of a cluster together, each in a slot. Where a row ends, the next one
// takes its slot, so that no step is spent on padding.
#pragma once

#include "calls.cuh"

namespace ragged {

// The rows that go through one slot, one after the other: every `stride`-th of the order, so that the
// slots of all clusters take about as many steps.
class Slot {
 public:
  int row = -1, length = 0;
  int step = 0;  // the n-th that is read of the row

  INLINE Slot(const DeviceRows& rows, int first, int stride)
      : rows(rows), rank(first - stride), stride(stride) {}

  // How many steps all its rows take.
  INLINE int count_steps() const {
    int steps = 0;
    for (int next = rank + stride; next < rows.batch; next += stride)
      steps += rows.lengths[rows.order[next]];
    return steps;
  }

  // Go on to the next row; false if there is none.
  INLINE bool advance() {
    rank += stride;
    row = rank < rows.batch ? rows.order[rank] : -1;
    length = row < 0 ? 0 : rows.lengths[row];
    return row >= 0;
  }

  INLINE bool is_open() const { return row >= 0; }

  // Where the n-th step that is read stands.
  INLINE long long place(int n) const { return rows.row_base[row] + rows.step_base[in_time(n)]; }

  // Whether the state starts anew before the n-th step that is read. In reverse it is the reset at
  // the step read before, which cuts the same place in time.
  INLINE bool is_reset(int n) const {
    if (!rows.resets || (rows.reverse && !n)) return false;
    return rows.resets[place(rows.reverse ? n - 1 : n)];
  }

 private:
  const DeviceRows& rows;
  int rank, stride;

  INLINE int in_time(int n) const { return rows.reverse ? length - 1 - n : n; }
};

}  // namespace ragged
