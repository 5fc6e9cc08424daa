// The kernels' functions as custom calls of XLA's programs, whichever cell and dtype they are of.
#include "xla_threads.hpp"

using namespace ragged;

// As `recurrent.cpp`, `attention.cpp` and `gated.cpp` have them. They are compiled elsewhere: once for both
// backends.
using Recurrent = Status (*)(const Index*, const Index*, void* const*, const bool*, Team);
using Attention = Status (*)(const Index*, const double*, const Index*, const Index*, void* const*, Team);
using Gated = Status (*)(const Index*, double, void* const*, Team);
enum Pass : Index { FORWARD, BACKWARD };
constexpr Index CELLS = 4, OF_ATTENTION = 4, OF_GATED = 5, DTYPES = 2;
constexpr Index GATED_ARRAYS = 17;  // of what tokens have and networks learn
static void* functions[CELLS + 2][DTYPES][2];

// What Python loaded: the functions of a cell and a dtype.
extern "C" void bind_kernels(Index cell, Index dtype, void* forward, void* backward) {
  functions[cell][dtype][FORWARD] = forward;
  functions[cell][dtype][BACKWARD] = backward;
}

// A call's arrays, by their places.
class Arrays {
 public:
  Arrays(ffi::RemainingArgs args, ffi::RemainingRets rets) : args(args), rets(rets) {}

  std::size_t results() const { return rets.size(); }
  ffi::AnyBuffer get(std::size_t place) const { return *args.get<ffi::AnyBuffer>(place); }
  ffi::AnyBuffer last(std::size_t from_end) const { return get(args.size() - from_end); }
  ffi::Span<const std::int64_t> shape(std::size_t place) const { return get(place).dimensions(); }
  Index dtype() const { return get(0).element_type() == ffi::DataType::F64; }

  void* in(std::size_t place) const { return get(place).untyped_data(); }
  bool has(std::size_t place) const { return get(place).element_count(); }
  void* out(std::size_t place) const {
    auto array = *rets.get<ffi::AnyBuffer>(place);
    return array->element_count() ? array->untyped_data() : nullptr;
  }

 private:
  ffi::RemainingArgs args;
  ffi::RemainingRets rets;
};

static std::uint64_t seed(const ffi::AnyBuffer& words) {
  const auto* data = words.typed_data<std::uint32_t>();
  return data[0] | std::uint64_t(data[1]) << 32;
}

static std::vector<Index> widened(const ffi::AnyBuffer& lengths) {
  const auto* data = lengths.typed_data<std::int32_t>();
  return {data, data + lengths.element_count()};
}

// Call a function in the threads of a pool, if Python loaded one.
template <class Function, class Body>
static ffi::Error run(const char* name, void* function, ffi::ThreadPool& pool, Body&& body) {
  if (!function)
    return ffi::Error(ffi::ErrorCode::kFailedPrecondition,
                      std::string(name) + ": this process has not loaded the kernels that the program "
                      "calls. Trace a call of the layer first.");
  pool_of_call = &pool;
  Status status = Status::failed;
  const Status outside = guarded([&] { status = body(reinterpret_cast<Function>(function)); });
  return told(outside == Status::done ? status : outside, name);
}

// Arguments: x first, resets and lengths last, all else in the order of the structs. Of a cell without
// c, or that keeps nothing, or no y, those arrays are of no features; without resets, they have no elements.
template <Pass pass>
static ffi::Error recurrent(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                            Index cell, Index layout, Index width, bool reverse, bool to_initial) {
  const Arrays a(args, rets);
  void* function = 0 <= cell && cell < CELLS ? functions[cell][a.dtype()][pass] : nullptr;
  return run<Recurrent>("recurrent layer", function, pool, [&](Recurrent call) {
    const auto lengths = widened(a.last(1));
    const auto resets = a.last(2);
    // Padded x is (batch, time, inputs) or (time, batch, inputs), all else (tokens, inputs).
    const auto x = a.shape(0);
    const Index places = x.size() == 3 ? x[0] * x[1] : x[0];
    const Index sizes[] = {Index(lengths.size()), width, places, layout, reverse, x.back(), a.shape(1).back(),
                           places, pool.num_threads(), false, to_initial};
    std::vector<void*> arrays;
    for (std::size_t k = 0; k < (pass == FORWARD ? 7 : 5); ++k) arrays.push_back(a.in(k));
    if (pass == BACKWARD) {
      arrays.push_back(a.has(5) ? a.in(5) : nullptr);  // y
      for (std::size_t k = 6; k < 10; ++k) arrays.push_back(a.in(k));
      if (a.results() == 6) arrays.push_back(nullptr);  // x's gradient is not wanted
    }
    for (std::size_t k = 0; k < a.results(); ++k) arrays.push_back(a.out(k));
    const bool* at = resets.element_count() ? resets.typed_data<bool>() : nullptr;
    return call(sizes, lengths.data(), arrays.data(), at, in_pool);
  });
}

// Arguments: q, k, v, then in the order of the structs; the lengths of queries and of keys, and the
// seed's lower and upper word, last.
template <Pass pass>
static ffi::Error attention(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                            Index layout, Index q_width, Index k_width, bool causal, Index diagonal,
                            double scale, double dropout) {
  const Arrays a(args, rets);
  void* function = functions[OF_ATTENTION][a.dtype()][pass];
  return run<Attention>("attention", function, pool, [&](Attention call) {
    const auto q_lengths = widened(a.last(3)), k_lengths = widened(a.last(2));
    const auto q = a.shape(0), k = a.shape(1), v = a.shape(2);
    // Padded tokens are (batch, time, heads, size), all else (tokens, heads, size).
    const auto places = [](const auto& of) { return of.size() == 4 ? of[0] * of[1] : of[0]; };
    const Index sizes[] = {layout, Index(q_lengths.size()), q_width, places(q), k_width, places(k),
                           q[q.size() - 2], q.back(), v.back(), v.size() < q.size(), causal, diagonal,
                           Index(seed(a.last(1))), pool.num_threads(), false};
    const double reals[] = {scale, dropout};
    std::vector<void*> arrays;
    for (std::size_t n = 0; n < (pass == FORWARD ? 3 : 5); ++n) arrays.push_back(a.in(n));
    for (std::size_t n = 0; n < a.results(); ++n) arrays.push_back(a.out(n));
    return call(sizes, reals, q_lengths.data(), k_lengths.data(), arrays.data(), in_pool);
  });
}

// Arguments: those arrays of `gated.cpp` that there are, `present` has a bit for each; in the backward pass what is
// kept, without elements if nothing is, and the result's gradient; the seed's words last.
template <Pass pass>
static ffi::Error gated(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                        ffi::Span<const Index> sizes, Index present, double dropout) {
  const Arrays a(args, rets);
  return run<Gated>("gated residual network", functions[OF_GATED][a.dtype()][pass], pool, [&](Gated call) {
    std::vector<Index> all(sizes.begin(), sizes.end());
    all.insert(all.end(), {Index(seed(a.last(1))), pool.num_threads(), false});
    std::vector<void*> arrays, results;
    std::size_t count = 0;
    for (Index bit = 0; bit < GATED_ARRAYS; ++bit) {
      const bool is_there = present >> bit & 1;
      results.push_back(is_there && pass == BACKWARD ? a.out(count) : nullptr);
      arrays.push_back(is_there ? a.in(count++) : nullptr);
    }
    if (pass == FORWARD) {
      arrays.insert(arrays.end(), {a.out(0), a.results() > 1 ? a.out(1) : nullptr});
    } else {
      arrays.insert(arrays.end(), {a.in(count + 1), a.has(count) ? a.in(count) : nullptr});
      arrays.insert(arrays.end(), results.begin(), results.end());
    }
    return call(all.data(), dropout, arrays.data(), in_pool);
  });
}

#define ARRAYS ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()
#define RECURRENT                                                                              \
  ARRAYS.Attr<Index>("cell").Attr<Index>("layout").Attr<Index>("width").Attr<bool>("reverse") \
      .Attr<bool>("to_initial")
#define ATTENTION                                                                               \
  ARRAYS.Attr<Index>("layout").Attr<Index>("q_width").Attr<Index>("k_width").Attr<bool>("causal") \
      .Attr<Index>("diagonal").Attr<double>("scale").Attr<double>("dropout")
#define GATED_NETWORKS \
  ARRAYS.Attr<ffi::Span<const Index>>("sizes").Attr<Index>("present").Attr<double>("dropout")
XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrent_forward, recurrent<FORWARD>, RECURRENT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrent_backward, recurrent<BACKWARD>, RECURRENT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_forward, attention<FORWARD>, ATTENTION);
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_backward, attention<BACKWARD>, ATTENTION);
XLA_FFI_DEFINE_HANDLER_SYMBOL(gated_forward, gated<FORWARD>, GATED_NETWORKS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(gated_backward, gated<BACKWARD>, GATED_NETWORKS);
