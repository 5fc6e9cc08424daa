// The gradients of `forward.cuh`: of every token's sums, and of the initial states.
//
// The gradients of x, weights and biases are products of the sums' gradients over all tokens, which do
// not depend on each other: they are left to large products afterwards.
#pragma once

#include "products.cuh"
#include "../cells.hpp"

namespace ragged {

template <class Cell>
class Backward {
 public:
  using Call = BackwardCall;

  INLINE explicit Backward(const Call& call)
      : call(call), slot(slot_of(call.rows, me)),
        shared(shared_memory()),
        weights(me.lane, reinterpret_cast<Quad*>(shared + 2 * WIDTH), [&](int n, int k) {
          const int gate = Cell::h_gate(k / PADDED), from = k % PADDED, to = me.first_unit() + n;
          const bool real = from < HIDDEN && to < HIDDEN;
          return real ? float(call.weight_hh[(gate * HIDDEN + from) * HIDDEN + to]) : 0.f;
        }) {}

  INLINE void run() {
    for (int k = thread_index(); k < 2 * WIDTH; k += THREADS) shared[k] = 0;
    synchronize();
    const int steps = greatest_of_slots(slot.count_steps());
    open_next_row();
    for (int step = 0; step < steps; ++step) {
      float* dsums = shared + step % 2 * WIDTH;
      if (slot.is_open()) differentiate(dsums);
      synchronize();
      float sums[ROWS * GROUP] = {};
      weights.multiply(dsums, sums);
      collect<1>(me.lane, sums);
      if (slot.is_open()) retreat(sums[0]);
    }
    synchronize();  // no block ends while others store into it
  }

 private:
  static constexpr int GATES = Cell::GATES, SUMS = Cell::SUMS, KEPT = Cell::KEPT;
  static constexpr int WIDTH = ROWS * GATES * PADDED;
  const Call& call;
  const Lane me;
  const int unit = me.unit();
  const bool is_real = unit < HIDDEN, writes = is_real && !me.replica();
  Slot slot;
  float* shared;  // (2, ROWS, GATES, PADDED): the gradients of the sums that h enters
  const Weights<GROUP, GATES * PADDED> weights;
  float dh = 0, carry = 0;        // what reaches the token, of this lane's unit and slot
  float dh0 = 0, dc0 = 0;         // what has reached the row's initial state by resets
  float kept[KEPT + 1], h, h_before, c_before, dy;  // of the next token
  long long place = 0;            // where it stands

  INLINE float of_row(const STORED* states) const {
    return is_real && states ? float(states[(long long)slot.row * HIDDEN + unit]) : 0.f;
  }
  INLINE float of_token(const STORED* array, long long at) const {
    return is_real ? float(array[at * HIDDEN + unit]) : 0.f;
  }
  INLINE float kept_of(int k, long long at) const {
    return is_real ? call.kept[(at * KEPT + k) * HIDDEN + unit] : 0.f;
  }

  // What reaches the end of a row of length 0 is what leaves its beginning.
  INLINE void open_next_row() {
    while (slot.advance()) {
      slot.step = slot.length - 1;
      dh = of_row(call.dh), carry = Cell::HAS_C ? of_row(call.dc) : 0.f, dh0 = dc0 = 0;
      if (slot.length) return fetch(slot.step);
      close_row();
    }
  }

  INLINE void close_row() {
    add_to_initial();
    if (!writes) return;
    const long long to = (long long)slot.row * HIDDEN + unit;
    call.dh0[to] = dh0;
    if (Cell::HAS_C) call.dc0[to] = dc0;
  }

  INLINE void add_to_initial() {
    dh0 += Cell::HAS_C ? dh : dh + carry;
    if (Cell::HAS_C) dc0 += carry;
  }

  // Ask for what the next token needs, so that it comes while others are multiplied.
  INLINE void fetch(int step) {
    place = slot.place(step);
    h = of_token(call.y, place), dy = of_token(call.dy, place);
#pragma unroll
    for (int k = 0; k < KEPT; ++k) kept[k] = kept_of(k, place);
    Cell::activate(kept);
    const bool anew = slot.is_reset(step);
    if (step && !anew) {
      const long long before = slot.place(step - 1);
      h_before = of_token(call.y, before);
      c_before = Cell::HAS_C ? kept_of(KEPT - 1, before) : 0.f;
    } else {
      const bool zeros = anew && !call.rows.to_initial;
      h_before = zeros ? 0.f : of_row(call.h0);
      c_before = zeros ? 0.f : of_row(call.c0);
    }
  }

  // The gradients of the token's sums: stored, and shared with who needs them for h before.
  INLINE void differentiate(float* to) {
    float dsum[SUMS];
    Cell::backward(kept, h, h_before, c_before, dy + dh, carry, dsum);
    if (writes) write(dsum);
    if (is_real)
#pragma unroll
      for (int gate = 0; gate < GATES; ++gate)
        share(me, to + (me.slot() * GATES + gate) * PADDED + unit, dsum[SUMS - GATES + gate]);
    if (slot.step) fetch(slot.step - 1);
  }

  INLINE void write(const float* dsum) const {
#pragma unroll
    for (int sum = 0; sum < SUMS; ++sum) call.dsums[(place * SUMS + sum) * HIDDEN + unit] = dsum[sum];
    call.h_before[place * HIDDEN + unit] = h_before;
  }

  // To the token before, with the gradient that has reached it by the weights.
  INLINE void retreat(float by_weights) {
    dh = by_weights;
    if (slot.is_reset(slot.step)) {
      if (call.rows.to_initial) add_to_initial();
      dh = carry = 0;
    }
    if (slot.step--) return;
    close_row();
    open_next_row();
  }
};

}  // namespace ragged
