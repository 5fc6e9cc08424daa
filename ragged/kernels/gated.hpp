// Gated residual networks of tokens, and their gates alone.
//
//     h = elu(x @ hidden.T + b + added)          o = dropped(h @ output.T + b)          [a, g] = o @ gate.T + b
//     v = norm(a * sigmoid(g) + residual)
//
// Without hidden units o = dropped(x). The residual is inner_norm(x @ stretch), or an array, or x; stretch is a linear
// interpolation, times 2 * sigmoid(scale). Variable selection has a network for each feature and sums what they make
// with weights, which are the softmax of another network's v. Where each feature is a number, its x is number * embed
// + b.
//
// One network after the other goes over a few tokens, so that all between stays in cache. The backward pass computes
// it again, but for h, o and the gates where the forward pass was given room to keep them.
#pragma once

#include <vector>

#include "dropped.hpp"
#include "gated_fields.hpp"
#include "products.hpp"
#include "team.hpp"

namespace ragged {

constexpr Index BLOCK = 48;  // tokens that go through a network together
constexpr Index DEEP = 96;   // rows of a matrix that a product takes at once: they stay in the first cache

template <class T>
void increase(T* to, Vec<T> value) { store(to, load(to) + value); }

// Rows of whole vectors whose last ones have lanes beyond the features, which stay 0.
template <class T>
class Lines {
 public:
  static constexpr Index L = LANES<T>;
  Lines(Index features) : features(features), pitch(round_up(features, L)), share(T(1) / T(features)) {
    for (Index lane = 0; lane < L; ++lane) last[lane] = T(pitch - L + lane < features);
  }

  const Index features, pitch;
  const T share;  // of a feature in a mean

  // body(first lane) for each vector of a row.
  template <class Body>
  void each(Body&& body) const {
    const Index end = pitch;  // which stores might change, as far as a compiler knows
    for (Index n = 0; n < end; n += L) body(n);
  }

  // A value for the vector at n, 0 beyond the features.
  Vec<T> within(Index n, Vec<T> value) const { return n + L < pitch ? value : value * last; }

  // Those of an array without such lanes.
  Vec<T> read(const T* row, Index n) const { return load(row + n, features - n); }
  void write(T* row, Index n, Vec<T> value) const { store(row + n, value, features - n); }

  // Turn a row into its deviations from its mean, in units of their root mean square; 1 / that.
  T normalise(T* row) const {
    Vec<T> sum{}, squares{};
    each([&](Index n) { sum += load(row + n); });
    const T mean = add_lanes<T>(sum) * share;
    each([&](Index n) {
      const Vec<T> centred = within(n, load(row + n) - mean);
      squares += centred * centred;
      store(row + n, centred);
    });
    const T scale = 1 / std::sqrt(add_lanes<T>(squares) * share + T(1e-5));
    each([&](Index n) { store(row + n, load(row + n) * scale); });
    return scale;
  }

  // The softmax of a row in place of it.
  void take_softmax(T* row) const {
    const T highest = *std::max_element(row, row + features);
    Vec<T> sum{};
    each([&](Index n) {
      const Vec<T> below = (read(row, n) - highest) * T(LOG2_E);  // but beyond the features
      const Vec<T> weight = within(n, exp2<T>(below > T(0) ? Vec<T>{} : below));
      sum += weight;
      write(row, n, weight);
    });
    const T scale = 1 / add_lanes<T>(sum);
    each([&](Index n) { write(row, n, read(row, n) * scale); });
  }

  // The gradient of `normalise` in place of that of its result, which adds up to `sum`, and times the
  // result to `product`.
  void denormalise(T* gradient, const T* normalised, T scale, Vec<T> sum, Vec<T> product) const {
    const T mean = add_lanes<T>(sum) * share, slope = add_lanes<T>(product) * share;
    each([&](Index n) {
      const Vec<T> own = load(gradient + n) - mean - load(normalised + n) * slope;
      store(gradient + n, within(n, own * scale));
    });
  }

 private:
  Vec<T> last;
};

// What the forward pass of a network alone keeps for the backward pass, in whole vectors: the h of all tokens, a and the
// sigmoid of g of all, and o; without hidden units o is x, and made again. A number behind them says that it did: plain
// operations leave all 0. No rows = nothing is kept.
template <class T>
class Kept {
 public:
  Kept(const Gated& call, T* rows) : rows(rows), mark(rows ? rows + call.tokens * width(call) : nullptr) {}

  T* const rows;

  T* filled() const { return mark && *mark == T(1) ? rows : nullptr; }
  void fill() const {
    if (mark) *mark = T(1);
  }

 private:
  T* const mark;

  static Index width(const Gated& call) {
    const Index wide = round_up(call.size, LANES<T>);
    return 2 * wide + (call.hidden ? wide + round_up(call.hidden, LANES<T>) : 0);
  }
};

// A block of tokens in a network, up to what is normalised.
template <class T>
class Network {
 public:
  Network(const Gated& call)
      : call(call), narrow(call.hidden), wide(call.size), dropped(call.dropout, call.seed),
        embedded(call.numbers ? BLOCK * call.inputs : 0), inner(BLOCK * wide.pitch), normalised(inner.size()),
        between(BLOCK * narrow.pitch + 3 * inner.size()) {}

  const Gated call;
  const Lines<T> narrow, wide;
  const Dropped dropped;
  Room<T> embedded;           // x, where it is made of numbers
  Room<T> inner, normalised;  // both norms without what they learn
  T inner_scale[BLOCK], scale[BLOCK];
  const T* x = nullptr;  // of the block
  Index x_pitch = 0;
  T *hidden = nullptr, *output = nullptr, *gates = nullptr;  // h, o, and of each token a, then the sigmoid of g

  // Its h, o and gates lie in `rows` of all tokens, if any, where they may be kept from an earlier pass.
  void run(const Fields<T>& grn, const Tokens<const T>& given, T* rows, bool is_kept, Index feature, Index first,
           Index count) {
    read(grn, given.x + call.place(feature, first), count);
    place(rows, first);
    if (!(is_kept && call.hidden)) make_output(grn, given, feature, first, count);
    if (!is_kept) make_gates(grn, count);
    if (call.stretched)
      multiply_rows({}, x, x_pitch, call.inputs, grn[STRETCH], wide.pitch, count, inner.data());
    else if (given.residual)
      copy(given.residual + first * call.size, call.size, wide, count, inner.data());
    else
      copy(x, x_pitch, wide, count, inner.data());
    // Step by step for all rows: what waits for a sum of one row leaves room for the next one.
    for (Index r = 0; call.stretched && r < count; ++r) inner_scale[r] = wide.normalise(&inner[r * wide.pitch]);
    for (Index r = 0; r < count; ++r) open_gate(grn, r * wide.pitch);
    for (Index r = 0; r < count; ++r) scale[r] = wide.normalise(&normalised[r * wide.pitch]);
  }

  // v of a row, a vector of it.
  Vec<T> value(const Fields<T>& grn, Index r, Index n) const {
    return load(&normalised[r * wide.pitch + n]) * load(grn[WEIGHT] + n) + load(grn[BIAS] + n);
  }

  // Drop what is dropped of a block, or of its gradient, and scale the rest up.
  void drop(Index feature, Index first, Index count, T* block) const {
    if (call.dropout <= 0) return;
    const Dropped::Query of_feature = dropped.query(0, feature);
    const Dropped drops = dropped;
    for (Index r = 0; r < count; ++r) {
      const Dropped::Query token = Dropped::within(of_feature, first + r);
      T* row = &block[r * wide.pitch];
      wide.each([=](Index n) {
        const Vec<T> own = load(row + n) * T(drops.kept);
        store(row + n, drops.keeps<T>(token, n) ? own : Vec<T>{});
      });
    }
  }

  // to (count, to_pitch) = what it begins with + a (count, features) @ b.
  static void multiply_rows(Begin<T> begin, const T* a, Index pitch, Index features, const T* b, Index to_pitch,
                            Index count, T* to) {
    for (Index first = 0; first < features; first += DEEP, begin = {to, to_pitch})
      multiply_from(begin, count, to_pitch / LANES<T>, std::min(DEEP, features - first), a + first, pitch, 1,
                    b + first * to_pitch, to_pitch, to, to_pitch);
  }

 private:
  Room<T> between;  // the block's h, o and gates, unless they are kept

  void place(T* rows, Index first) {
    const Index tokens = rows ? call.tokens : BLOCK, at = rows ? first : 0;
    hidden = rows ? rows : between.data();
    gates = hidden + tokens * narrow.pitch;
    output = call.hidden || !rows ? gates + (2 * tokens + at) * wide.pitch : between.data();
    hidden += at * narrow.pitch, gates += at * 2 * wide.pitch;
  }

  static void copy(const T* rows, Index pitch, const Lines<T>& lines, Index count, T* to) {
    for (Index r = 0; r < count; ++r)
      lines.each([&](Index n) { store(&to[r * lines.pitch + n], lines.read(rows + r * pitch, n)); });
  }

  // Take x as it lies, or make it of numbers.
  void read(const Fields<T>& grn, const T* from, Index count) {
    x = call.numbers ? embedded.data() : from;
    x_pitch = call.numbers ? call.inputs : call.pitch();
    call.template each_number<T>([&, this](Index k, Index n, Index left) {
      const Vec<T> weight = load(grn[EMBED] + n, left), bias = load(grn[EMBED_BIAS] + n, left);
      const T* number = from + k;
      T* to = &embedded[n];
      for (Index r = 0, next = call.pitch(), pitch = x_pitch; r < count; ++r, number += next, to += pitch)
        store(to, *number * weight + bias, left);
    });
  }

  void make_output(const Fields<T>& grn, const Tokens<const T>& given, Index feature, Index first, Index count) {
    if (call.hidden)
      run_hidden(grn, given.added ? given.added + first * call.hidden : nullptr, count);
    else
      copy(x, x_pitch, wide, count, output);
    drop(feature, first, count, output);
  }

  void run_hidden(const Fields<T>& grn, const T* added, Index count) {
    if (added) copy(added, call.hidden, narrow, count, hidden);
    for (Index r = 0; added && r < count; ++r)
      narrow.each([&](Index n) { increase(&hidden[r * narrow.pitch + n], load(grn[HIDDEN_BIAS] + n)); });
    const Begin<T> begin = added ? Begin<T>{hidden, narrow.pitch} : Begin<T>{grn[HIDDEN_BIAS]};
    multiply_rows(begin, x, x_pitch, call.inputs, grn[HIDDEN], narrow.pitch, count, hidden);
    for (Index n = 0; n < count * narrow.pitch; n += LANES<T>) {
      const Vec<T> own = load(&hidden[n]);
      store(&hidden[n], own > T(0) ? own : expm1<T>(own));
    }
    multiply_rows({grn[OUTPUT_BIAS]}, hidden, narrow.pitch, call.hidden, grn[OUTPUT], wide.pitch, count, output);
  }

  void make_gates(const Fields<T>& grn, Index count) {
    multiply_rows({grn[GATE_BIAS]}, output, wide.pitch, call.size, grn[GATE], 2 * wide.pitch, count, gates);
    for (Index r = 0; r < count; ++r) {
      T* const opens = &gates[(2 * r + 1) * wide.pitch];
      wide.each([=](Index n) { store(opens + n, sigmoid<T>(load(opens + n))); });
    }
  }

  // a * sigmoid(g) + residual of the row that begins there.
  void open_gate(const Fields<T>& grn, Index row) {
    const T *const values = &gates[2 * row], *const opens = values + wide.pitch, *const residuals = &inner[row];
    T* const sums = &normalised[row];
    const T *const weight = call.stretched ? grn[INNER_WEIGHT] : nullptr, *const bias = grn[INNER_BIAS];
    wide.each([=](Index n) {
      Vec<T> residual = load(residuals + n);
      if (weight) residual = residual * load(weight + n) + load(bias + n);
      store(sums + n, load(values + n) * load(opens + n) + residual);
    });
  }
};

// How many of `threads` find enough to do. Where networks are narrow, most of it is to embed, activate and normalise: a
// number of these takes as long as some products.
inline Index count_workers(const Gated& call, Index threads) {
  constexpr double PRODUCTS = 20;
  const double numbers = double(call.inputs + 2 * call.hidden + 6 * call.size);
  const double of_inputs = double(call.inputs) * double(call.hidden + call.stretched * call.size);
  const double of_size = double(call.size) * double(call.hidden + 2 * call.size);
  const double products = of_inputs + of_size + PRODUCTS * numbers;
  const double all = double(call.tokens) * double(call.features) * products;
  return std::max<Index>(1, std::min(threads, Index(all / WORTH_A_WORKER)));
}

// What each of the workers has for itself.
template <class Own>
std::vector<Own> make_owns(Index workers, const Gated& call) {
  std::vector<Own> owns;
  owns.reserve(workers);
  for (Index worker = 0; worker < workers; ++worker) owns.emplace_back(call);
  return owns;
}

// Run body(feature, field) for each field of each feature, which goes over its numbers so many times, by as many of the
// workers as find enough to do: a number takes as long as some products.
template <class Body>
void share_fields(const Gated& call, Index times, Index workers, const Parallel& parallel, Body&& body) {
  constexpr double PRODUCTS = 8;
  double numbers = 0;
  for (const Place& place : places(call)) numbers += double(place.each);
  const Index worth = 1 + Index(numbers * double(call.features * times) * PRODUCTS / WORTH_A_WORKER);
  share(call.features * FIELDS, std::min(workers, worth), parallel,
        [&](Index, Index n) { body(n / FIELDS, int(n % FIELDS)); });
}

template <class T>
class GatedForward {
 public:
  // out (tokens, size); kept: see `Kept`, or null.
  GatedForward(const Gated& call, const Tokens<const T>& given, const T* const* arrays, T* out, T* kept)
      : call(call), given(given), arrays(arrays), out(out), kept(call, kept), fields(call.features) {
    for (Fields<T>& each : fields) each.lay_out(places(call));
  }

  void run(Index threads, const Parallel& parallel) {
    const Index parts = (call.tokens + PART - 1) / PART, workers = count_workers(call, threads);
    auto owns = make_owns<Network<T>>(workers, call);
    share_fields(call, 1, workers, parallel,
                 [&](Index feature, int field) { fields[feature].read(arrays, feature, field); });
    share(parts, workers, parallel, [&](Index worker, Index n) {
      const Index end = std::min(call.tokens, (n + 1) * PART);
      std::fill(out + n * PART * call.size, out + end * call.size, T(0));
      for (Index feature = 0; feature < call.features; ++feature)
        for (Index first = n * PART; first < end; first += BLOCK)
          add(owns[worker], feature, first, std::min(BLOCK, end - first));
    });
    kept.fill();
  }

 private:
  static constexpr Index PART = 2 * BLOCK;  // tokens
  const Gated call;
  const Tokens<const T> given;
  const T* const* const arrays;
  T* const out;
  const Kept<T> kept;
  std::vector<Fields<T>> fields;

  void add(Network<T>& own, Index feature, Index first, Index count) const {
    const Fields<T>& grn = fields[feature];
    own.run(grn, given, kept.rows, false, feature, first, count);
    for (Index r = 0; r < count; ++r) {
      const T weight = given.weights ? given.weights[(first + r) * call.features + feature] : T(1);
      T* const to = out + (first + r) * call.size;
      own.wide.each([&](Index n) {
        own.wide.write(to, n, own.wide.read(to, n) + weight * own.value(grn, r, n));
      });
      if (call.softmax) own.wide.take_softmax(to);
    }
  }
};

}  // namespace ragged
