// The gradients of `forward.hpp`.
//
// A worker walks its rows back from their last step. What the sums' gradients add to those of the
// weights is gathered over a chunk of tokens, so that the weights' gradients are touched seldom.
#pragma once

#include "forward.hpp"
#include "products.hpp"

namespace ragged {

constexpr Index CHUNK = 128;  // tokens; at least TILE

template <class T>
struct Kept {
  const T *y, *kept;  // of the forward pass; y is not read where the cell KEEPS_H
};

template <class T>
struct OutputGradients {
  const T *y, *h, *c;  // of all outputs, and of the final states; y's are not read at padding
};

template <class T>
struct InputGradients {
  T *x;  // 0 at padding; or null, if it is not wanted
  T *h0, *c0, *weight_ih, *weight_hh, *bias_ih, *bias_hh;
};

template <class T, template <class> class CellOf>
class Backward {
  using Cell = CellOf<T>;

 public:
  Backward(const Rows& rows, const Sizes& sizes, const Inputs<T>& in, const Kept<T>& kept,
           const OutputGradients<T>& given, const InputGradients<T>& found)
      : rows(rows), sizes(sizes), in(in), kept(kept), given(given), found(found),
        token(rows, sizes, Cell::KEPT > 0), states(rows, sizes.hidden), padding(rows, found.x, sizes.inputs),
        starts((1 + Cell::HAS_C) * rows.count() * sizes.hidden),
        of_h(in.weight_hh, sizes.hidden, sizes.hidden, Cell::h_gate),
        of_x(in.weight_ih, found.x ? sizes.inputs : 0, sizes.hidden, Cell::x_gate, sizes.inputs) {}

  void run(Index threads, const Parallel& parallel) {
    const Index workers = count_workers(rows, sizes, GATES, threads);
    const auto tiles = deal(rows, workers);
    std::vector<Totals> totals(workers);
    parallel(workers, [&](Index worker) {
      Own own(*this);
      for (std::size_t tile = worker; tile < tiles.size(); tile += workers)
        run_tile(tiles[tile], own);
      add_chunk(own);
      totals[worker] = std::move(own.totals);
      padding.clear_rest(worker, workers);
    });
    collect(totals);
  }

 private:
  static constexpr Index L = LANES<T>, WIDE = VECTORS * L;
  static constexpr int GATES = Cell::GATES, SUMS = Cell::SUMS, KEPT = Cell::KEPT;
  static constexpr int H_SUMS = SUMS - GATES;  // the first sum that h's products go to

  // Weights in blocks of columns, (height, WIDE), with the rows in the order of the sums.
  struct Packed {
    const Index columns, height;  // whole vectors of columns
    Numbers<T> blocks;

    template <class Gate>
    Packed(const T* weights, Index count, Index hidden, Gate gate, Index pitch)
        : columns(round_up(count, L)), height(GATES * hidden),
          blocks(height * round_up(count, WIDE), T(0)) {
      for (Index k = 0; k < height; ++k) {
        const T* row = weights + (gate(int(k / hidden)) * hidden + k % hidden) * pitch;
        for (Index column = 0; column < count; column += WIDE)
          std::copy_n(row + column, std::min(WIDE, count - column), &blocks[(column * height + k * WIDE)]);
      }
    }
    template <class Gate>
    Packed(const T* weights, Index count, Index hidden, Gate gate)
        : Packed(weights, count, hidden, gate, count) {}

    const T* at(Index vector) const {
      return &blocks[vector / VECTORS * height * WIDE + vector % VECTORS * L];
    }
  };

  // The gradients of weights and biases, with the rows in the order of the sums.
  struct Totals {
    Numbers<T> weight_ih, weight_hh;  // (GATES * hidden, columns)
    Numbers<T> bias;                  // (SUMS * hidden,)
  };

  const Rows& rows;
  const Sizes sizes;
  const Inputs<T> in;
  const Kept<T> kept;
  const OutputGradients<T> given;
  const InputGradients<T> found;
  const Tokens token;
  const States<T> states;
  const Padding<T> padding;  // of x's gradient
  Numbers<T> starts;  // (1 or 2, pieces, hidden): the gradients of what pieces start from, h and c
  const Packed of_h, of_x;  // the weights; x's only if its gradient is wanted

  Index x_columns() const { return round_up(sizes.inputs, L); }
  Index h_columns() const { return round_up(sizes.hidden, L); }

  // What a worker has for itself.
  struct Own {
    Numbers<T> dsums;     // (CHUNK, SUMS * hidden)
    Numbers<T> x, h;      // (CHUNK, columns): what the sums were made of
    Numbers<T> dh, dx;    // (TILE, columns): the gradients of h before and of x
    Numbers<T> carry;     // (TILE, hidden): what reaches the token before besides
    Numbers<T> active;    // (TILE, hidden): its c as `activate` makes it, where the cell KEEPS_H
    Totals totals;
    Index tokens = 0;         // in the chunk

    explicit Own(const Backward& all)
        : dsums(CHUNK * SUMS * all.sizes.hidden), x(CHUNK * all.x_columns()),
          h(CHUNK * all.h_columns()), dh(TILE * all.of_h.columns), dx(TILE * all.of_x.columns),
          carry(TILE * all.sizes.hidden), active(Cell::KEEPS_H ? TILE * all.sizes.hidden : 0),
          totals{Numbers<T>(all.of_h.height * all.x_columns()),
                 Numbers<T>(all.of_h.height * all.h_columns()),
                 Numbers<T>(SUMS * all.sizes.hidden)} {}
  };

  void run_tile(const Tile& tile, Own& own) {
    const Index hidden = sizes.hidden, count = Index(tile.size());
    for (Index r = 0; r < count; ++r) {
      std::copy_n(states.end(given.h, tile[r]), hidden, &own.dh[r * of_h.columns]);
      const T* dc = Cell::HAS_C ? states.end(given.c, tile[r]) : states.none();
      std::copy_n(dc, hidden, &own.carry[r * hidden]);
      padding.clear_row(tile[r]);
    }
    Index alive = 0;
    for (Index step = count ? rows.length(tile[0]) : 0; step-- > 0;) {
      while (alive < count && rows.length(tile[alive]) > step) ++alive;
      if (own.tokens + alive > CHUNK) add_chunk(own);
      for (Index r = 0; r < alive; ++r)
        differentiate(tile[r], tile[std::min(r + 1, alive - 1)], step, r, own);
      retreat(tile, step, alive, own);
      own.tokens += alive;
    }
    for (Index r = 0; r < count; ++r) {
      T* to = starts.data() + tile[r] * hidden;
      const T *dh = &own.dh[r * of_h.columns], *carry = &own.carry[r * hidden];
      for (Index unit = 0; unit < hidden; ++unit) to[unit] = dh[unit] + (Cell::HAS_C ? T(0) : carry[unit]);
      if (Cell::HAS_C) std::copy_n(carry, hidden, to + rows.count() * hidden);
    }
  }

  // What is read of a token, null where there is none: what was kept of it and of the one before it
  // in its piece, its h, and the state before.
  struct Read {
    const T *values, *values_before, *h, *h_before, *c_before;
  };

  Read read(Index piece, Index step) const {
    const Index hidden = sizes.hidden, pitch = KEPT * hidden;
    const auto y = [&](Index at) {
      return Cell::KEEPS_H ? nullptr : kept.y + rows.place(piece, at) * hidden;
    };
    const T* values = kept.kept + token(piece, step) * pitch;
    if (!step)
      return {values, nullptr, y(step), states.start(in.h0, piece),
              Cell::HAS_C ? states.start(in.c0, piece) : nullptr};
    const T* before = values - pitch;
    return {values, before, y(step), y(step - 1), Cell::HAS_C ? before + (KEPT - 1) * hidden : nullptr};
  }

  // A token's sums' gradients, from that of its h; and what its sums were made of. `next` comes after it.
  void differentiate(Index piece, Index next, Index step, Index r, Own& own) {
    const Index hidden = sizes.hidden, place = rows.place(piece, step);
    const bool is_last = step + 1 == rows.length(piece);
    const Read from = read(piece, step);
    const T *dy = given.y + place * hidden, *dh = &own.dh[r * of_h.columns];
    T *carry = &own.carry[r * hidden], *dsums = &own.dsums[(own.tokens + r) * SUMS * hidden];
    T *active = own.active.data() + r * hidden, *h_before = &own.h[(own.tokens + r) * h_columns()];
    // What the next row reads for the first time is asked for here, a vector after each of this row's own: rows go
    // back side by side, more than a processor foresees, and all at once would be more than it can await.
    const Index next_place = rows.place(next, step);
    const T *next_dy = given.y + next_place * hidden, *next_x = in.x + next_place * sizes.inputs;
    const T* next_values = kept.kept + token(next, std::max<Index>(step - Cell::KEEPS_H, 0)) * KEPT * hidden;
    for (Index k = 0; k < sizes.inputs; k += L) __builtin_prefetch(next_x + k);
    for (Index unit = 0; unit < hidden; unit += L) {
      const Index count = hidden - unit;
      const auto at = [&](const T* array) { return array ? load(array + unit, count) : Vec<T>{}; };
      Vec<T> own_kept[KEPT + 1], own_dsums[SUMS], own_carry = at(carry), before = at(from.h_before);
      for (int k = 0; k < KEPT; ++k) {
        own_kept[k] = at(from.values + k * hidden);
        __builtin_prefetch(next_values + k * hidden + unit);
      }
      __builtin_prefetch(next_dy + unit);
      if constexpr (Cell::KEEPS_H) {
        if (is_last) Cell::activate(own_kept);
        else own_kept[KEPT - 1] = at(active);
        if (step) before = h_of(from.values_before + unit, active + unit, count);
      }
      Cell::backward(own_kept, at(from.h), before, at(from.c_before), at(dy) + at(dh), own_carry, own_dsums);
      for (int sum = 0; sum < SUMS; ++sum) store(dsums + sum * hidden + unit, own_dsums[sum], count);
      store(carry + unit, own_carry, count);
      store(h_before + unit, before, count);
    }
    std::copy_n(in.x + place * sizes.inputs, sizes.inputs, own.x.data() + (own.tokens + r) * x_columns());
  }

  // Some units' h, of what was kept; their c as `activate` makes it stays for the token itself.
  Vec<T> h_of(const T* values, T* active, Index count) const {
    Vec<T> own_kept[KEPT];
    for (int k = 0; k < KEPT; ++k) own_kept[k] = load(values + k * sizes.hidden, count);
    Cell::activate(own_kept);
    store(active, own_kept[KEPT - 1], count);
    return Cell::h(own_kept);
  }

  // The gradients of h before and of x, from those of the sums.
  void retreat(const Tile& tile, Index step, Index alive, Own& own) {
    const T* dsums = &own.dsums[own.tokens * SUMS * sizes.hidden];
    multiply(of_h, dsums + H_SUMS * sizes.hidden, alive, own.dh);
    if (!found.x) return;
    multiply(of_x, dsums, alive, own.dx);
    for (Index r = 0; r < alive; ++r)
      std::copy_n(&own.dx[r * of_x.columns], sizes.inputs,
                  found.x + rows.place(tile[r], step) * sizes.inputs);
  }

  void multiply(const Packed& weights, const T* dsums, Index alive, Numbers<T>& results) {
    for (Index vector = 0; vector < weights.columns / L; vector += VECTORS)
      ragged::multiply<false>(alive, std::min<Index>(VECTORS, weights.columns / L - vector), weights.height, dsums,
                              SUMS * sizes.hidden, 1, weights.at(vector), WIDE, &results[vector * L], weights.columns);
  }

  // Add a chunk of tokens to the gradients of weights and biases.
  void add_chunk(Own& own) {
    const Index hidden = sizes.hidden, pitch = SUMS * hidden;
    add_products(own, 0, own.x, x_columns(), own.totals.weight_ih);
    add_products(own, H_SUMS * hidden, own.h, h_columns(), own.totals.weight_hh);
    for (Index k = 0; k < own.tokens; ++k)
      for (Index unit = 0; unit < pitch; ++unit) own.totals.bias[unit] += own.dsums[k * pitch + unit];
    own.tokens = 0;
  }

  void add_products(const Own& own, Index first, const Numbers<T>& made_of, Index columns,
                    Numbers<T>& total) {
    ragged::multiply<true>(of_h.height, columns / L, own.tokens, &own.dsums[first], 1, SUMS * sizes.hidden,
                           made_of.data(), columns, total.data(), columns);
  }

  // Add up what the workers found, always in the same order.
  void collect(const std::vector<Totals>& totals) {
    const Index hidden = sizes.hidden;
    collect_starts(starts.data(), found.h0);
    if (Cell::HAS_C) collect_starts(starts.data() + rows.count() * hidden, found.c0);
    const auto add = [&](Numbers<T> Totals::* part, Index from, Index count, T* to) {
      std::fill_n(to, count, T(0));
      for (const auto& total : totals)
        for (Index k = 0; k < count; ++k) to[k] += (total.*part)[from + k];
    };
    for (int sum = 0; sum < GATES; ++sum) {
      const Index x_row = Cell::x_gate(sum) * hidden, h_row = Cell::h_gate(sum) * hidden;
      for (Index unit = 0; unit < hidden; ++unit) {
        const Index row = sum * hidden + unit;
        add(&Totals::weight_ih, row * x_columns(), sizes.inputs,
            found.weight_ih + (x_row + unit) * sizes.inputs);
        add(&Totals::weight_hh, row * h_columns(), hidden, found.weight_hh + (h_row + unit) * hidden);
      }
      add(&Totals::bias, sum * hidden, hidden, found.bias_ih + x_row);
      add(&Totals::bias, (H_SUMS + sum) * hidden, hidden, found.bias_hh + h_row);
    }
  }

  // Add up the gradients of a row's initial state over the pieces that start from it.
  void collect_starts(const T* of_pieces, T* to) const {
    std::fill_n(to, rows.batch * sizes.hidden, T(0));
    for (Index piece = 0; piece < rows.count(); ++piece)
      for (Index unit = 0; rows.starts_from_row(piece) && unit < sizes.hidden; ++unit)
        to[rows.row(piece) * sizes.hidden + unit] += of_pieces[piece * sizes.hidden + unit];
  }
};

}  // namespace ragged
