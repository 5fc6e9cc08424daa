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
      : queries(queries), keys(keys), call(call), in(in), out(out), dropped(call.dropout, call.seed) {}

  void run(Index threads, const Parallel& parallel) {
    const Index workers = count_workers(queries, keys, call, threads);
    std::vector<Own> owns(workers);
    const auto parts = cut(queries, keys, PART);
    share(Index(parts.size()), workers, parallel, [&](Index worker, Index n) {
      const Part& part = parts[n];
      owns[worker].row.read(keys, part.row, call, in.k, in.v);
      for (Index first = part.first; first < part.last; first += QUERIES)
        run_tile(part.row, first, std::min(QUERIES, part.last - first), owns[worker]);
    });
    for (Index row = 0; row <= Index(keys.starts.size()); ++row) {
      queries.clear_before(row, out.out, call.value_heads() * call.value_size);
      queries.clear_before(row, out.lse, call.heads);
    }
  }

 private:
  static constexpr Index L = LANES<T>, PART = 256;  // queries
  const Spans& queries;
  const Spans& keys;
  const Attended call;
  const AttentionInputs<T> in;
  const AttentionOutputs<T> out;
  const Dropped dropped;

  // What a worker has for itself.
  struct Own {
    Row<T> row;
    Numbers<T> q;        // (QUERIES, size): scaled
    Numbers<T> weights;  // (QUERIES, keys): of a head
    Numbers<T> mixed;    // (QUERIES, keys): their mean over the heads
    Numbers<T> out;      // (QUERIES, columns)
  };

  void run_tile(Index row, Index first, Index count, Own& own) {
    const Index all = queries.lengths[row], heads = call.heads;
    const Index visible = call.count_visible(first + count - 1, all, keys.lengths[row]);
    const Index place = queries.starts[row] + first, pitch = pitch_of<T>(visible);
    own.weights.resize(QUERIES * pitch);
    own.mixed.assign(call.is_shared ? QUERIES * pitch : 0, T(0));
    for (Index head = 0; head < heads; ++head) {
      gather(in.q + (place * heads + head) * call.size, heads * call.size, count, call.size,
             T(call.scale * LOG2_E), own.q);
      own.row.k[head].score(count, own.q.data(), visible, own.weights.data(), pitch);
      for (Index r = 0; r < count; ++r) {
        const Index seen = call.count_visible(first + r, all, keys.lengths[row]);
        T* weights = own.weights.data() + r * pitch;
        T* mixed = call.is_shared ? own.mixed.data() + r * pitch : weights;
        out.lse[(place + r) * heads + head] =
            call.dropout > 0 ? normalise<true>(weights, seen, pitch, mixed, dropped.query(row, head, first + r))
                             : normalise<false>(weights, seen, pitch, mixed, {});
      }
      if (!call.is_shared) mix(own.row.v[head], head, place, count, visible, own.weights, pitch, own.out);
    }
    if (call.is_shared) mix(own.row.v[0], 0, place, count, visible, own.mixed, pitch, own.out);
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

  void mix(const PackedTokens<T>& values, Index head, Index place, Index count, Index visible,
           const Numbers<T>& weights, Index pitch, Numbers<T>& mixed) const {
    const Index heads = call.value_heads();
    mixed.resize(QUERIES * round_up(call.value_size, L));
    values.mix(count, weights.data(), pitch, visible, mixed.data());
    for (Index r = 0; r < count; ++r)
      std::copy_n(&mixed[r * values.columns], call.value_size,
                  out.out + ((place + r) * heads + head) * call.value_size);
  }
};

}  // namespace ragged
