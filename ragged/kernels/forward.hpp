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
    packed.reset(new T[vectors() * L * GATES * (PARTS + depth())]);
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
  static constexpr int PARTS = SUMS == GATES ? 1 : 2;  // of sums: of x and of h, where not all take both
  const Rows& rows;
  const Sizes sizes;
  const Inputs<T> in;
  const Outputs<T> out;
  const Tokens token;
  const States<T> states;
  const Padding<T> of_y;
  Numbers<T> cells;  // (pieces, hidden): c as it goes
  // For each block of units: the biases (PARTS, units, GATES, L), and the weights of its products in panels of WIDTH
  // vectors, each (inputs + hidden, WIDTH, L), the last one as narrow as it is. All of it is written.
  std::unique_ptr<T[]> packed;

  Index depth() const { return sizes.inputs + sizes.hidden; }
  Index vectors() const { return round_up(sizes.hidden, L) / L; }
  Index blocks() const { return round_up(vectors(), UNITS) / UNITS; }
  Index units_of(Index block) const { return std::min<Index>(UNITS, vectors() - block * UNITS); }
  T* block_of(Index block) const { return &packed[block * UNITS * L * GATES * (PARTS + depth())]; }

  void pack(Index block) {
    const Index units = units_of(block), hidden = sizes.hidden;
    T* biases = block_of(block);
    T* products = biases + units * PARTS * GATES * L;
    for (Index v = 0; v < units * GATES; ++v) {
      const int gate = int(v % GATES);
      const Index unit = (block * UNITS + v / GATES) * L, real = std::min(L, hidden - unit);
      const Index x = Cell::x_gate(gate) * hidden + unit, h = Cell::h_gate(gate) * hidden + unit;
      const Vec<T> of_x = load(in.bias_ih + x, real), of_h = load(in.bias_hh + h, real);
      store(biases + v * L, PARTS == 1 ? of_x + of_h : of_x);
      if (PARTS == 2) store(biases + (units * GATES + v) * L, of_h);
      const Index panel = v / WIDTH * WIDTH, pitch = std::min<Index>(WIDTH, units * GATES - panel) * L;
      T* to = products + panel * L * depth() + (v - panel) * L;
      copy_transposed(real, sizes.inputs, in.weight_ih + x * sizes.inputs, sizes.inputs, to, pitch, L);
      copy_transposed(real, hidden, in.weight_hh + h * hidden, hidden, to + sizes.inputs * pitch, pitch, L);
    }
  }

  void run_tile(const Tile& tile) {
    const Index hidden = sizes.hidden;
    for (Index piece : tile) {
      if (Cell::HAS_C) std::copy_n(states.start(in.c0, piece), hidden, &cells[piece * hidden]);
      of_y.clear_row(piece);
    }
    Side side;
    Index alive = Index(tile.size());
    for (Index step = 0;; ++step) {
      while (alive && rows.length(tile[alive - 1]) <= step) --alive;
      if (!alive) break;
      for (Index r = 0; r < alive; ++r) read(tile[r], step, r, side);
      for (Index block = 0; block < blocks(); ++block)
        with_constant<UNITS>(units_of(block), [&](auto units) {
          advance<decltype(units)::value>(alive, block, side);
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

  // What the pieces of a tile have at a step, side by side.
  struct Side {
    const T *x[TILE], *h[TILE];  // h before
    T *c[TILE], *y[TILE], *kept[TILE];
    Vec<T> sums[TILE][PARTS * UNITS * GATES];  // of a block
  };

  void read(Index piece, Index step, Index r, Side& side) {
    const Index place = rows.place(piece, step), hidden = sizes.hidden;
    side.x[r] = in.x + place * sizes.inputs;
    side.h[r] = h_before(piece, step);
    side.c[r] = cells.data() + (Cell::HAS_C ? piece * hidden : 0);
    side.y[r] = out.y + place * hidden;
    side.kept[r] = out.kept ? out.kept + token(piece, step) * KEPT * hidden : nullptr;
  }

  // Advance the first pieces of a tile by a step in the U vectors of hidden units of a block.
  template <int U>
  void advance(Index alive, Index block, Side& side) const {
    constexpr int V = U * GATES, FEW = V > WIDTH ? ROWS * WIDTH / V : 0;
    const T *const biases = block_of(block), *const products = biases + PARTS * V * L;
    for (Index r = 0; r < alive; ++r)
      repeat<PARTS * V>([&](auto v) { side.sums[r][v] = load(biases + v * L); });
    if (alive <= FEW)
      with_constant<FEW>(alive, [&](auto size) { add_products<decltype(size)::value, V, 0, V>(products, 0, side); });
    else
      repeat<(V + WIDTH - 1) / WIDTH>([&](auto panel) {
        constexpr int FIRST = decltype(panel)::value * WIDTH, W = std::min(WIDTH, V - FIRST);
        in_rows(alive, [&](Index part, auto size) {
          add_products<decltype(size)::value, V, FIRST, W>(products, part, side);
        });
      });
    for (Index r = 0; r < alive; ++r)
      for (int u = 0; u < U; ++u) finish<V>((block * UNITS + u) * L, r, side.sums[r] + u * GATES, side);
  }

  // Add the products of R pieces with x and h to their sums, in W of a block's V vectors from FIRST on.
  template <int R, int V, int FIRST, int W>
  void add_products(const T* products, Index part, Side& side) const {
    const T *x[R], *h[R];
    Vec<T> sums[R][W];
    const auto weight = [=, depth = depth()](Index k, auto v) {
      constexpr int PANEL = (FIRST + v) / WIDTH * WIDTH, PITCH = std::min(WIDTH, V - PANEL) * L;
      return load(products + PANEL * L * depth + k * PITCH + (FIRST + v - PANEL) * L);
    };
    const Index inputs = sizes.inputs;
    repeat<R>([&](auto r) { x[r] = side.x[part + r], h[r] = side.h[part + r]; });
    take(side, part, FIRST, sums);
    accumulate<T>(sums, x, 1, inputs, weight);
    if constexpr (PARTS == 2) {
      give(sums, side, part, FIRST);
      take(side, part, V + FIRST, sums);
    }
    accumulate<T>(sums, h, 1, sizes.hidden, [&](Index k, auto v) { return weight(inputs + k, v); });
    give(sums, side, part, (PARTS - 1) * V + FIRST);
  }

  template <int R, int W>
  [[gnu::always_inline]] static void take(const Side& side, Index part, int at, Vec<T> (&sums)[R][W]) {
    repeat<R>([&](auto r) { repeat<W>([&](auto v) { sums[r][v] = side.sums[part + r][at + v]; }); });
  }

  template <int R, int W>
  [[gnu::always_inline]] static void give(const Vec<T> (&sums)[R][W], Side& side, Index part, int at) {
    repeat<R>([&](auto r) { repeat<W>([&](auto v) { side.sums[part + r][at + v] = sums[r][v]; }); });
  }

  // From the products of some units to a piece's h and c, and to what is kept.
  template <int V>
  void finish(Index unit, Index r, const Vec<T>* products, Side& side) const {
    constexpr int FIRST = SUMS - GATES;  // sum that takes h
    const Index hidden = sizes.hidden, count = hidden - unit;
    const Vec<T>* const of_h = products + (PARTS - 1) * V;
    Vec<T> c = Cell::HAS_C ? load(side.c[r] + unit, count) : Vec<T>{}, kept[KEPT + 1], sums[SUMS];
    for (int sum = 0; sum < SUMS; ++sum) sums[sum] = sum < GATES ? products[sum] : of_h[sum - FIRST];
    for (int sum = FIRST; PARTS == 2 && sum < GATES; ++sum) sums[sum] += of_h[sum - FIRST];
    store(side.y[r] + unit, Cell::forward(sums, load(side.h[r] + unit, count), c, kept), count);
    if (Cell::HAS_C) store(side.c[r] + unit, c, count);
    for (int k = 0; side.kept[r] && k < KEPT; ++k) store(side.kept[r] + k * hidden + unit, kept[k], count);
  }
};

}  // namespace ragged
