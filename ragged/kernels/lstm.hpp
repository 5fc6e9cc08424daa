// One LSTM layer in one direction over rows of different lengths.
//
//     i, f, g, o = split(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)
//     c = sigmoid(f) * c + sigmoid(i) * tanh(g)
//     h = sigmoid(o) * tanh(c)
//
// Rows never meet in the recurrence, so each worker takes rows of its own from their first step to
// their last and waits for nobody. Only steps that exist are computed; padding is never read. The
// rows of a tile that are alive at a step go through the weights together.
#pragma once

#include "rows.hpp"

namespace ragged {

template <class T>
struct Inputs {
  const T *x;                        // (batch, width, inputs)
  const T *h0, *c0;                  // (batch, hidden)
  const T *weight_ih, *weight_hh;    // (4 * hidden, inputs), (4 * hidden, hidden)
  const T *bias_ih, *bias_hh;        // (4 * hidden,)
};

template <class T>
struct Outputs {
  T *y;              // (batch, width, hidden), 0 at padding
  T *h, *c;          // (batch, hidden), after each row's last step
  T *gates, *cells;  // (room, 4 * hidden), (room, hidden), kept for the backward pass; or null
};

template <class T>
class Forward {
 public:
  Forward(const Sizes& sizes, const Inputs<T>& in, const Outputs<T>& out)
      : sizes(sizes), in(in), out(out), token(sizes, out.gates) {}

  void run(Index threads, const Parallel& parallel) {
    const Index workers = sizes.workers(threads);
    const auto tiles = deal(sizes, workers);
    packed.resize(blocks() * (depth() + 1) * 4 * L);
    parallel(workers, [&](Index worker) {
      for (Index block = worker; block < blocks(); block += workers) pack(block);
    });
    parallel(workers, [&](Index worker) {
      for (std::size_t tile = worker; tile < tiles.size(); tile += workers) run_tile(tiles[tile]);
      if (out.gates && !sizes.padded) clear_room(worker, workers);
    });
  }

 private:
  static constexpr Index L = LANES<T>;
  const Sizes sizes;
  const Inputs<T> in;
  const Outputs<T> out;
  const Tokens token;
  std::vector<T> packed;  // for each block of L hidden units: (bias | inputs | hidden, 4 gates, L)

  Index depth() const { return sizes.inputs + sizes.hidden; }
  Index blocks() const { return round_up(sizes.hidden, L) / L; }
  T* block_of(Index block) { return &packed[block * (depth() + 1) * 4 * L]; }

  void pack(Index block) {
    const Index hidden = sizes.hidden, inputs = sizes.inputs;
    T* to = block_of(block);
    for (Index gate = 0; gate < 4; ++gate)
      for (Index lane = 0; lane < L; ++lane, ++to) {
        const Index unit = block * L + lane, row = gate * hidden + unit;
        const bool real = unit < hidden;
        *to = real ? in.bias_ih[row] + in.bias_hh[row] : T(0);
        T* weights = to + 4 * L;
        for (Index k = 0; k < inputs; ++k, weights += 4 * L)
          *weights = real ? in.weight_ih[row * inputs + k] : T(0);
        for (Index k = 0; k < hidden; ++k, weights += 4 * L)
          *weights = real ? in.weight_hh[row * hidden + k] : T(0);
      }
  }

  void run_tile(const Tile& rows) {
    const Index hidden = sizes.hidden;
    for (Index row : rows) {
      std::copy_n(in.c0 + row * hidden, hidden, out.c + row * hidden);
      clear_padding(sizes, row, out.y, hidden);
      if (sizes.padded && out.gates) {
        clear_padding(sizes, row, out.gates, 4 * hidden);
        clear_padding(sizes, row, out.cells, hidden);
      }
    }
    Index alive = Index(rows.size());
    for (Index step = 0;; ++step) {
      while (alive && sizes.lengths[rows[alive - 1]] <= step) --alive;
      if (!alive) break;
      for (Index block = 0; block < blocks(); ++block)
        in_parts<ROWS>(alive, [&](Index part, auto size) {
          advance<decltype(size)::value>(&rows[part], step, block);
        });
    }
    for (Index row : rows) std::copy_n(h_before(row, sizes.lengths[row]), hidden, out.h + row * hidden);
  }

  const T* h_before(Index row, Index step) const {
    return step ? out.y + sizes.place(row, step - 1) * sizes.hidden : in.h0 + row * sizes.hidden;
  }

  // Advance R rows by a step in the L hidden units of a block.
  template <int R>
  void advance(const Index* rows, Index step, Index block) {
    const Index inputs = sizes.inputs, hidden = sizes.hidden, unit = block * L, count = hidden - unit;
    const T *x[R], *h[R];
    for (int r = 0; r < R; ++r) {
      x[r] = in.x + sizes.place(rows[r], step) * inputs;
      h[r] = h_before(rows[r], step);
    }
    const T* weights = block_of(block);
    Vec<T> sums[R][4];
    for (int r = 0; r < R; ++r)
      for (int gate = 0; gate < 4; ++gate) sums[r][gate] = load(weights + gate * L);
    accumulate(sums, x, 1, weights += 4 * L, 4 * L, inputs);
    accumulate(sums, h, 1, weights += inputs * 4 * L, 4 * L, hidden);
    for (int r = 0; r < R; ++r) {
      const Vec<T> i = sigmoid<T>(sums[r][0]), f = sigmoid<T>(sums[r][1]);
      const Vec<T> g = tanh<T>(sums[r][2]), o = sigmoid<T>(sums[r][3]);
      T* cell = out.c + rows[r] * hidden + unit;
      const Vec<T> c = f * load(cell, count) + i * g;
      store(cell, c, count);
      store(out.y + sizes.place(rows[r], step) * hidden + unit, o * tanh<T>(c), count);
      if (out.gates) keep(token(rows[r], step), unit, {i, f, g, o}, c);
    }
  }

  // Where only the running program knows the tokens, what is kept has room for more.
  void clear_room(Index worker, Index workers) {
    const Index tokens = sizes.tokens(), free = sizes.room - tokens;
    const Index begin = tokens + free * worker / workers, end = tokens + free * (worker + 1) / workers;
    clear(out.gates + begin * 4 * sizes.hidden, out.gates + end * 4 * sizes.hidden);
    clear(out.cells + begin * sizes.hidden, out.cells + end * sizes.hidden);
  }

  void keep(Index place, Index unit, const Vec<T> (&gates)[4], Vec<T> c) {
    const Index hidden = sizes.hidden, count = hidden - unit;
    for (int gate = 0; gate < 4; ++gate)
      store(out.gates + (4 * place + gate) * hidden + unit, gates[gate], count);
    store(out.cells + place * hidden + unit, c, count);
  }
};

}  // namespace ragged
