// A cell's kernels beside plain loops, over shapes past every boundary that they have, in every
// layout: for sanitizers.
//
// Each array is of exactly the size that a call may touch. What is told goes to the standard error,
// and the status is 1.
#include <memory>
#include <string>

#include "recurrent.cpp"

#include "harness.hpp"
#include "plain.hpp"

using Plain = plain::CELL;
constexpr Index GATES = Plain::GATES, KEPT = Plain::KEPT;

template <class T>
std::vector<T> drawn(Index size, double scale = 1) {
  std::vector<T> values(size);
  for (T& value : values) value = T(scale * std::uniform_real_distribution<T>(-1, 1)(generator));
  return values;
}

struct Shape {
  Index batch, width, inputs, hidden;
};

struct Choice {
  Layout layout;
  bool reverse;
  Index threads, free;  // room beyond the tokens where they lie end to end
  bool wants_x, trains;
  bool resets = false, to_initial = false;
};

// What plain loops make of a layer.
struct Expected {
  Values y, h, c, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh;  // gradients from x on
};

// All arrays of a layer.
template <class T>
class Case {
 public:
  Case(Shape s, Choice choice)
      : s(s), choice(choice), lengths(drawn_lengths(s, choice)), tokens(sum(lengths)),
        places(is_padded() ? s.batch * s.width : tokens + choice.free),
        states(s.batch * (Plain::HAS_C ? s.hidden : 0)), is_token(places),
        x(drawn<T>(places * s.inputs)), h0(drawn<T>(s.batch * s.hidden)), c0(drawn<T>(states)),
        weight_ih(drawn<T>(GATES * s.hidden * s.inputs, scale())),
        weight_hh(drawn<T>(GATES * s.hidden * s.hidden, scale())),
        bias_ih(drawn<T>(GATES * s.hidden)), bias_hh(drawn<T>(GATES * s.hidden)),
        of_y(drawn<T>(places * s.hidden)), of_h(drawn<T>(s.batch * s.hidden)), of_c(drawn<T>(states)),
        resets(new bool[places]), rows(make_rows()),
        sizes{s.inputs, s.hidden, tokens + choice.free} {
    for (Index row = 0; row < s.batch; ++row)
      for (Index step = 0; step < lengths[row]; ++step) is_token[place(row, step)] = true;
    for (Index at = 0; at < places; ++at) {  // padding is never read
      if (is_token[at]) continue;
      std::fill_n(x.data() + at * s.inputs, s.inputs, T(NAN));
      std::fill_n(of_y.data() + at * s.hidden, s.hidden, T(NAN));
    }
  }

  void check() {
    if (count_workers(rows, sizes, GATES, choice.threads) < LEAST_WORKERS) return;
    const Expected e = expected();
    forward();
    near(y, e.y, "y");
    near(h, e.h, "h");
    near(c, e.c, "c");
    if (!choice.trains) return;
    for (Index at = 0; at < sizes.room; ++at)
      for (Index k = 0; k < KEPT * s.hidden; ++k) {
        const T value = kept[at * KEPT * s.hidden + k];
        expect(std::isnan(value) == (at >= tokens), "kept", at);  // the rest is not touched
      }
    std::vector<T> gx(choice.wants_x ? x.size() : 0, T(NAN)), gh(h0.size(), T(NAN)), gc(states, T(NAN));
    std::vector<T> gih(weight_ih.size(), T(NAN)), ghh(weight_hh.size(), T(NAN));
    std::vector<T> gbi(bias_ih.size(), T(NAN)), gbh(bias_hh.size(), T(NAN));
    Backward<T, CELL>(rows, sizes, inputs(), {y.data(), kept.data()},
                      {of_y.data(), of_h.data(), of_c.data()},
                      {choice.wants_x ? gx.data() : nullptr, gh.data(), gc.data(), gih.data(),
                       ghh.data(), gbi.data(), gbh.data()})
        .run(choice.threads, {});
    near(gx, e.x, "gradient of x");
    near(gh, e.h0, "gradient of h0");
    near(gc, e.c0, "gradient of c0");
    near(gih, e.weight_ih, "gradient of weight_ih");
    near(ghh, e.weight_hh, "gradient of weight_hh");
    near(gbi, e.bias_ih, "gradient of bias_ih");
    near(gbh, e.bias_hh, "gradient of bias_hh");
  }

 private:
  const Shape s;
  const Choice choice;
  const std::vector<Index> lengths;
  const Index tokens, places, states;
  std::vector<bool> is_token;
  std::vector<T> x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, of_y, of_h, of_c;
  std::vector<T> y, h, c, kept;
  const std::unique_ptr<bool[]> resets;  // at padding too, where they are nothing
  const Rows rows;
  const Sizes sizes;

  bool is_padded() const { return choice.layout == Layout::padded || choice.layout == Layout::time_major; }
  double scale() const { return 1 / std::sqrt(double(s.hidden + s.inputs)); }

  Rows make_rows() {
    for (Index at = 0; at < places; ++at) resets[at] = any(2) == 0;
    const Resets given{choice.resets ? resets.get() : nullptr, choice.to_initial};
    return {choice.layout, s.batch, s.width, places, choice.reverse, lengths.data(), given};
  }

  // Whether the state starts anew before the n-th step that is read of a row.
  bool starts_anew(Index row, Index step) const {
    if (!choice.resets || (choice.reverse && !step)) return false;
    return resets[place(row, choice.reverse ? lengths[row] - step : step)];
  }

  static Index sum(const std::vector<Index>& values) {
    return std::accumulate(values.begin(), values.end(), Index(0));
  }

  static std::vector<Index> drawn_lengths(const Shape& s, const Choice& choice) {
    std::vector<Index> lengths(s.batch);
    for (Index& length : lengths) length = any(s.width);
    if (s.batch > 1) lengths[0] = s.width, lengths[1] = 0;
    if (choice.layout == Layout::packed) std::sort(lengths.rbegin(), lengths.rend());
    return lengths;
  }

  // Where a step of a row stands, counted one by one.
  Index place(Index row, Index step) const {
    Index before = 0;
    switch (choice.layout) {
      case Layout::padded: return row * s.width + step;
      case Layout::time_major: return step * s.batch + row;
      case Layout::jagged:
        for (Index other = 0; other < row; ++other) before += lengths[other];
        return before + step;
      case Layout::packed:
        for (Index other = 0; other < s.batch; ++other)
          before += std::min(lengths[other], step) + (other < row && lengths[other] > step);
        return before;
    }
    return -1;
  }

  // Where the n-th step that is read of a row stands.
  Index read_place(Index row, Index step) const {
    return place(row, choice.reverse ? lengths[row] - 1 - step : step);
  }

  void near(const std::vector<T>& found, const Values& expected, const char* what) const {
    const double tolerance = sizeof(T) == 4 ? 2e-4 : 1e-11;
    for (std::size_t i = 0; i < found.size(); ++i)
      if (!(std::abs(found[i] - expected[i]) <= tolerance * (1 + std::abs(expected[i])))) tell(what, i);
  }

  void tell(const char* what, Index where) const {
    const auto shape = " of " + std::to_string(s.batch) + " rows, " + std::to_string(s.width) +
                       " steps, " + std::to_string(s.inputs) + " inputs, " + std::to_string(s.hidden) +
                       " units, layout " + std::to_string(int(choice.layout));
    expect(false, (what + shape).c_str(), where);
  }

  Inputs<T> inputs() const {
    return {x.data(), h0.data(), c0.data(), weight_ih.data(), weight_hh.data(), bias_ih.data(), bias_hh.data()};
  }

  void forward() {
    y.assign(places * s.hidden, T(NAN)), h.assign(h0.size(), T(NAN)), c.assign(states, T(NAN));
    kept.assign(choice.trains ? sizes.room * KEPT * s.hidden : 0, T(NAN));
    Forward<T, CELL>(rows, sizes, inputs(),
                     {y.data(), h.data(), c.data(), choice.trains ? kept.data() : nullptr})
        .run(choice.threads, {});
  }

  Expected expected() const {
    Expected e{Values(places * s.hidden), Values(h0.size()), Values(states), Values(x.size()),
               Values(h0.size()), Values(states), Values(weight_ih.size()), Values(weight_hh.size()),
               Values(bias_ih.size()), Values(bias_hh.size())};
    for (Index row = 0; row < s.batch; ++row) run_row(row, e);
    return e;
  }

  // Each unit's products, gate by gate: products[unit * GATES + gate].
  UNWATCHED static void multiply(const std::vector<T>& weights, const std::vector<T>& bias, const double* vector,
                       Index columns, Values& products) {
    const Index hidden = Index(products.size()) / GATES;
    for (Index gate = 0; gate < GATES; ++gate)
      for (Index unit = 0; unit < hidden; ++unit) {
        const Index k = gate * hidden + unit;
        const T* weight = weights.data() + k * columns;
        double product = bias[k];
        for (Index j = 0; j < columns; ++j) product += weight[j] * vector[j];
        products[unit * GATES + gate] = product;
      }
  }

  // What the gradients of products add to those of weights, bias and vector.
  UNWATCHED static void differentiate(const std::vector<T>& weights, const double* vector, Index columns,
                            const Values& of_products, Values& of_weights, Values& of_bias,
                            double* of_vector) {
    const Index hidden = Index(of_products.size()) / GATES;
    for (Index gate = 0; gate < GATES; ++gate)
      for (Index unit = 0; unit < hidden; ++unit) {
        const Index k = gate * hidden + unit;
        const double given = of_products[unit * GATES + gate];
        const T* weight = weights.data() + k * columns;
        double* of_weight = of_weights.data() + k * columns;
        of_bias[k] += given;
        for (Index j = 0; j < columns; ++j) {
          of_weight[j] += given * vector[j];
          of_vector[j] += given * weight[j];
        }
      }
  }

  // A row's outputs and all that it adds to the gradients.
  void run_row(Index row, Expected& e) const {
    const Index length = lengths[row], hidden = s.hidden, inputs = s.inputs;
    const auto start = [&](const std::vector<T>& from) {
      return from.empty() ? Values(hidden) : Values(&from[row * hidden], &from[row * hidden] + hidden);
    };
    std::vector<Values> hs{start(h0)}, cs{start(c0)}, xs, as, bs;
    for (Index step = 0; step < length; ++step) {
      const Index at = read_place(row, step);
      if (starts_anew(row, step)) {
        hs[step] = choice.to_initial ? start(h0) : Values(hidden);
        cs[step] = choice.to_initial ? start(c0) : Values(hidden);
      }
      xs.emplace_back(x.data() + at * inputs, x.data() + (at + 1) * inputs);
      as.emplace_back(GATES * hidden), bs.emplace_back(GATES * hidden);
      multiply(weight_ih, bias_ih, xs[step].data(), inputs, as[step]);
      multiply(weight_hh, bias_hh, hs[step].data(), hidden, bs[step]);
      hs.push_back(hs[step]), cs.push_back(cs[step]);
      for (Index j = 0; j < hidden; ++j)
        Plain::forward(&as[step][j * GATES], &bs[step][j * GATES], hs.back()[j], cs.back()[j]);
      std::copy(hs.back().begin(), hs.back().end(), e.y.begin() + at * hidden);
    }
    Values dh = start(of_h), dc = start(of_c), da(GATES * hidden), db(GATES * hidden);
    Values dh0(hidden), dc0(hidden);
    put(row, hs.back(), e.h), put(row, cs.back(), e.c);
    for (Index step = length; step-- > 0;) {
      const Index at = read_place(row, step);
      for (Index j = 0; j < hidden; ++j) {
        dh[j] += of_y[at * hidden + j];
        Plain::backward(&as[step][j * GATES], &bs[step][j * GATES], hs[step][j], cs[step][j], dh[j],
                        dc[j], &da[j * GATES], &db[j * GATES]);
      }
      differentiate(weight_ih, xs[step].data(), inputs, da, e.weight_ih, e.bias_ih, e.x.data() + at * inputs);
      differentiate(weight_hh, hs[step].data(), hidden, db, e.weight_hh, e.bias_hh, dh.data());
      if (!starts_anew(row, step)) continue;
      for (Index j = 0; j < hidden; ++j) {
        if (choice.to_initial) dh0[j] += dh[j], dc0[j] += dc[j];
        dh[j] = dc[j] = 0;
      }
    }
    for (Index j = 0; j < hidden; ++j) dh0[j] += dh[j], dc0[j] += dc[j];
    put(row, dh0, e.h0), put(row, dc0, e.c0);
  }

  static void put(Index row, const Values& values, Values& all) {
    if (!all.empty()) std::copy(values.begin(), values.end(), all.begin() + row * Index(values.size()));
  }
};

template <class T>
void check_shapes() {
  const Index wide = VECTORS * LANES<T>, beyond = 256 + wide + 1;
  const Shape shapes[] = {
      {0, 3, 2, 3}, {3, 0, 2, 3}, {1, 1, 1, 1}, {4, 5, 0, 3},
      {3, 2, 3, beyond},             // columns of (h, x) past all blocks of weights
      {3, 2, beyond, 3},
      {2 * 4 * TILE + 3, 3, 2, 3},   // rows past several tiles of each worker
      {ROWS + 1, CHUNK + 2, 2, 3},   // tokens past a chunk
      {TILE + ROWS + 1, 6, 5, wide + LANES<T> + 1},  // enough work for two threads
  };
  for (const Shape& shape : shapes)
    for (int k = 0; k < 4; ++k) {
      const bool odd = k & 1;
      Case<T>(shape, {Layout(k), odd, 1 + odd, odd ? 7 : 0, k != 2, true}).check();
      Case<T>(shape, {Layout(k), !odd, 1 + odd, 3, true, true, true, k == 1 || k == 2}).check();
    }
  for (int k = 0; k < 24; ++k) {
    const Shape shape{any(9), any(7), any(2 * LANES<T>), 1 + any(2 * wide)};
    const bool reverse = any(1), wants_x = any(1), trains = any(3);
    const bool resets = any(1), to_initial = any(1);
    Case<T>(shape, {Layout(k % 4), reverse, 1 + any(1), any(5), wants_x, trains, resets, to_initial})
        .check();
  }
}

// The calls that Python makes.
static Status call(const std::vector<Index>& lengths, Layout layout, Index width, Index places, Index room) {
  const Index rows = Index(lengths.size()), inputs = 8, hidden = 32, states = Plain::HAS_C ? hidden : 0;
  const Index sizes[] = {rows, width, places, Index(layout), 0, inputs, hidden, room, 2, 0, 0};
  const Index of_inputs[] = {places * inputs, rows * hidden, rows * states, GATES * hidden * inputs,
                             GATES * hidden * hidden, GATES * hidden, GATES * hidden};
  const Index of_outputs[] = {places * hidden, rows * hidden, rows * states, room * KEPT * hidden};
  std::vector<std::vector<REAL>> arrays;
  const auto add = [&](Index size) { arrays.push_back(std::vector<REAL>(size, REAL(0.5))); };
  for (Index size : of_inputs) add(size);
  for (Index size : of_outputs) add(size);  // found by the forward pass
  for (int k = 0; k < 3; ++k) add(of_outputs[k]);
  for (Index size : of_inputs) add(size);  // found by the backward pass
  std::vector<REAL*> forward, backward;
  for (int k = 0; k < 11; ++k) forward.push_back(arrays[k].data());
  for (int k : {0, 1, 2, 3, 4, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20})
    backward.push_back(arrays[k].data());
  const Status status = with_little_memory(
      [&] { return recurrent_forward(sizes, lengths.data(), forward.data(), nullptr, nullptr); });
  if (status != Status::done) return status;
  return with_little_memory(
      [&] { return recurrent_backward(sizes, lengths.data(), backward.data(), nullptr, nullptr); });
}

static void check_calls() {
  std::vector<Index> lengths(30, 5);
  const auto refused = [&](Layout layout, Index places, Index room, const char* what) {
    expect(call(lengths, layout, 5, places, room) == Status::bad_lengths, what, Index(layout));
  };
  for (Layout layout : {Layout::padded, Layout::time_major, Layout::jagged, Layout::packed}) {
    expect(call(lengths, layout, 5, 150, 150) == Status::done, "a call is done at last", Index(layout));
    refused(layout, 149, 150, "no place for a token");
    if (KEPT) refused(layout, 150, 149, "no room for a token");
    for (Index wrong : {Index(-1), Index(6), Index(1) << 62}) {
      lengths[7] = wrong;
      refused(layout, 150, 150, "a length");
    }
    lengths[7] = 5;
  }
  lengths[0] = 4;
  refused(Layout::packed, 150, 150, "packed rows that are not sorted");
}

int main() {
  check_shapes<REAL>();
  check_calls();
  return 0;
}
