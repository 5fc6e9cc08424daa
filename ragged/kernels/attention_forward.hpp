// The forward pass of `attention.hpp`.
#pragma once

#include "attention.hpp"

namespace ragged {

template <class T>
struct AttentionInputs {
  const T *q, *k, *v;  // (places, heads, size); v (places, heads or none, value_size)
};

template <class T>
struct AttentionOutputs {
  T *out, *lse;  // (places, heads or none, value_size), (places, heads): 0 where no token stands
};

template <class T>
class AttentionForward {
 public:
  AttentionForward(const Spans& queries, const Spans& keys, const Attended& call,
                   const AttentionInputs<T>& in, const AttentionOutputs<T>& out)
      : queries(queries), keys(keys), call(call), in(in), out(out), dropped(call),
        k(keys.starts.size() * call.heads), v(keys.starts.size() * call.value_heads()) {}

  void run(Index threads, const Parallel& parallel) {
    const Index rows = Index(keys.starts.size()), heads = call.heads;
    const Index workers = count_workers(queries, keys, call, threads);
    share(rows * heads, workers, parallel, [&](Index, Index n) { pack(n / heads, n % heads); });
    std::vector<Own> owns(workers);
    const auto parts = cut(queries, keys, PART);
    share(Index(parts.size()), workers, parallel, [&](Index worker, Index n) {
      const Part& part = parts[n];
      for (Index first = part.first; first < part.last; first += QUERIES)
        run_tile(part.row, first, std::min(QUERIES, part.last - first), owns[worker]);
    });
    for (Index row = 0; row <= rows; ++row) {
      queries.clear_before(row, out.out, call.value_heads() * call.value_size);
      queries.clear_before(row, out.lse, heads);
    }
  }

 private:
  static constexpr Index L = LANES<T>, PART = 4 * QUERIES;
  const Spans& queries;
  const Spans& keys;
  const Attended call;
  const AttentionInputs<T> in;
  const AttentionOutputs<T> out;
  const Dropped dropped;
  std::vector<Tokens2D<T>> k, v;  // of each row and head

  // What a worker has for itself.
  struct Own {
    std::vector<T> q;        // (QUERIES, size): scaled
    std::vector<T> weights;  // (QUERIES, keys): of a head
    std::vector<T> mixed;    // (QUERIES, keys): their mean over the heads
    std::vector<T> out;      // (QUERIES, columns)
  };

  void pack(Index row, Index head) {
    const Index start = keys.starts[row], count = keys.lengths[row], heads = call.value_heads();
    k[row * call.heads + head] = {in.k + (start * call.heads + head) * call.size,
                                  call.heads * call.size, count, call.size, false, true};
    if (head < heads)
      v[row * heads + head] = {in.v + (start * heads + head) * call.value_size,
                               heads * call.value_size, count, call.value_size, true, false};
  }

  void run_tile(Index row, Index first, Index count, Own& own) {
    const Index all = queries.lengths[row], heads = call.heads;
    const Index visible = call.count_visible(first + count - 1, all, keys.lengths[row]);
    const Index place = queries.starts[row] + first, pitch = pitch_of<T>(visible);
    own.weights.resize(QUERIES * pitch);
    own.mixed.assign(call.is_shared ? QUERIES * pitch : 0, T(0));
    for (Index head = 0; head < heads; ++head) {
      gather(in.q + (place * heads + head) * call.size, heads * call.size, count, call.size,
             T(call.scale * LOG2_E), own.q);
      k[row * heads + head].score(count, own.q.data(), visible, own.weights.data(), pitch);
      for (Index r = 0; r < count; ++r) {
        const Index seen = call.count_visible(first + r, all, keys.lengths[row]);
        T* weights = own.weights.data() + r * pitch;
        T* mixed = call.is_shared ? own.mixed.data() + r * pitch : weights;
        out.lse[(place + r) * heads + head] =
            call.dropout > 0 ? normalise<true>(weights, seen, pitch, mixed, dropped.query(row, head, first + r))
                             : normalise<false>(weights, seen, pitch, mixed, {});
      }
      if (!call.is_shared) mix(row, head, place, count, visible, own.weights, pitch, own.out);
    }
    if (call.is_shared) mix(row, 0, place, count, visible, own.mixed, pitch, own.out);
  }

  // Turn the scores of a query into its weights, and add them to `mixed` unless that is where they
  // stand. The log of the sum of the scores' exponentials.
  template <bool DROPS>
  T normalise(T* weights, Index seen, Index pitch, T* mixed, Dropped::Query query) const {
    std::fill(weights + seen, weights + pitch, -std::numeric_limits<T>::infinity());
    if (!seen) {
      std::fill_n(weights, pitch, T(0));
      return T(0);
    }
    Vec<T> highest = load(weights), sum{};
    for (Index j = L; j < pitch; j += L) {
      const Vec<T> score = load(weights + j);
      highest = score > highest ? score : highest;
    }
    T most = highest[0];
    for (Index lane = 1; lane < L; ++lane) most = std::max(most, highest[lane]);
    for (Index j = 0; j < pitch; j += L) {
      const Vec<T> power = exp2<T>(load(weights + j) - most);
      sum += power;
      store(weights + j, power);
    }
    const T total = add_lanes<T>(sum);
    const T factor = T((DROPS ? dropped.kept : 1.0) * call.value_share()) / total;
    const bool adds = mixed != weights;
    for (Index j = 0; j < pitch; j += L) {
      Vec<T> weight = load(weights + j) * factor;
      if (DROPS) weight = dropped.keeps<T>(query, j) ? weight : Vec<T>{};
      store(mixed + j, adds ? load(mixed + j) + weight : weight);
    }
    return (most + std::log2(total)) * T(LOG_2);
  }

  void mix(Index row, Index head, Index place, Index count, Index visible, const std::vector<T>& weights,
           Index pitch, std::vector<T>& mixed) const {
    const Index heads = call.value_heads();
    const Tokens2D<T>& values = v[row * heads + head];
    mixed.resize(QUERIES * round_up(call.value_size, L));
    values.mix(count, weights.data(), pitch, visible, mixed.data());
    for (Index r = 0; r < count; ++r)
      std::copy_n(&mixed[r * values.columns], call.value_size,
                  out.out + ((place + r) * heads + head) * call.value_size);
  }
};

}  // namespace ragged
