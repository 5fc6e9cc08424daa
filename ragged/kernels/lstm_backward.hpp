// The gradients of `lstm.hpp`.
//
// A worker walks its rows back from their last step. What the gates' gradients add to those of the
// weights is gathered over a chunk of tokens, so that the weights' gradients are touched seldom.
#pragma once

#include "lstm.hpp"

namespace ragged {

constexpr Index CHUNK = 128;  // tokens; at least TILE

template <class T>
struct Kept {
  const T *y, *gates, *cells;  // of the forward pass
};

template <class T>
struct OutputGradients {
  const T *y, *h, *c;  // of all outputs, and of the final states; y's are not read at padding
};

template <class T>
struct InputGradients {
  T *x;  // 0 at padding; or null, if it is not wanted
  T *h0, *c0, *weight_ih, *weight_hh, *bias;
};

template <class T>
class Backward {
 public:
  Backward(const Sizes& sizes, const Inputs<T>& in, const Kept<T>& kept,
           const OutputGradients<T>& given, const InputGradients<T>& found)
      : sizes(sizes), in(in), kept(kept), given(given), found(found),
        token(sizes, true),
        states(round_up(sizes.hidden + (found.x ? sizes.inputs : 0), L)),
        columns(round_up(sizes.inputs + sizes.hidden + 1, L)) {}

  void run(Index threads, const Parallel& parallel) {
    const Index workers = sizes.workers(threads);
    const auto tiles = deal(sizes, workers);
    pack();
    std::vector<std::vector<T>> totals(workers);
    parallel(workers, [&](Index worker) {
      Own own(*this);
      for (std::size_t tile = worker; tile < tiles.size(); tile += workers)
        run_tile(tiles[tile], own);
      add_chunk(own);
      totals[worker] = std::move(own.total);
    });
    collect(totals);
  }

 private:
  static constexpr Index L = LANES<T>, WIDE = VECTORS * L;
  const Sizes sizes;
  const Inputs<T> in;
  const Kept<T> kept;
  const OutputGradients<T> given;
  const InputGradients<T> found;
  const Tokens token;
  const Index states;     // columns of (h before | x), whole vectors; x only if it is wanted
  const Index columns;    // columns of (x | h before | 1), whole vectors
  std::vector<T> packed;  // the weights in blocks of columns of (h before | x): (4 * hidden, WIDE)

  // What a worker has for itself.
  struct Own {
    std::vector<T> of_gates;  // (CHUNK, 4 * hidden)
    std::vector<T> made_of;   // (CHUNK, columns): what the gates were made of
    std::vector<T> of_state;  // (TILE, states): the gradients of h before and of x
    std::vector<T> of_cell;   // (TILE, hidden)
    std::vector<T> total;     // (4 * hidden, columns): the gradients of weights and bias
    Index tokens = 0;         // in the chunk

    explicit Own(const Backward& all)
        : of_gates(CHUNK * 4 * all.sizes.hidden), made_of(CHUNK * all.columns),
          of_state(TILE * all.states), of_cell(TILE * all.sizes.hidden),
          total(4 * all.sizes.hidden * all.columns) {}
  };

  void pack() {
    const Index hidden = sizes.hidden, inputs = sizes.inputs, height = 4 * hidden;
    packed.assign(height * round_up(states, WIDE), T(0));
    for (Index k = 0; k < height; ++k)
      for (Index column = 0; column < std::min(states, hidden + inputs); ++column)
        packed[(column / WIDE * height + k) * WIDE + column % WIDE] =
            column < hidden ? in.weight_hh[k * hidden + column]
                            : in.weight_ih[k * inputs + column - hidden];
  }

  void run_tile(const Tile& rows, Own& own) {
    const Index hidden = sizes.hidden, count = Index(rows.size());
    for (Index r = 0; r < count; ++r) {
      std::copy_n(given.h + rows[r] * hidden, hidden, &own.of_state[r * states]);
      std::copy_n(given.c + rows[r] * hidden, hidden, &own.of_cell[r * hidden]);
      if (found.x) clear_padding(sizes, rows[r], found.x, sizes.inputs);
    }
    Index alive = 0;
    for (Index step = count ? sizes.lengths[rows[0]] : 0; step-- > 0;) {
      while (alive < count && sizes.lengths[rows[alive]] > step) ++alive;
      if (own.tokens + alive > CHUNK) add_chunk(own);
      for (Index r = 0; r < alive; ++r) differentiate(rows[r], step, r, own);
      retreat(rows, step, alive, own);
      own.tokens += alive;
    }
    for (Index r = 0; r < count; ++r) {
      std::copy_n(&own.of_state[r * states], hidden, found.h0 + rows[r] * hidden);
      std::copy_n(&own.of_cell[r * hidden], hidden, found.c0 + rows[r] * hidden);
    }
  }

  // A token's gates' gradients, from those of its h and c; and what its gates were made of.
  void differentiate(Index row, Index step, Index r, Own& own) {
    const Index hidden = sizes.hidden, inputs = sizes.inputs, place = token(row, step);
    const T* gates = kept.gates + place * 4 * hidden;
    const T* c = kept.cells + place * hidden;
    const T* c_before =
        step ? kept.cells + token(row, step - 1) * hidden : in.c0 + row * hidden;
    const T* of_y = given.y + sizes.place(row, step) * hidden;
    const T* of_h = &own.of_state[r * states];
    T* of_c = &own.of_cell[r * hidden];
    T* of_gates = &own.of_gates[(own.tokens + r) * 4 * hidden];
    for (Index unit = 0; unit < hidden; unit += L) {
      const Index count = hidden - unit;
      const auto at = [&](const T* from) { return load(from + unit, count); };
      const Vec<T> i = at(gates), f = at(gates + hidden), g = at(gates + 2 * hidden);
      const Vec<T> o = at(gates + 3 * hidden), tanh_c = tanh<T>(at(c));
      const Vec<T> dh = at(of_y) + at(of_h);
      const Vec<T> dc = at(of_c) + dh * o * (T(1) - tanh_c * tanh_c);
      store(of_gates + unit, dc * g * i * (T(1) - i), count);
      store(of_gates + hidden + unit, dc * at(c_before) * f * (T(1) - f), count);
      store(of_gates + 2 * hidden + unit, dc * i * (T(1) - g * g), count);
      store(of_gates + 3 * hidden + unit, dh * tanh_c * o * (T(1) - o), count);
      store(of_c + unit, dc * f, count);
    }
    T* made_of = &own.made_of[(own.tokens + r) * columns];
    const T* h_before = step ? kept.y + sizes.place(row, step - 1) * hidden : in.h0 + row * hidden;
    std::copy_n(in.x + sizes.place(row, step) * inputs, inputs, made_of);
    std::copy_n(h_before, hidden, made_of + inputs);
    made_of[inputs + hidden] = T(1);
  }

  // The gradients of h before and of x, from those of the gates.
  void retreat(const Tile& rows, Index step, Index alive, Own& own) {
    const Index hidden = sizes.hidden, inputs = sizes.inputs, height = 4 * hidden;
    const T* of_gates = &own.of_gates[own.tokens * height];
    in_parts<VECTORS>(states / L, [&](Index vector, auto vectors) {
      in_parts<ROWS>(alive, [&](Index part, auto size) {
        constexpr int R = decltype(size)::value, V = decltype(vectors)::value;
        const T* a[R];
        for (int r = 0; r < R; ++r) a[r] = of_gates + (part + r) * height;
        Vec<T> sums[R][V] = {};
        accumulate(sums, a, 1, &packed[vector * L * height], WIDE, height);
        T* to = &own.of_state[part * states + vector * L];
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < V; ++v) store(to + r * states + v * L, sums[r][v]);
      });
    });
    for (Index r = 0; found.x && r < alive; ++r)
      std::copy_n(&own.of_state[r * states + hidden], inputs,
                  found.x + sizes.place(rows[r], step) * inputs);
  }

  // Add a chunk of tokens to the gradients of weights and bias.
  void add_chunk(Own& own) {
    const Index height = 4 * sizes.hidden;
    in_parts<VECTORS>(columns / L, [&](Index vector, auto vectors) {
      in_parts<ROWS>(height, [&](Index part, auto size) {
        constexpr int R = decltype(size)::value, V = decltype(vectors)::value;
        const T* a[R];
        for (int r = 0; r < R; ++r) a[r] = &own.of_gates[part + r];
        T* to = &own.total[part * columns + vector * L];
        Vec<T> sums[R][V];
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < V; ++v) sums[r][v] = load(to + r * columns + v * L);
        accumulate(sums, a, height, &own.made_of[vector * L], columns, own.tokens);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < V; ++v) store(to + r * columns + v * L, sums[r][v]);
      });
    });
    own.tokens = 0;
  }

  // Add up what the workers found, always in the same order.
  void collect(const std::vector<std::vector<T>>& totals) {
    const Index inputs = sizes.inputs, hidden = sizes.hidden;
    for (Index row = 0; row < 4 * hidden; ++row) {
      const auto sum = [&](Index column) {
        T all = 0;
        for (const auto& total : totals) all += total[row * columns + column];
        return all;
      };
      for (Index k = 0; k < inputs; ++k) found.weight_ih[row * inputs + k] = sum(k);
      for (Index k = 0; k < hidden; ++k) found.weight_hh[row * hidden + k] = sum(inputs + k);
      found.bias[row] = sum(inputs + hidden);
    }
  }
};

}  // namespace ragged
