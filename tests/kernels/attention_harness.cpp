// Attention's kernels beside plain loops, over shapes past every boundary that they have, in both
// layouts: for sanitizers.
//
// Each array is of exactly the size that a call may touch. What is told goes to the standard error,
// and the status is 1.
#include "attention.cpp"

#include "harness.hpp"

struct Shape {
  Index batch, q_width, k_width, heads, size, value_size;
};

constexpr Index MOST_THREADS = 3;

struct Choice {
  Layout layout;
  bool is_shared, is_causal;
  Index diagonal;
  double dropout;
};

template <class T>
class Case {
 public:
  Case(Shape s, Choice choice)
      : s(s), choice(choice), call{s.heads,          s.size,          s.value_size,
                                   choice.is_shared, choice.is_causal, choice.diagonal,
                                   0.7,              choice.dropout,  0x123456789abcdefULL},
        of_q(drawn_lengths(s.q_width)), of_k(drawn_lengths(s.k_width)),
        queries(choice.layout, s.batch, s.q_width, places(of_q, s.q_width), of_q.data()),
        keys(choice.layout, s.batch, s.k_width, places(of_k, s.k_width), of_k.data()),
        q(drawn(queries, s.heads * s.size)), k(drawn(keys, s.heads * s.size)),
        v(drawn(keys, call.value_heads() * s.value_size)),
        dout(drawn(queries, call.value_heads() * s.value_size)) {}

  void check() {
    if (count_workers(queries, keys, call, MOST_THREADS) < LEAST_WORKERS) return;
    const Found one = run(1);
    expected();
    near(one.out, e_out, "result");
    near(one.q, e_q, "gradient of q");
    near(one.k, e_k, "gradient of k");
    near(one.v, e_v, "gradient of v");
    const Found more = run(MOST_THREADS);
    expect(one.out == more.out && one.q == more.q && one.k == more.k && one.v == more.v,
           "threads change results");
  }

 private:
  const Shape s;
  const Choice choice;
  const Attended call;
  const std::vector<Index> of_q, of_k;
  const Spans queries, keys;
  const std::vector<T> q, k, v, dout;
  Values e_out, e_q, e_k, e_v;

  struct Found {
    std::vector<T> out, lse, q, k, v;
  };

  std::vector<Index> drawn_lengths(Index width) const {
    std::vector<Index> lengths(s.batch);
    for (Index& length : lengths) length = any(width);
    if (s.batch > 1) lengths[0] = width, lengths[1] = 0;
    return lengths;
  }

  Index places(const std::vector<Index>& lengths, Index width) const {
    if (choice.layout == Layout::padded) return s.batch * width;
    return std::accumulate(lengths.begin(), lengths.end(), Index(3));
  }

  // Drawn tokens; padding is never read.
  static std::vector<T> drawn(const Spans& rows, Index features) {
    std::vector<T> values(rows.places * features, T(NAN));
    for (std::size_t row = 0; row < rows.starts.size(); ++row)
      for (Index n = 0; n < rows.lengths[row] * features; ++n)
        values[rows.starts[row] * features + n] = std::uniform_real_distribution<T>(-1, 1)(generator);
    return values;
  }

  Found run(Index threads) const {
    const auto empty = [](Index size) { return std::vector<T>(size, T(NAN)); };
    Found f{empty(Index(dout.size())), empty(queries.places * s.heads), empty(Index(q.size())),
            empty(Index(k.size())), empty(Index(v.size()))};
    const AttentionInputs<T> in{q.data(), k.data(), v.data()};
    AttentionForward<T>(queries, keys, call, in, {f.out.data(), f.lse.data()})
        .run(threads, {});
    AttentionBackward<T>(queries, keys, call, in, {f.lse.data(), dout.data()},
                         {f.q.data(), f.k.data(), f.v.data()})
        .run(threads, {});
    return f;
  }

  UNWATCHED void expected() {
    e_out.assign(dout.size(), 0), e_q.assign(q.size(), 0), e_k.assign(k.size(), 0), e_v.assign(v.size(), 0);
    for (Index row = 0; row < s.batch; ++row)
      for (Index head = 0; head < s.heads; ++head)
        for (Index i = 0; i < queries.lengths[row]; ++i) query(row, head, i);
  }

  UNWATCHED void query(Index row, Index head, Index i) {
    const Index value_heads = call.value_heads(), value_head = call.is_shared ? 0 : head;
    const Index at = ((queries.starts[row] + i) * s.heads + head) * s.size;
    const Index out_at = ((queries.starts[row] + i) * value_heads + value_head) * s.value_size;
    const auto k_at = [&](Index j) UNWATCHED { return ((keys.starts[row] + j) * s.heads + head) * s.size; };
    const auto v_at = [&](Index j) UNWATCHED {
      return ((keys.starts[row] + j) * value_heads + value_head) * s.value_size;
    };
    // Vectors' own operators are watched.
    const T *q = this->q.data(), *k = this->k.data(), *v = this->v.data(), *dout = this->dout.data();
    double *e_out = this->e_out.data(), *e_q = this->e_q.data(), *e_k = this->e_k.data(), *e_v = this->e_v.data();
    std::vector<Index> seen;
    for (Index j = 0; j < keys.lengths[row]; ++j)
      if (!call.is_causal || j - i <= keys.lengths[row] - queries.lengths[row] + call.diagonal)
        seen.push_back(j);
    Values weights(seen.size()), kept(seen.size()), dweights(seen.size());
    double total = 0, mean = 0;
    const Dropped dropped(call.dropout, call.seed);
    for (std::size_t n = 0; n < seen.size(); ++n) {
      double score = 0;
      for (Index c = 0; c < s.size; ++c) score += double(q[at + c]) * k[k_at(seen[n]) + c];
      total += weights[n] = std::exp(score * call.scale);
      const auto keeps = dropped.keeps<T>(dropped.query(row, head, i), seen[n]);
      kept[n] = call.dropout > 0 ? (keeps[0] ? 1 / (1 - call.dropout) : 0) : 1;
    }
    for (std::size_t n = 0; n < seen.size(); ++n) {
      weights[n] /= total;
      for (Index c = 0; c < s.value_size; ++c) {
        const double share = call.value_share() * kept[n];
        e_out[out_at + c] += share * weights[n] * v[v_at(seen[n]) + c];
        e_v[v_at(seen[n]) + c] += share * weights[n] * dout[out_at + c];
        dweights[n] += share * double(dout[out_at + c]) * v[v_at(seen[n]) + c];
      }
      mean += weights[n] * dweights[n];
    }
    for (std::size_t n = 0; n < seen.size(); ++n)
      for (Index c = 0; c < s.size; ++c) {
        const double dscore = weights[n] * (dweights[n] - mean) * call.scale;
        e_q[at + c] += dscore * k[k_at(seen[n]) + c];
        e_k[k_at(seen[n]) + c] += dscore * q[at + c];
      }
  }

  static void near(const std::vector<T>& found, const Values& expected, const char* what) {
    const double tolerance = sizeof(T) == 4 ? 1e-4 : 1e-11;
    for (std::size_t i = 0; i < found.size(); ++i)
      expect(std::abs(found[i] - expected[i]) <= tolerance * (1 + std::abs(expected[i])), what, Index(i));
  }
};

template <class T>
void check_shapes() {
  const Index L = LANES<T>, wide = VECTORS * L;
  const Shape shapes[] = {
      {0, 3, 2, 1, 2, 3}, {3, 0, 2, 2, 2, 3}, {3, 2, 0, 2, 2, 3}, {1, 1, 1, 1, 1, 1},
      {3, QUERIES + 1, wide + L + 1, 2, ROWS + 1, L + 1},  // past a tile, a panel and a vector
      {2, 520, 3, 1, 2, 1},                                // queries past a segment
      {4, 3, 5, 3, wide + 1, 2 * wide + 1},                // features past all vectors
      {12, 90, 95, 2, 8, 8},                               // enough work for threads
  };
  for (const Shape& shape : shapes)
    for (int k = 0; k < 4; ++k) {
      const bool odd = k & 1;
      Case<T>(shape, {odd ? Layout::jagged : Layout::padded, k > 1, odd, k - 2, k % 3 ? 0.0 : 0.4}).check();
    }
  for (int k = 0; k < 24; ++k) {
    const Shape shape{any(6), any(3 * QUERIES), any(2 * wide), 1 + any(3), 1 + any(2 * L), 1 + any(2 * L)};
    Case<T>(shape, {k % 2 ? Layout::jagged : Layout::padded, any(1) != 0, any(1) != 0, any(20) - 10,
                    any(1) ? 0.0 : 0.3}).check();
  }
}

// The calls that Python makes.
static Status call(const std::vector<Index>& lengths, Layout layout, Index width, Index places) {
  const Index rows = Index(lengths.size()), heads = 2, size = 8, features = heads * size;
  const Index sizes[] = {Index(layout), rows, width, places, width, places, heads, size, size, 0, 1, 0, 5, 2, 0};
  const double reals[] = {0.5, 0.1};
  std::vector<std::vector<REAL>> arrays(8, std::vector<REAL>(places * features, 0.5));
  std::vector<REAL> lse(places * heads);
  REAL* forward[] = {arrays[0].data(), arrays[1].data(), arrays[2].data(), arrays[3].data(), lse.data()};
  REAL* backward[] = {arrays[0].data(), arrays[1].data(), arrays[2].data(), lse.data(),
                       arrays[4].data(), arrays[5].data(), arrays[6].data(), arrays[7].data()};
  const Index* of_rows = lengths.data();
  const Status status = with_little_memory(
      [&] { return attention_forward(sizes, reals, of_rows, of_rows, forward, nullptr); });
  if (status != Status::done) return status;
  return with_little_memory(
      [&] { return attention_backward(sizes, reals, of_rows, of_rows, backward, nullptr); });
}

static void check_calls() {
  std::vector<Index> lengths(20, 5);
  for (Layout layout : {Layout::padded, Layout::jagged}) {
    expect(call(lengths, layout, 5, 100) == Status::done, "a call is done at last", Index(layout));
    expect(call(lengths, layout, 5, 99) == Status::bad_lengths, "no place for a token", Index(layout));
    for (Index wrong : {Index(-1), Index(6), Index(1) << 62}) {
      lengths[7] = wrong;
      expect(call(lengths, layout, 5, 100) == Status::bad_lengths, "a length", Index(layout));
    }
    lengths[7] = 5;
  }
}

int main() {
  check_shapes<REAL>();
  check_calls();
  return 0;
}
