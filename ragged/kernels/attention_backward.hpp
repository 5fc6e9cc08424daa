// The gradients of `attention_forward.hpp`: with w the weights that were not dropped, scaled up,
//
//     dv[j] = sum over i of w[i, j] * dout[i]              dw[i, j] = dout[i] . v[j]
//     ds[i, j] = w[i, j] * dw[i, j] - weights[i, j] * (sum over j of w[i, j] * dw[i, j])
//     dq[i] = scale * sum over j of ds[i, j] * k[j]        dk[j] = scale * sum over i of ds[i, j] * q[i]
//
// Heads that share their values share dw too. What queries add to the gradients of their row's keys
// is gathered over SEGMENT queries, whatever the number of workers, and added up in order.
#pragma once

#include "attention_forward.hpp"

namespace ragged {

template <class T>
struct AttentionKept {
  const T *lse, *dout;  // of the forward pass; the gradient of its result, not read at padding
};

template <class T>
struct AttentionGradients {
  T *q, *k, *v;  // 0 where no token stands
};

template <class T>
class AttentionBackward {
 public:
  AttentionBackward(const Spans& queries, const Spans& keys, const Attended& call,
                    const AttentionInputs<T>& in, const AttentionKept<T>& kept,
                    const AttentionGradients<T>& found)
      : queries(queries), keys(keys), call(call), in(in), kept(kept), found(found), dropped(call.dropout, call.seed),
        parts(cut(queries, keys, SEGMENT)), sums(parts.size()) {}

  void run(Index threads, const Parallel& parallel) {
    const Index rows = Index(keys.starts.size()), heads = call.heads;
    const Index workers = count_workers(queries, keys, call, threads);
    std::vector<Own> owns(workers);
    share(Index(parts.size()), workers, parallel, [&](Index worker, Index n) {
      const Part& part = parts[n];
      const bool is_whole = part.last - part.first == queries.lengths[part.row];
      Own& own = owns[worker];
      Sums& sum = is_whole ? own.sum : sums[n];
      const Index padded = round_up(keys.lengths[part.row], L);
      sum.k.assign(heads * call.size * padded, T(0));
      sum.v.assign(call.value_heads() * call.value_size * padded, T(0));
      own.row.read(keys, part.row, call, in.k, in.v);
      for (Index first = part.first; first < part.last; first += QUERIES)
        run_tile(part.row, first, std::min(QUERIES, part.last - first), sum, own);
      if (is_whole) collect(part.row, {&sum});
    });
    share(rows, workers, parallel, [&](Index, Index row) { collect_parts(row); });
    for (Index row = 0; row <= rows; ++row) {
      queries.clear_before(row, found.q, heads * call.size);
      keys.clear_before(row, found.k, heads * call.size);
      keys.clear_before(row, found.v, call.value_heads() * call.value_size);
    }
  }

 private:
  static constexpr Index L = LANES<T>, SEGMENT = 512;
  const Spans& queries;
  const Spans& keys;
  const Attended call;
  const AttentionInputs<T> in;
  const AttentionKept<T> kept;
  const AttentionGradients<T> found;
  const Dropped dropped;

  // What a part of a row's queries adds to the gradients of its keys and values, transposed.
  struct Sums {
    Numbers<T> k, v;  // (heads, size, keys)
  };
  const std::vector<Part> parts;
  std::vector<Sums> sums;  // of parts that are no whole rows

  // What a worker has for itself.
  struct Own {
    Row<T> row;
    Sums sum;                               // of a whole row
    Numbers<T> q, dout;                 // (QUERIES, size): scaled
    Numbers<T> weights, kept, dweights;  // (QUERIES, keys): of a head
    Numbers<T> mixed;                   // (QUERIES, keys): the sum of the heads' kept weights
    Numbers<T> dq;                      // (QUERIES, columns)
  };

  void run_tile(Index row, Index first, Index count, Sums& sum, Own& own) {
    const Index all = queries.lengths[row], of_row = keys.lengths[row], heads = call.heads;
    const Index visible = call.count_visible(first + count - 1, all, of_row);
    const Index place = queries.starts[row] + first, pitch = pitch_of<T>(visible);
    const auto seen = [&](Index r) { return call.count_visible(first + r, all, of_row); };
    own.weights.resize(QUERIES * pitch);
    own.dweights.resize(QUERIES * pitch);
    if (call.dropout > 0) own.kept.resize(QUERIES * pitch);
    if (call.is_shared) own.mixed.assign(QUERIES * pitch, T(0));
    own.dq.resize(QUERIES * round_up(call.size, L));
    Numbers<T>& kept_weights = call.dropout > 0 ? own.kept : own.weights;
    for (Index head = 0; head < heads; ++head) {
      if (!call.is_shared || !head) start_values(head, place, count, visible, pitch, seen, own);
      gather(in.q + (place * heads + head) * call.size, heads * call.size, count, call.size,
             T(call.scale * LOG2_E), own.q);
      const PackedTokens<T>& head_keys = own.row.k[head];
      head_keys.score(count, own.q.data(), visible, own.weights.data(), pitch);
      T means[QUERIES];
      for (Index r = 0; r < count; ++r) {
        const T lse = kept.lse[(place + r) * heads + head];
        means[r] = call.dropout > 0
                       ? weigh<true>(r, seen(r), pitch, lse, dropped.query(row, head, first + r), own)
                       : weigh<false>(r, seen(r), pitch, lse, {}, own);
      }
      if (!call.is_shared) add(own.dout, call.value_size, count, kept_weights, pitch, visible, sum.v, head, of_row);
      for (Index r = 0; r < count; ++r) {
        T* weights = own.weights.data() + r * pitch;
        const T* kept_row = kept_weights.data() + r * pitch;
        const T* dweights = own.dweights.data() + r * pitch;
        for (Index j = 0; j < pitch; j += L)
          store(weights + j, load(kept_row + j) * load(dweights + j) - load(weights + j) * means[r]);
      }
      add(own.q, call.size, count, own.weights, pitch, visible, sum.k, head, of_row);
      head_keys.mix(count, own.weights.data(), pitch, visible, own.dq.data());
      for (Index r = 0; r < count; ++r)
        for (Index n = 0; n < call.size; ++n)
          found.q[((place + r) * heads + head) * call.size + n] =
              own.dq[r * head_keys.columns + n] * T(call.scale);
    }
    if (call.is_shared) add(own.dout, call.value_size, count, own.mixed, pitch, visible, sum.v, 0, of_row);
  }

  // The gradients of the weights that mix a head's values.
  template <class Seen>
  void start_values(Index head, Index place, Index count, Index visible, Index pitch,
                    const Seen& seen, Own& own) const {
    const Index heads = call.value_heads();
    gather(kept.dout + (place * heads + head) * call.value_size, heads * call.value_size, count,
           call.value_size, T(call.value_share()), own.dout);
    own.row.v[head].score(count, own.dout.data(), visible, own.dweights.data(), pitch);
    for (Index r = 0; r < count; ++r) {
      T* of_query = own.dweights.data() + r * pitch;
      std::fill(of_query + seen(r), of_query + pitch, T(0));
    }
  }

  // Turn a query's scores into its weights, of which some are kept; the mean of their gradients.
  template <bool DROPS>
  T weigh(Index r, Index seen, Index pitch, T lse, Dropped::Query query, Own& own) const {
    T* weights = own.weights.data() + r * pitch;
    T* mixed = call.is_shared ? own.mixed.data() + r * pitch : nullptr;
    const T* dweights = own.dweights.data() + r * pitch;
    std::fill(weights + seen, weights + pitch, -std::numeric_limits<T>::infinity());
    const T scale = T(dropped.kept), power = lse * T(LOG2_E);
    Vec<T> mean{};
    for (Index j = 0; j < pitch; j += L) {
      Vec<T> weight = exp2<T>(load(weights + j) - power);
      store(weights + j, weight);
      if (DROPS) {
        weight = dropped.keeps<T>(query, j) ? weight * scale : Vec<T>{};
        store(own.kept.data() + r * pitch + j, weight);
      }
      if (mixed) store(mixed + j, load(mixed + j) + weight);
      mean += weight * load(dweights + j);
    }
    return add_lanes<T>(mean);
  }

  // sum[head] += tokens.T @ weights, over the queries of a tile.
  void add(const Numbers<T>& tokens, Index size, Index count, const Numbers<T>& weights,
           Index pitch, Index visible, Numbers<T>& sum, Index head, Index of_row) const {
    const Index padded = round_up(of_row, L);
    multiply<true>(size, round_up(visible, L) / L, count, tokens.data(), 1, size, weights.data(), pitch,
                   sum.data() + head * size * padded, padded);
  }

  // The gradients of a row's keys and values, where no worker has had the whole row.
  void collect_parts(Index row) const {
    std::vector<const Sums*> own;
    for (Index n = 0; n < Index(parts.size()); ++n)
      if (parts[n].row == row) own.push_back(&sums[n]);
    if (own.size() != 1) collect(row, own);
  }

  // Add up the gradients of a row's keys and values, of its parts in order.
  void collect(Index row, const std::vector<const Sums*>& own) const {
    collect(row, own, &Sums::k, call.heads, call.size, T(LOG_2), found.k);
    collect(row, own, &Sums::v, call.value_heads(), call.value_size, T(1), found.v);
  }

  void collect(Index row, const std::vector<const Sums*>& own, Numbers<T> Sums::* of, Index heads,
               Index size, T factor, T* to) const {
    const Index count = keys.lengths[row], padded = round_up(count, L), features = heads * size;
    to += keys.starts[row] * features;
    for (Index first = 0; first < count; first += L)
      for (Index feature = 0; feature < features; ++feature) {
        Vec<T> total{};
        for (const Sums* each : own) total += load((each->*of).data() + feature * padded + first);
        total *= factor;
        for (Index lane = 0; lane < std::min(L, count - first); ++lane)
          to[(first + lane) * features + feature] = total[lane];
      }
  }
};

}  // namespace ragged
