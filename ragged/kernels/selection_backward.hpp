// The gradients of `selection.hpp`. What tokens add to those of a network is gathered over SEGMENT tokens,
// whatever the number of workers, and added up in order.
#pragma once

#include "selection.hpp"

namespace ragged {

template <class T>
class SelectionBackward {
 public:
  // As the forward pass; dout (tokens, size); then gradients like x, the weights and the arrays.
  SelectionBackward(const Selection& call, const T* x, const T* weights, const T* const* arrays, const T* dout,
                    T* dx, T* dweights, T* const* darrays)
      : call(call), x(x), weights(weights), dout(dout), dx(dx), dweights(dweights), darrays(darrays),
        fields(read_fields(call, arrays)), turned(call.features), segments((call.tokens + SEGMENT - 1) / SEGMENT),
        sums(call.features * segments) {
    for (Index feature = 0; feature < call.features; ++feature)
      for (const Field field : {HIDDEN, OUTPUT, VALUE, GATE, STRETCH})
        turn(places(call)[field], fields[feature][field], turned[feature].of[field]);
  }

  void run(Index threads, const Parallel& parallel) {
    const Index workers = count_workers(call, threads);
    std::vector<Own> owns(workers, Own(call));
    share(Index(sums.size()), workers, parallel, [&](Index worker, Index n) {
      const Index feature = n / segments, begin = n % segments * SEGMENT;
      const Index end = std::min(call.tokens, begin + SEGMENT);
      sums[n].clear(call);
      for (Index first = begin; first < end; first += BLOCK)
        run_block(owns[worker], sums[n], feature, first, std::min(BLOCK, end - first));
    });
    share(call.features, workers, parallel, [&](Index, Index feature) {
      Fields<T>& total = sums[feature * segments];
      for (Index n = 1; n < segments; ++n) total.add(sums[feature * segments + n]);
      total.write(call, darrays, feature);
    });
  }

 private:
  static constexpr Index L = LANES<T>, SEGMENT = 4096;
  const Selection call;
  const T *const x, *const weights, *const dout;
  T *const dx, *const dweights, *const *const darrays;
  const std::vector<Fields<T>> fields;
  std::vector<Fields<T>> turned;  // their matrices, the other way round
  const Index segments;
  std::vector<Fields<T>> sums;  // of each feature's segments

  // What a worker has for itself: the block again, and gradients of what is between.
  struct Own {
    Own(const Selection& call)
        : network(call), inputs(call.inputs), value(network.output), gate(value), inner(value), output(value),
          hidden(network.hidden), x(BLOCK * inputs.pitch) {}
    Network<T> network;
    Lines<T> inputs;
    std::vector<T> value, gate, inner, output, hidden, x;
  };

  static void turn(const Place& place, const T* from, std::vector<T>& to) {
    const Index pitch = round_up(place.columns, L), turned = round_up(place.rows, L);
    to.assign(place.columns * turned, T(0));
    for (Index r = 0; r < place.rows; ++r)
      for (Index c = 0; c < place.columns; ++c) to[c * turned + r] = from[r * pitch + c];
  }

  void run_block(Own& own, Fields<T>& sum, Index feature, Index first, Index count) const {
    const Fields<T>&grn = fields[feature], &back = turned[feature];
    const T* from = x + (feature * call.tokens + first) * call.inputs;
    Network<T>& net = own.network;
    net.run(grn, from, feature, first, count);
    for (Index r = 0; r < count; ++r) leave_norms(own, grn, sum, feature, first + r, r);

    add_products(from, call.inputs, call.inputs, own.inner, net.wide, count, sum[STRETCH]);
    add_products(net.output.data(), net.wide.pitch, call.size, own.value, net.wide, count, sum[VALUE]);
    add_products(net.output.data(), net.wide.pitch, call.size, own.gate, net.wide, count, sum[GATE]);
    go_back(own.value, net.wide, back[VALUE], net.wide, count, false, own.output);
    go_back(own.gate, net.wide, back[GATE], net.wide, count, true, own.output);
    net.drop(feature, first, count, own.output);
    add_rows(own.output, net.wide, count, sum[OUTPUT_BIAS]);
    add_products(net.hidden.data(), net.narrow.pitch, call.hidden, own.output, net.wide, count, sum[OUTPUT]);
    go_back(own.output, net.wide, back[OUTPUT], net.narrow, count, false, own.hidden);
    for (Index n = 0; n < count * net.narrow.pitch; n += L) {
      const Vec<T> h = load(&net.hidden[n]), slope = h + T(1);
      store(&own.hidden[n], load(&own.hidden[n]) * (h > T(0) ? Vec<T>{} + T(1) : slope));
    }
    add_rows(own.hidden, net.narrow, count, sum[HIDDEN_BIAS]);
    add_products(from, call.inputs, call.inputs, own.hidden, net.narrow, count, sum[HIDDEN]);
    go_back(own.inner, net.wide, back[STRETCH], own.inputs, count, false, own.x);
    go_back(own.hidden, net.narrow, back[HIDDEN], own.inputs, count, true, own.x);
    T* const to = dx + (feature * call.tokens + first) * call.inputs;
    for (Index r = 0; r < count; ++r) std::copy_n(&own.x[r * own.inputs.pitch], call.inputs, to + r * call.inputs);
  }

  // From a token's result to the gate's two halves and to what the inner norm normalises.
  void leave_norms(Own& own, const Fields<T>& grn, Fields<T>& sum, Index feature, Index token, Index r) const {
    const Network<T>& net = own.network;
    const Lines<T>& wide = net.wide;
    const Index at = r * wide.pitch, place = token * call.features + feature;
    const T weight = weights[place], *const of_token = dout + token * call.size;
    T *const dvalue = &own.value[at], *const dgate = &own.gate[at], *const dinner = &own.inner[at];
    const T *const normalised = &net.normalised[at], *const inner = &net.inner[at];
    Vec<T> of_weight{}, total{}, product{};
    wide.each([&](Index n) {
      const Vec<T> given = wide.read(of_token, n), own_value = load(normalised + n), by = load(grn[WEIGHT] + n);
      of_weight += given * (own_value * by + load(grn[BIAS] + n));
      const Vec<T> weighted = given * weight, slope = weighted * by;
      increase(sum[BIAS] + n, weighted);
      increase(sum[WEIGHT] + n, weighted * own_value);
      store(dvalue + n, slope);
      total += slope, product += slope * own_value;
    });
    dweights[place] = add_lanes<T>(of_weight);
    wide.denormalise(dvalue, normalised, net.scale[r], total, product);
    total = product = Vec<T>{};
    wide.each([&](Index n) {
      const Vec<T> given = load(dvalue + n), open = load(&net.gate[at + n]), own_value = load(inner + n);
      const Vec<T> of_value = given * open, slope = given * load(grn[INNER_WEIGHT] + n);
      const Vec<T> of_gate = of_value * load(&net.value[at + n]) * (T(1) - open);
      increase(sum[INNER_BIAS] + n, given);
      increase(sum[INNER_WEIGHT] + n, given * own_value);
      increase(sum[VALUE_BIAS] + n, of_value);
      increase(sum[GATE_BIAS] + n, of_gate);
      store(dvalue + n, of_value), store(dgate + n, of_gate), store(dinner + n, slope);
      total += slope, product += slope * own_value;
    });
    wide.denormalise(dinner, inner, net.inner_scale[r], total, product);
  }

  static void increase(T* to, Vec<T> value) { store(to, load(to) + value); }

  // sum (features, pitch) += a (count, features).T @ b.
  static void add_products(const T* a, Index pitch, Index features, const std::vector<T>& b, const Lines<T>& lines,
                           Index count, T* sum) {
    multiply<true>(features, lines.pitch / L, count, a, 1, pitch, b.data(), lines.pitch, sum, lines.pitch);
  }

  static void add_rows(const std::vector<T>& rows, const Lines<T>& lines, Index count, T* sum) {
    for (Index r = 0; r < count; ++r)
      lines.each([&](Index n) { increase(sum + n, load(&rows[r * lines.pitch + n])); });
  }

  // to = (or +=) gradient @ matrix.
  static void go_back(const std::vector<T>& gradient, const Lines<T>& from, const T* matrix, const Lines<T>& lines,
                      Index count, bool adds, std::vector<T>& to) {
    if (!adds) std::fill_n(to.begin(), count * lines.pitch, T(0));
    Network<T>::multiply_rows(gradient.data(), from.pitch, from.features, matrix, lines, count, to);
  }
};

}  // namespace ragged
