// The kernels beside plain loops, over shapes past every boundary that they have: for sanitizers.
//
// Each array is of exactly the size that a call may touch. What is told goes to the standard error,
// and the status is 1.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "torch.cpp"

static std::atomic<Index> allocations_left{-1};  // negative: any number

void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  if (allocations_left == 0) return nullptr;
  if (allocations_left > 0) --allocations_left;
  return std::malloc(size ? size : 1);
}
void* operator new(std::size_t size) {
  if (void* found = operator new(size, std::nothrow)) return found;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

static std::mt19937 generator(0);

static Index any(Index most) { return Index(generator() % (most + 1)); }

static void expect(bool holds, const char* what, Index where = 0) {
  if (holds) return;
  std::fprintf(stderr, "%s (%ld)\n", what, long(where));
  std::exit(1);
}

template <class T>
std::vector<T> drawn(Index size) {
  std::vector<T> values(size);
  for (T& value : values) value = std::uniform_real_distribution<T>(-1, 1)(generator);
  return values;
}

template <class T>
void near(const std::vector<T>& found, const std::vector<double>& expected, const char* what) {
  const double tolerance = sizeof(T) == 4 ? 2e-4 : 1e-11;
  for (std::size_t i = 0; i < found.size(); ++i)
    expect(std::abs(found[i] - expected[i]) <= tolerance * (1 + std::abs(expected[i])), what, i);
}

struct Shape {
  Index batch, width, inputs, hidden;
};

// All arrays of a layer, and what plain loops make of them.
template <class T>
class Case {
 public:
  Case(Shape s, bool reverse, Index free, bool padded = false)
      : s(s), reverse(reverse), lengths(s.batch), x(drawn<T>(s.batch * s.width * s.inputs)),
        h0(drawn<T>(s.batch * s.hidden)), c0(drawn<T>(s.batch * s.hidden)),
        weight_ih(drawn<T>(4 * s.hidden * s.inputs)), weight_hh(drawn<T>(4 * s.hidden * s.hidden)),
        bias_ih(drawn<T>(4 * s.hidden)), bias_hh(drawn<T>(4 * s.hidden)),
        of_y(drawn<T>(s.batch * s.width * s.hidden)), of_h(drawn<T>(s.batch * s.hidden)),
        of_c(drawn<T>(s.batch * s.hidden)) {
    for (Index& length : lengths) length = any(s.width);
    if (s.batch > 1) lengths[0] = s.width, lengths[1] = 0;
    const T scale = T(1) / std::sqrt(T(s.hidden + s.inputs));
    for (auto* weights : {&weight_ih, &weight_hh})
      for (T& value : *weights) value *= scale;
    for (Index row = 0; row < s.batch; ++row)  // padding is never read
      for (Index step = lengths[row]; step < s.width; ++step) {
        std::fill_n(x.data() + at(row, step) * s.inputs, s.inputs, T(NAN));
        std::fill_n(of_y.data() + at(row, step) * s.hidden, s.hidden, T(NAN));
      }
    const Index tokens = std::accumulate(lengths.begin(), lengths.end(), Index(0));
    sizes = {s.batch, s.width, s.inputs, s.hidden, reverse, lengths.data(), tokens + free, padded};
    if (padded) sizes.room = s.batch * s.width;
  }

  void check(Index threads, bool keep, bool wants_x) {
    forward(threads, keep);
    const Index n = s.batch * s.hidden, tokens = sizes.tokens();
    std::vector<double> ey(y.size(), 0), eh(n), ec(n);
    std::vector<double> ex(x.size(), 0), eh0(n), ec0(n), eih(weight_ih.size()), ehh(weight_hh.size());
    std::vector<double> eb(4 * s.hidden);
    for (Index row = 0; row < s.batch; ++row) run_row(row, ey, eh, ec, ex, eh0, ec0, eih, ehh, eb);
    near(y, ey, "y");
    near(h, eh, "h");
    near(c, ec, "c");
    if (!keep) return;
    for (Index place = 0; place < sizes.room; ++place) {
      if (sizes.padded ? place % s.width < lengths[place / s.width] : place < tokens) continue;
      for (Index j = 0; j < s.hidden; ++j) expect(cells[place * s.hidden + j] == 0, "room", place);
      for (Index j = 0; j < 4 * s.hidden; ++j) expect(gates[place * 4 * s.hidden + j] == 0, "room", place);
    }
    std::vector<T> gx(wants_x ? x.size() : 0), gh(n), gc(n), gih(weight_ih.size()), ghh(weight_hh.size());
    std::vector<T> gb(4 * s.hidden);
    Backward<T>(sizes, inputs(), {y.data(), gates.data(), cells.data()},
                {of_y.data(), of_h.data(), of_c.data()},
                {wants_x ? gx.data() : nullptr, gh.data(), gc.data(), gih.data(), ghh.data(), gb.data()})
        .run(threads, in_threads(nullptr));
    near(gx, ex, "gradient of x");
    near(gh, eh0, "gradient of h0");
    near(gc, ec0, "gradient of c0");
    near(gih, eih, "gradient of weight_ih");
    near(ghh, ehh, "gradient of weight_hh");
    near(gb, eb, "gradient of the bias");
  }

 private:
  const Shape s;
  const bool reverse;
  std::vector<Index> lengths;
  std::vector<T> x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, of_y, of_h, of_c;
  std::vector<T> y, h, c, gates, cells;
  Sizes sizes;

  Index at(Index row, Index step) const { return row * s.width + step; }

  Inputs<T> inputs() const {
    return {x.data(), h0.data(), c0.data(), weight_ih.data(), weight_hh.data(), bias_ih.data(), bias_hh.data()};
  }

  void forward(Index threads, bool keep) {
    const Index n = s.batch * s.hidden, room = keep ? sizes.room : 0;
    y.assign(n * s.width, T(NAN)), h.assign(n, T(NAN)), c.assign(n, T(NAN));
    gates.assign(room * 4 * s.hidden, T(NAN)), cells.assign(room * s.hidden, T(NAN));
    Forward<T>(sizes, inputs(),
               {y.data(), h.data(), c.data(), room ? gates.data() : nullptr, cells.data()})
        .run(threads, in_threads(nullptr));
  }

  using Values = std::vector<double>;

  // A row's outputs and all that it adds to the gradients, as the equations say it.
  void run_row(Index row, Values& ey, Values& eh, Values& ec, Values& ex, Values& eh0, Values& ec0,
               Values& eih, Values& ehh, Values& eb) const {
    const Index length = lengths[row], hidden = s.hidden;
    std::vector<Values> hs(length + 1, Values(hidden)), cs = hs;
    std::vector<Values> gs(length, Values(4 * hidden));
    for (Index j = 0; j < hidden; ++j) hs[0][j] = h0[row * hidden + j], cs[0][j] = c0[row * hidden + j];
    for (Index step = 0; step < length; ++step) {
      const Index place = at(row, reverse ? length - 1 - step : step);
      for (Index k = 0; k < 4 * hidden; ++k) {
        double sum = double(bias_ih[k]) + bias_hh[k];
        for (Index i = 0; i < s.inputs; ++i) sum += double(weight_ih[k * s.inputs + i]) * x[place * s.inputs + i];
        for (Index j = 0; j < hidden; ++j) sum += double(weight_hh[k * hidden + j]) * hs[step][j];
        gs[step][k] = k / hidden == 2 ? std::tanh(sum) : 1 / (1 + std::exp(-sum));
      }
      for (Index j = 0; j < hidden; ++j) {
        const double *g = gs[step].data() + j, c = g[hidden] * cs[step][j] + g[0] * g[2 * hidden];
        cs[step + 1][j] = c;
        hs[step + 1][j] = ey[place * hidden + j] = g[3 * hidden] * std::tanh(c);
      }
    }
    Values dh(hidden), dc(hidden), da(4 * hidden);
    for (Index j = 0; j < hidden; ++j) {
      eh[row * hidden + j] = hs[length][j], ec[row * hidden + j] = cs[length][j];
      dh[j] = of_h[row * hidden + j], dc[j] = of_c[row * hidden + j];
    }
    for (Index step = length; step-- > 0;) {
      const Index place = at(row, reverse ? length - 1 - step : step);
      for (Index j = 0; j < hidden; ++j) {
        const double *g = gs[step].data() + j, i = g[0], f = g[hidden], u = g[2 * hidden], o = g[3 * hidden];
        const double t = std::tanh(cs[step + 1][j]), d = dh[j] + of_y[place * hidden + j];
        const double dcell = dc[j] + d * o * (1 - t * t);
        da[j] = dcell * u * i * (1 - i), da[hidden + j] = dcell * cs[step][j] * f * (1 - f);
        da[2 * hidden + j] = dcell * i * (1 - u * u), da[3 * hidden + j] = d * t * o * (1 - o);
        dc[j] = dcell * f, dh[j] = 0;
      }
      for (Index k = 0; k < 4 * hidden; ++k) {
        eb[k] += da[k];
        for (Index i = 0; i < s.inputs; ++i) {
          eih[k * s.inputs + i] += da[k] * x[place * s.inputs + i];
          ex[place * s.inputs + i] += da[k] * weight_ih[k * s.inputs + i];
        }
        for (Index j = 0; j < hidden; ++j) {
          ehh[k * hidden + j] += da[k] * hs[step][j];
          dh[j] += da[k] * weight_hh[k * hidden + j];
        }
      }
    }
    for (Index j = 0; j < hidden; ++j) eh0[row * hidden + j] = dh[j], ec0[row * hidden + j] = dc[j];
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
    for (int k = 0; k < 4; ++k) Case<T>(shape, k & 1, k & 2 ? 7 : 0, k & 2).check(1 + (k & 1), true, k != 2);
  for (int k = 0; k < 12; ++k) {
    const Shape shape{any(9), any(7), any(2 * LANES<T>), 1 + any(2 * wide)};
    Case<T>(shape, any(1), any(5), k & 1).check(1 + any(1), any(3), any(1));
  }
}

// A call of what Python calls, with as many allocations as are left.
static Status call_forward(const Index* lengths, Index rows, Index width, Index room) {
  const Index inputs = 8, hidden = 32, sizes[] = {rows, width, inputs, hidden, 0, 2, room};
  std::vector<float> in[] = {drawn<float>(rows * width * inputs), drawn<float>(rows * hidden),
                             drawn<float>(rows * hidden), drawn<float>(4 * hidden * inputs),
                             drawn<float>(4 * hidden * hidden), drawn<float>(4 * hidden),
                             drawn<float>(4 * hidden)};
  std::vector<float> out[] = {drawn<float>(rows * width * hidden), drawn<float>(rows * hidden),
                              drawn<float>(rows * hidden), drawn<float>(room * 4 * hidden),
                              drawn<float>(room * hidden)};
  float* arrays[12];
  for (int k = 0; k < 7; ++k) arrays[k] = in[k].data();
  for (int k = 0; k < 5; ++k) arrays[7 + k] = out[k].data();
  std::vector<float> given[] = {out[0], out[1], out[2]}, found[6];
  const std::size_t found_sizes[] = {in[0].size(), in[1].size(), in[2].size(), in[3].size(), in[4].size(), 128};
  for (int k = 0; k < 6; ++k) found[k].resize(found_sizes[k]);
  float* back[] = {arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], arrays[7], arrays[10], arrays[11],
                   given[0].data(), given[1].data(), given[2].data(), found[0].data(), found[1].data(),
                   found[2].data(), found[3].data(), found[4].data(), found[5].data()};
  Status status = Status::no_memory;
  Index failures = 0;
  for (; status == Status::no_memory && failures < 1000; ++failures) {
    allocations_left = failures;
    status = lstm_forward(sizes, lengths, arrays, nullptr);
    allocations_left = -1;
  }
  if (status != Status::done) return status;
  expect(failures > 3, "calls without memory that were told", failures);
  status = Status::no_memory;
  for (failures = 0; status == Status::no_memory && failures < 1000; ++failures) {
    allocations_left = failures;
    status = lstm_backward(sizes, lengths, back, nullptr);
    allocations_left = -1;
  }
  expect(failures > 3, "calls without memory that were told", failures);
  return status;
}

int main() {
  check_shapes<float>();
  check_shapes<double>();
  std::vector<Index> lengths(30, 5);
  expect(call_forward(lengths.data(), 30, 5, 150) == Status::done, "a call is done at last");
  expect(call_forward(lengths.data(), 30, 5, 149) == Status::bad_lengths, "no room for a token");
  for (Index wrong : {Index(-1), Index(6), Index(1) << 62}) {
    lengths[7] = wrong;
    expect(call_forward(lengths.data(), 30, 5, 150) == Status::bad_lengths, "a length", wrong);
  }
  return 0;
}
