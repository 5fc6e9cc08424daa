// The kernels of `attention.hpp` as custom calls of XLA's programs.
#include "attention_backward.hpp"
#include "xla_threads.hpp"

using namespace ragged;

// What a call is made with: q, k, v, then in the order of the structs; the lengths of queries and of
// keys, and the seed's lower and upper word, last.
class Call {
 public:
  Call(ffi::RemainingArgs args, ffi::RemainingRets rets, Index layout, Index q_width, Index k_width,
       bool causal, Index diagonal, double scale, double dropout)
      : args(args), rets(rets), queries(spans(Layout(layout), 0, 3, q_width)),
        keys(spans(Layout(layout), 1, 2, k_width)) {
    const auto of_q = shape(0), of_v = shape(2);
    const auto* seed = args.get<ffi::AnyBuffer>(args.size() - 1)->typed_data<std::uint32_t>();
    told = {of_q[of_q.size() - 2], of_q.back(), of_v.back(), of_v.size() < of_q.size(), causal, diagonal,
            scale, dropout, seed[0] | std::uint64_t(seed[1]) << 32};
  }

  REAL* in(std::size_t place) { return args.get<ffi::AnyBuffer>(place)->typed_data<REAL>(); }
  REAL* out(std::size_t place) {
    return (*rets.get<ffi::AnyBuffer>(place))->typed_data<REAL>();
  }

 private:
  ffi::RemainingArgs args;
  ffi::RemainingRets rets;

  ffi::Span<const std::int64_t> shape(std::size_t place) {
    return args.get<ffi::AnyBuffer>(place)->dimensions();
  }

  // Padded tokens are (batch, time, heads, size), all else (tokens, heads, size).
  Spans spans(Layout layout, std::size_t tokens, std::size_t from_last, Index width) {
    const auto given = *args.get<ffi::AnyBuffer>(args.size() - from_last);
    const auto* data = given.typed_data<std::int32_t>();
    const std::vector<Index> lengths(data, data + given.element_count());
    const auto sizes = shape(tokens);
    const Index places = sizes.size() == 4 ? sizes[0] * sizes[1] : sizes[0];
    return {layout, Index(lengths.size()), width, places, lengths.data()};
  }

 public:
  const Spans queries, keys;
  Attended told;
};

static ffi::Error forward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                          Index layout, Index q_width, Index k_width, bool causal, Index diagonal,
                          double scale, double dropout) {
  return told("attention", [&] {
    Call c(args, rets, layout, q_width, k_width, causal, diagonal, scale, dropout);
    AttentionForward<REAL>(c.queries, c.keys, c.told, {c.in(0), c.in(1), c.in(2)}, {c.out(0), c.out(1)})
        .run(pool.num_threads(), in_threads(pool));
  });
}

static ffi::Error backward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                           Index layout, Index q_width, Index k_width, bool causal, Index diagonal,
                           double scale, double dropout) {
  return told("attention", [&] {
    Call c(args, rets, layout, q_width, k_width, causal, diagonal, scale, dropout);
    AttentionBackward<REAL>(c.queries, c.keys, c.told, {c.in(0), c.in(1), c.in(2)}, {c.in(3), c.in(4)},
                            {c.out(0), c.out(1), c.out(2)})
        .run(pool.num_threads(), in_threads(pool));
  });
}

#define PASS                                                                                       \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()                          \
      .Attr<Index>("layout").Attr<Index>("q_width").Attr<Index>("k_width").Attr<bool>("causal")    \
      .Attr<Index>("diagonal").Attr<double>("scale").Attr<double>("dropout")
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_forward, forward, PASS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_backward, backward, PASS);
