// One recurrent layer in one direction over rows of different lengths, whatever its cell.
//
// The products with x do not depend on the steps before, so they come from one large product of all
// tokens, which runs at the device's full rate; here are the products with h, step by step.
#pragma once

#include "products.cuh"
#include "../cells.hpp"

namespace ragged {

template <class Cell>
class Forward {
 public:
  using Call = ForwardCall;

  INLINE explicit Forward(const Call& call)
      : call(call), slot(slot_of(call.rows, me)),
        hidden(shared_memory()),
        weights(me.lane, reinterpret_cast<Quad*>(hidden + 2 * WIDTH), [&](int n, int k) {
          const int row = Cell::h_gate(n % GATES) * HIDDEN + me.first_unit() + n / GATES;
          const bool real = me.first_unit() + n / GATES < HIDDEN && k < HIDDEN;
          return real ? float(call.weight_hh[row * HIDDEN + k]) : 0.f;
        }) {
    for (int gate = 0; gate < GATES; ++gate)
      bias[gate] = is_real ? float(call.bias_hh[Cell::h_gate(gate) * HIDDEN + unit]) : 0.f;
  }

  INLINE void run() {
    for (int k = thread_index(); k < 2 * WIDTH; k += THREADS) hidden[k] = 0;
    synchronize();
    const int steps = greatest_of_slots(slot.count_steps());
    open_next_row();
    send(hidden);
    synchronize();
    for (int step = 0; step < steps; ++step) {
      const float* before = hidden + step % 2 * WIDTH;
      float* after = hidden + (step + 1) % 2 * WIDTH;
      float sums[ROWS * GROUP * GATES] = {};
      weights.multiply(before, sums);
      collect<GATES>(me.lane, sums);
      if (slot.is_open()) advance(sums);
      send(after);
      synchronize();
    }
  }

 private:
  static constexpr int GATES = Cell::GATES, SUMS = Cell::SUMS, KEPT = Cell::KEPT;
  static constexpr int WIDTH = ROWS * PADDED;
  const Call& call;
  const Lane me;
  const int unit = me.unit();
  const bool is_real = unit < HIDDEN, writes = is_real && !me.replica();
  Slot slot;
  float* hidden;  // (2, ROWS, PADDED): h before the step and after it
  const Weights<GROUP * GATES, PADDED> weights;
  float bias[GATES];
  float h = 0, c = 0;   // of this lane's unit and slot
  float of_x[GATES];    // of the next token, in the order of the sums
  long long place = 0;  // where it stands

  INLINE float of_row(const STORED* states) const {
    return is_real && states ? float(states[(long long)slot.row * HIDDEN + unit]) : 0.f;
  }

  // Rows of length 0 keep their state.
  INLINE void open_next_row() {
    while (slot.advance()) {
      slot.step = 0;
      h = of_row(call.h0), c = of_row(call.c0);
      if (slot.length) return fetch();
      close_row();
    }
  }

  INLINE void close_row() const {
    if (!writes) return;
    const long long to = (long long)slot.row * HIDDEN + unit;
    call.h[to] = h;
    if (Cell::HAS_C) call.c[to] = c;
  }

  // Ask for what the next token needs, so that it comes while others are multiplied.
  INLINE void fetch() {
    place = slot.place(slot.step);
    const STORED* from = call.of_x + place * GATES * HIDDEN + unit;
#pragma unroll
    for (int gate = 0; gate < GATES; ++gate)
      of_x[gate] = is_real ? float(from[Cell::x_gate(gate) * HIDDEN]) : 0.f;
    if (!slot.is_reset(slot.step)) return;
    h = call.rows.to_initial ? of_row(call.h0) : 0.f;
    c = call.rows.to_initial ? of_row(call.c0) : 0.f;
  }

  INLINE void advance(const float* of_h) {
    float sum[SUMS] = {}, kept[KEPT + 1];
#pragma unroll
    for (int gate = 0; gate < GATES; ++gate) sum[gate] = of_x[gate];
#pragma unroll
    for (int gate = 0; gate < GATES; ++gate) sum[SUMS - GATES + gate] += bias[gate] + of_h[gate];
    h = Cell::forward(sum, h, c, kept);
    if (writes) write(kept);
    if (++slot.step < slot.length) return fetch();
    close_row();
    open_next_row();
  }

  INLINE void write(const float* kept) const {
    call.y[place * HIDDEN + unit] = h;
    if (!call.kept) return;
#pragma unroll
    for (int k = 0; k < KEPT; ++k) call.kept[(place * KEPT + k) * HIDDEN + unit] = kept[k];
  }

  INLINE void send(float* to) const {
    if (slot.is_open() && is_real) share(me, to + me.slot() * PADDED + unit, h);
  }
};

}  // namespace ragged
