// One recurrent layer in one direction over rows of different lengths, whatever its cell.
//
// Rows never meet in the recurrence, so each worker takes rows of its own from their first step to
// their last and waits for nobody. Only steps that exist are computed; padding is never read. The
// rows of a tile that are alive at a step go through the weights together.
#pragma once

#include <memory>

#include "cells.hpp"
#include "rows.hpp"

namespace ragged {

template <class T>
struct Inputs {
  const T *x;                        // (places, inputs)
  const T *h0, *c0;                  // (batch, hidden); no c0 where the cell has no c
  const T *weight_ih, *weight_hh;    // (gates * hidden, inputs), (gates * hidden, hidden)
  const T *bias_ih, *bias_hh;        // (gates * hidden,)
};

template <class T>
struct Outputs {
  T *y;      // (places, hidden), 0 at padding
  T *h, *c;  // (batch, hidden), after each row's last step
  T *kept;   // (room, KEPT * hidden), for the backward pass, written where there are tokens; or null
};

// Which sum the v-th of some products is added to, where a cell's sums stand side by side.
template <class Cell, int FIRST>
struct Into {
  static constexpr int sum(int v) { return v / Cell::GATES * Cell::SUMS + FIRST + v % Cell::GATES; }
};

template <class T, template <class> class CellOf>
class Forward {
  using Cell = CellOf<T>;

 public:
  Forward(const Rows& rows, const Sizes& sizes, const Inputs<T>& in, const Outputs<T>& out)
      : rows(rows), sizes(sizes), in(in), out(out), token(rows, sizes, out.kept),
        states(rows, sizes.hidden), of_y(rows, out.y, sizes.hidden),
        cells(Cell::HAS_C ? rows.count() * sizes.hidden : 0) {
    if (out.kept) take_huge_pages(out.kept, out.kept + rows.tokens() * KEPT * sizes.hidden);
  }

  void run(Index threads, const Parallel& parallel) {
    const Index workers = count_workers(rows, sizes, GATES, threads);
    const auto tiles = deal(rows, workers);
    packed.reset(new T[vectors() * L * (SUMS + depth() * GATES)]);
    parallel(workers, [&](Index worker) {
      for (Index block = worker; block < blocks(); block += workers) pack(block);
    });
    parallel(workers, [&](Index worker) {
      for (std::size_t tile = worker; tile < tiles.size(); tile += workers) run_tile(tiles[tile]);
      of_y.clear_rest(worker, workers);
    });
  }

 private:
  static constexpr Index L = LANES<T>;
  static constexpr int GATES = Cell::GATES, SUMS = Cell::SUMS, UNITS = Cell::UNITS, KEPT = Cell::KEPT;
  const Rows& rows;
  const Sizes sizes;
  const Inputs<T> in;
  const Outputs<T> out;
  const Tokens token;
  const States<T> states;
  const Padding<T> of_y;
  Numbers<T> cells;  // (pieces, hidden): c as it goes
  // For each block of units: (bias | products with x | with h, units, L). All of it is written.
  std::unique_ptr<T[]> packed;

  Index depth() const { return sizes.inputs + sizes.hidden; }
  Index vectors() const { return round_up(sizes.hidden, L) / L; }
  Index blocks() const { return round_up(vectors(), UNITS) / UNITS; }
  Index units_of(Index block) const { return std::min<Index>(UNITS, vectors() - block * UNITS); }
  T* block_of(Index block) { return &packed[block * UNITS * L * (SUMS + depth() * GATES)]; }

  void pack(Index block) {
    const Index units = units_of(block), hidden = sizes.hidden, pitch = units * GATES * L;
    T* biases = block_of(block);
    T* of_x = biases + units * SUMS * L;
    T* of_h = of_x + sizes.inputs * pitch;
    for (Index u = 0; u < units; ++u)
      for (int sum = 0; sum < SUMS; ++sum) {
        const Index unit = (block * UNITS + u) * L, real = hidden - unit;
        Vec<T> bias{};
        if (sum < GATES) bias += load(in.bias_ih + Cell::x_gate(sum) * hidden + unit, real);
        if (sum >= SUMS - GATES)
          bias += load(in.bias_hh + Cell::h_gate(sum - SUMS + GATES) * hidden + unit, real);
        store(biases + (u * SUMS + sum) * L, bias);
      }
    for (Index u = 0; u < units; ++u)
      for (int gate = 0; gate < GATES; ++gate) {
        const Index unit = (block * UNITS + u) * L, real = std::min(L, hidden - unit);
        const Index x = Cell::x_gate(gate) * hidden + unit, h = Cell::h_gate(gate) * hidden + unit;
        const Index to = (u * GATES + gate) * L;
        interleave(in.weight_ih + x * sizes.inputs, sizes.inputs, real, of_x + to, pitch);
        interleave(in.weight_hh + h * hidden, hidden, real, of_h + to, pitch);
      }
  }

  // Lay the first rows of some weights side by side, as the lanes of a vector for each column. A
  // square at a time, so that what is read and what is written both stay in the cache.
  static void interleave(const T* weights, Index columns, Index rows, T* to, Index pitch) {
    for (Index first = 0; first < columns; first += L) {
      const Index count = std::min(L, columns - first);
      Vec<T> square[L] = {};
      for (Index row = 0; row < rows; ++row) square[row] = load(weights + row * columns + first, count);
      transpose<T>(square);
      for (Index k = 0; k < count; ++k, to += pitch) store(to, square[k]);
    }
  }

  void run_tile(const Tile& tile) {
    const Index hidden = sizes.hidden;
    for (Index piece : tile) {
      if (Cell::HAS_C) std::copy_n(states.start(in.c0, piece), hidden, &cells[piece * hidden]);
      of_y.clear_row(piece);
    }
    Index alive = Index(tile.size());
    for (Index step = 0;; ++step) {
      while (alive && rows.length(tile[alive - 1]) <= step) --alive;
      if (!alive) break;
      for (Index block = 0; block < blocks(); ++block)
        with_constant<UNITS>(units_of(block), [&](auto units) {
          in_rows(alive, [&](Index part, auto size) {
            advance<decltype(size)::value, decltype(units)::value>(&tile[part], step, block);
          });
        });
    }
    for (Index piece : tile) {
      if (!rows.leaves(piece)) continue;
      const Index to = rows.row(piece) * hidden;
      std::copy_n(h_before(piece, rows.length(piece)), hidden, out.h + to);
      if (Cell::HAS_C) std::copy_n(&cells[piece * hidden], hidden, out.c + to);
    }
  }

  const T* h_before(Index piece, Index step) const {
    return step ? out.y + rows.place(piece, step - 1) * sizes.hidden : states.start(in.h0, piece);
  }

  // Advance R pieces by a step in the U vectors of hidden units of a block.
  template <int R, int U>
  void advance(const Index* tile, Index step, Index block) {
    const Index inputs = sizes.inputs, hidden = sizes.hidden;
    constexpr Index pitch = U * GATES * L;
    const T *x[R], *h[R];
    const T* weights = block_of(block);
    Vec<T> sums[R][U * SUMS];
    repeat<R>([&](auto r) {
      x[r] = in.x + rows.place(tile[r], step) * inputs;
      h[r] = h_before(tile[r], step);
      repeat<U * SUMS>([&](auto sum) { sums[r][sum] = load(weights + sum * L); });
    });
    weights += U * SUMS * L;
    accumulate<U * GATES, Into<Cell, 0>>(sums, x, 1, weights, pitch, inputs);
    accumulate<U * GATES, Into<Cell, SUMS - GATES>>(sums, h, 1, weights + inputs * pitch, pitch, hidden);
    for (int r = 0; r < R; ++r) {
      T* y = out.y + rows.place(tile[r], step) * hidden;
      for (int u = 0; u < U; ++u) {
        const Index unit = (block * UNITS + u) * L, count = hidden - unit;
        T* cell = Cell::HAS_C ? &cells[tile[r] * hidden + unit] : nullptr;
        Vec<T> c = Cell::HAS_C ? load(cell, count) : Vec<T>{}, kept[KEPT + 1];
        store(y + unit, Cell::forward(&sums[r][u * SUMS], load(h[r] + unit, count), c, kept), count);
        if (Cell::HAS_C) store(cell, c, count);
        if (KEPT && out.kept) keep(token(tile[r], step), unit, kept);
      }
    }
  }

  void keep(Index place, Index unit, const Vec<T>* kept) {
    T* to = out.kept + place * KEPT * sizes.hidden + unit;
    for (int k = 0; k < KEPT; ++k) store(to + k * sizes.hidden, kept[k], sizes.hidden - unit);
  }
};

}  // namespace ragged
