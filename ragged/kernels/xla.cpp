// The kernels' functions as custom calls of XLA's programs, whichever cell and dtype they are of.
#include "xla_threads.hpp"

using namespace ragged;

// As `recurrent.cpp` and `attention.cpp` have them. They are compiled elsewhere: once for both backends.
using Recurrent = Status (*)(const Index*, const Index*, void* const*, const bool*, Team);
using Attention = Status (*)(const Index*, const double*, const Index*, const Index*, void* const*, Team);
enum Pass : Index { FORWARD, BACKWARD };
constexpr Index CELLS = 5, DTYPES = 2;  // attention is the last of the cells
static void* functions[CELLS][DTYPES][2];

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
  void* out(std::size_t place) const {
    auto array = *rets.get<ffi::AnyBuffer>(place);
    return array->element_count() ? array->untyped_data() : nullptr;
  }

 private:
  ffi::RemainingArgs args;
  ffi::RemainingRets rets;
};

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
// c, or that keeps nothing, those arrays are of no features; without resets, they have no elements.
template <Pass pass>
static ffi::Error recurrent(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                            Index cell, Index layout, Index width, bool reverse, bool to_initial) {
  const Arrays a(args, rets);
  void* function = 0 <= cell && cell < CELLS - 1 ? functions[cell][a.dtype()][pass] : nullptr;
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
      for (std::size_t k = 5; k < 10; ++k) arrays.push_back(a.in(k));
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
  void* function = functions[CELLS - 1][a.dtype()][pass];
  return run<Attention>("attention", function, pool, [&](Attention call) {
    const auto q_lengths = widened(a.last(3)), k_lengths = widened(a.last(2));
    const auto* words = a.last(1).typed_data<std::uint32_t>();
    const std::uint64_t seed = words[0] | std::uint64_t(words[1]) << 32;
    const auto q = a.shape(0), k = a.shape(1), v = a.shape(2);
    // Padded tokens are (batch, time, heads, size), all else (tokens, heads, size).
    const auto places = [](const auto& of) { return of.size() == 4 ? of[0] * of[1] : of[0]; };
    const Index sizes[] = {layout, Index(q_lengths.size()), q_width, places(q), k_width, places(k),
                           q[q.size() - 2], q.back(), v.back(), v.size() < q.size(), causal, diagonal,
                           Index(seed), pool.num_threads(), false};
    const double reals[] = {scale, dropout};
    std::vector<void*> arrays;
    for (std::size_t n = 0; n < (pass == FORWARD ? 3 : 5); ++n) arrays.push_back(a.in(n));
    for (std::size_t n = 0; n < a.results(); ++n) arrays.push_back(a.out(n));
    return call(sizes, reals, q_lengths.data(), k_lengths.data(), arrays.data(), in_pool);
  });
}

#define ARRAYS ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()
#define RECURRENT                                                                              \
  ARRAYS.Attr<Index>("cell").Attr<Index>("layout").Attr<Index>("width").Attr<bool>("reverse") \
      .Attr<bool>("to_initial")
#define ATTENTION                                                                               \
  ARRAYS.Attr<Index>("layout").Attr<Index>("q_width").Attr<Index>("k_width").Attr<bool>("causal") \
      .Attr<Index>("diagonal").Attr<double>("scale").Attr<double>("dropout")
XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrent_forward, recurrent<FORWARD>, RECURRENT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrent_backward, recurrent<BACKWARD>, RECURRENT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_forward, attention<FORWARD>, ATTENTION);
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_backward, attention<BACKWARD>, ATTENTION);
