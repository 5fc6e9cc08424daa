// The gradients of `gated.hpp`. What tokens add to those of a network is gathered over segments of them,
// whatever the number of workers, and added up in order.
#pragma once

#include "gated.hpp"

namespace ragged {

// How many tokens have sums of their own: as many in each segment, in a number that workers share evenly, few enough
// that sums of so many numbers lose little, and enough to be worth their room.
inline Index segment_of(const Gated& call) {
  constexpr Index LEAST = 320, MOST = 2048, TASKS = 32;
  const auto is_due = [&](Index parts) { return parts * call.features <= TASKS || call.tokens > MOST * parts / 2; };
  Index parts = 1;
  while (call.tokens >= 2 * parts * LEAST && is_due(2 * parts)) parts *= 2;
  return std::max<Index>(ROWS, round_up((call.tokens + parts - 1) / parts, ROWS));
}

template <class T>
class GatedBackward {
 public:
  // As the forward pass; dout (tokens, size); then the gradients of what is given and of the arrays.
  GatedBackward(const Gated& call, const Tokens<const T>& given, const T* const* arrays, const T* dout, T* kept,
                const Tokens<T>& gradients, T* const* darrays)
      : call(call), given(given), arrays(arrays), dout(dout), kept(Kept<T>(call, kept).filled()),
        gradients(gradients), darrays(darrays),
        fields(call.features), turned(call.features), segment(segment_of(call)),
        segments((call.tokens + segment - 1) / segment), sums(call.features * segments) {
    const auto all = places(call), back = transposed<T>(all);
    for (Fields<T>& each : fields) each.lay_out(all);
    for (Fields<T>& each : turned) each.lay_out(back);
    for (Fields<T>& each : sums) each.lay_out(all);
  }

  void run(Index threads, const Parallel& parallel) {
    const Index workers = count_workers(call, threads);
    auto owns = make_owns<Own>(workers, call);
    share_fields(call, 2, workers, parallel, [&](Index feature, int field) {
      fields[feature].read(arrays, feature, field);
      turned[feature].turn(fields[feature], field);
    });
    share(Index(sums.size()), workers, parallel, [&](Index worker, Index n) {
      const Index feature = n / segments, begin = n % segments * segment;
      const Index end = std::min(call.tokens, begin + segment);
      sums[n].clear_vectors();
      for (Index first = begin; first < end; first += BLOCK) {
        owns[worker].adds = first > begin;
        run_block(owns[worker], sums[n], feature, first, std::min(BLOCK, end - first));
      }
    });
    share_fields(call, segments, workers, parallel, [&](Index feature, int field) {
      Fields<T>& total = sums[feature * segments];
      for (Index n = 1; n < segments; ++n) total.add(sums[feature * segments + n], field);
      total.write(arrays, darrays, feature, field);
    });
  }

 private:
  static constexpr Index L = LANES<T>;
  const Gated call;
  const Tokens<const T> given;
  const T* const* const arrays;
  const T* const dout;
  T* const kept;
  const Tokens<T> gradients;
  T* const* const darrays;
  std::vector<Fields<T>> fields, turned;  // as products read them; matrices, the other way round
  const Index segment, segments;          // tokens in each, how many
  std::vector<Fields<T>> sums;  // of each feature's segments

  // What a worker has for itself: the block again, and gradients of what is between.
  struct Own {
    Own(const Gated& call)
        : network(call), inputs(call.inputs), gates(2 * network.inner.size()), inner(network.inner.size()),
          output(inner.size()), hidden(BLOCK * network.narrow.pitch), x(BLOCK * inputs.pitch),
          scores(network.wide.pitch) {}
    Network<T> network;
    Lines<T> inputs;
    Room<T> gates, inner, output, hidden, x, scores;
    bool adds = false;  // whether products add to what the sums of matrices have

    // sum (features, b_pitch) = (or +=) a (count, features).T @ b.
    void add_products(const T* a, Index pitch, Index features, const Room<T>& b, Index b_pitch, Index count, T* sum) {
      const Begin<T> begin = adds ? Begin<T>{sum, b_pitch} : Begin<T>{};
      multiply_from(begin, features, b_pitch / L, count, a, 1, pitch, b.data(), b_pitch, sum, b_pitch);
    }
  };

  void run_block(Own& own, Fields<T>& sum, Index feature, Index first, Index count) const {
    const Fields<T>& back = turned[feature];
    Network<T>& net = own.network;
    net.run(fields[feature], given, kept, kept != nullptr, feature, first, count);
    for (Index r = 0; r < count; ++r) leave_norms(own, sum, feature, first + r, r);

    const Index pitch = net.wide.pitch;
    own.add_products(net.output, pitch, call.size, own.gates, 2 * pitch, count, sum[GATE]);
    Network<T>::multiply_rows({}, own.gates.data(), 2 * pitch, 2 * pitch, back[GATE], pitch, count,
                              own.output.data());
    net.drop(feature, first, count, own.output.data());
    leave_residual(own, sum, back, first, count);
    if (call.hidden)
      leave_hidden(own, sum, back, first, count);
    else
      for (Index n = 0; n < count * net.wide.pitch; n += L) increase(&own.x[n], load(&own.output[n]));
    const Index at = call.place(feature, first);
    if (call.numbers)
      leave_numbers(own, sum, fields[feature], at, count);
    else
      write(own.x, own.inputs, count, gradients.x + at, call.pitch());
  }

  // From a token's result to the gate's two halves and to the residual. Pointers are copied, as stores might change
  // their owners, as far as a compiler knows.
  void leave_norms(Own& own, Fields<T>& sum, Index feature, Index token, Index r) const {
    const Fields<T>& grn = fields[feature];
    const Network<T>& net = own.network;
    const Lines<T>& wide = net.wide;
    const Index at = r * wide.pitch, place = token * call.features + feature;
    T* const dinner = &own.inner[at];
    const T of_weight = leave_norm(grn, sum, &net.normalised[at], given.weights ? given.weights[place] : T(1),
                                   net.scale[r], wide, leave_softmax(own, grn, dout + token * call.size, r), dinner);
    if (gradients.weights) gradients.weights[place] = of_weight;
    T *const dvalue = &own.gates[2 * at], *const dgate = dvalue + wide.pitch;
    T *const of_values = sum[GATE_BIAS], *const of_gates = of_values + wide.pitch;
    const T *const values = &net.gates[2 * at], *const gates = values + wide.pitch;
    wide.each([=](Index n) {
      const Vec<T> coming = load(dinner + n), open = load(gates + n);
      const Vec<T> of_value = coming * open, of_gate = of_value * load(values + n) * (T(1) - open);
      increase(of_values + n, of_value);
      increase(of_gates + n, of_gate);
      store(dvalue + n, of_value), store(dgate + n, of_gate);
    });
    if (call.stretched) leave_inner_norm(dinner, &net.inner[at], net.inner_scale[r], wide, grn, sum);
  }

  // From a token's result to what it is the softmax of, if of anything.
  const T* leave_softmax(Own& own, const Fields<T>& grn, const T* of_token, Index r) const {
    if (!call.softmax) return of_token;
    const Lines<T>& wide = own.network.wide;
    T* const scores = own.scores.data();
    wide.each([&](Index n) { store(scores + n, own.network.value(grn, r, n)); });
    wide.take_softmax(scores);
    Vec<T> sum{};
    wide.each([&](Index n) { sum += load(scores + n) * wide.read(of_token, n); });
    const T mean = add_lanes<T>(sum);
    wide.each([&](Index n) { store(scores + n, load(scores + n) * (wide.read(of_token, n) - mean)); });
    return scores;
  }

  // From a token's result to the sum of gate and residual; returns the gradient of the token's weight.
  static T leave_norm(const Fields<T>& grn, Fields<T>& sum, const T* normalised, T weight, T scale, const Lines<T>& wide,
                      const T* of_token, T* gradient) {
    T *const of_weights = sum[WEIGHT], *const of_biases = sum[BIAS];
    const T *const weights = grn[WEIGHT], *const biases = grn[BIAS];
    Vec<T> of_weight{}, total{}, product{};
    wide.each([&](Index n) {
      const Vec<T> coming = wide.read(of_token, n), own = load(normalised + n), by = load(weights + n);
      of_weight += coming * (own * by + load(biases + n));
      const Vec<T> weighted = coming * weight, slope = weighted * by;
      increase(of_biases + n, weighted);
      increase(of_weights + n, weighted * own);
      store(gradient + n, slope);
      total += slope, product += slope * own;
    });
    wide.denormalise(gradient, normalised, scale, total, product);
    return add_lanes<T>(of_weight);
  }

  static void leave_inner_norm(T* gradient, const T* inner, T scale, const Lines<T>& wide, const Fields<T>& grn,
                               Fields<T>& sum) {
    T *const of_weights = sum[INNER_WEIGHT], *const of_biases = sum[INNER_BIAS];
    const T* const weights = grn[INNER_WEIGHT];
    Vec<T> total{}, product{};
    wide.each([&](Index n) {
      const Vec<T> coming = load(gradient + n), own = load(inner + n), slope = coming * load(weights + n);
      increase(of_biases + n, coming);
      increase(of_weights + n, coming * own);
      store(gradient + n, slope);
      total += slope, product += slope * own;
    });
    wide.denormalise(gradient, inner, scale, total, product);
  }

  // From the residual to x, or to what was given in its place.
  void leave_residual(Own& own, Fields<T>& sum, const Fields<T>& back, Index first, Index count) const {
    const Network<T>& net = own.network;
    const Lines<T>& wide = net.wide;
    if (call.stretched) {
      own.add_products(net.x, net.x_pitch, call.inputs, own.inner, wide.pitch, count, sum[STRETCH]);
      go_back(own.inner, wide, back[STRETCH], own.inputs, count, false, own.x);
    } else if (given.residual) {
      write(own.inner, wide, count, gradients.residual + first * call.size, call.size);
      std::fill_n(own.x.begin(), count * own.inputs.pitch, T(0));
    } else {
      std::copy_n(own.inner.begin(), count * wide.pitch, own.x.begin());
    }
  }

  // From `o` to x and to what is added to the hidden units.
  void leave_hidden(Own& own, Fields<T>& sum, const Fields<T>& back, Index first, Index count) const {
    const Network<T>& net = own.network;
    add_rows(own.output, net.wide, count, sum[OUTPUT_BIAS]);
    own.add_products(net.hidden, net.narrow.pitch, call.hidden, own.output, net.wide.pitch, count, sum[OUTPUT]);
    go_back(own.output, net.wide, back[OUTPUT], net.narrow, count, false, own.hidden);
    for (Index n = 0; n < count * net.narrow.pitch; n += L) {
      const Vec<T> h = load(&net.hidden[n]), slope = h + T(1);
      store(&own.hidden[n], load(&own.hidden[n]) * (h > T(0) ? Vec<T>{} + T(1) : slope));
    }
    if (gradients.added) write(own.hidden, net.narrow, count, gradients.added + first * call.hidden, call.hidden);
    add_rows(own.hidden, net.narrow, count, sum[HIDDEN_BIAS]);
    own.add_products(net.x, net.x_pitch, call.inputs, own.hidden, net.narrow.pitch, count, sum[HIDDEN]);
    go_back(own.hidden, net.narrow, back[HIDDEN], own.inputs, count, true, own.x);
  }

  // From x to the numbers that it is made of; their gradients may not be wanted.
  void leave_numbers(const Own& own, Fields<T>& sum, const Fields<T>& grn, Index at, Index count) const {
    const Index next = call.pitch(), pitch = own.inputs.pitch;
    const T* const numbers = given.x + at;
    T* const of_numbers = gradients.x ? gradients.x + at : nullptr;
    for (Index k = 0; of_numbers && k < call.numbers; ++k)
      for (Index r = 0; r < count; ++r) of_numbers[r * next + k] = T(0);
    call.template each_number<T>([&](Index k, Index n, Index left) {
      const Vec<T> weight = load(grn[EMBED] + n, left);
      Vec<T> of_weight{}, of_bias{};
      for (Index r = 0; r < count; ++r) {
        const Vec<T> coming = load(&own.x[r * pitch + n], left);
        of_weight += numbers[r * next + k] * coming;
        of_bias += coming;
        if (of_numbers) of_numbers[r * next + k] += add_lanes<T>(coming * weight);
      }
      store(sum[EMBED] + n, load(sum[EMBED] + n, left) + of_weight, left);
      store(sum[EMBED_BIAS] + n, load(sum[EMBED_BIAS] + n, left) + of_bias, left);
    });
  }

  static void write(const Room<T>& rows, const Lines<T>& lines, Index count, T* to, Index pitch) {
    for (Index r = 0; r < count; ++r)
      lines.each([&](Index n) { lines.write(to + r * pitch, n, load(&rows[r * lines.pitch + n])); });
  }

  static void add_rows(const Room<T>& rows, const Lines<T>& lines, Index count, T* sum) {
    for (Index r = 0; r < count; ++r)
      lines.each([&](Index n) { increase(sum + n, load(&rows[r * lines.pitch + n])); });
  }

  // to = (or +=) gradient @ matrix.
  static void go_back(const Room<T>& gradient, const Lines<T>& from, const T* matrix, const Lines<T>& lines,
                      Index count, bool adds, Room<T>& to) {
    const Begin<T> begin = adds ? Begin<T>{to.data(), lines.pitch} : Begin<T>{};
    Network<T>::multiply_rows(begin, gradient.data(), from.pitch, from.features, matrix, lines.pitch, count, to.data());
  }
};

}  // namespace ragged
