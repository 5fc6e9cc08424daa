// The kernels of `ragged/kernels` as custom calls of XLA's programs.
#include "backward.hpp"
#include "xla_threads.hpp"

using namespace ragged;

// What a call is made with: x first, resets and lengths last, all else in the order of the structs.
// Of a cell without c, or that keeps nothing, those arrays are of no features; without resets, they
// have no elements.
class Call {
 public:
  Call(ffi::RemainingArgs args, ffi::RemainingRets rets, Index layout, Index width, bool reverse,
       bool to_initial)
      : args(args), rets(rets), lengths(read_lengths()),
        rows(rows_of(Layout(layout), width, reverse, to_initial)) {
    sizes = {shape(0).back(), shape(1).back(), rows.places, true};
  }

  const REAL* in(std::size_t place) { return args.get<ffi::AnyBuffer>(place)->typed_data<REAL>(); }

  REAL* out(std::size_t place) {
    auto array = *rets.get<ffi::AnyBuffer>(place);
    return array->element_count() ? array->typed_data<REAL>() : nullptr;
  }

 private:
  ffi::RemainingArgs args;
  ffi::RemainingRets rets;
  const std::vector<Index> lengths;

  ffi::Span<const std::int64_t> shape(std::size_t place) {
    return args.get<ffi::AnyBuffer>(place)->dimensions();
  }

  std::vector<Index> read_lengths() {
    const auto given = *args.get<ffi::AnyBuffer>(args.size() - 1);
    const auto* data = given.typed_data<std::int32_t>();
    return {data, data + given.element_count()};
  }

  // Padded x is (batch, time, inputs) or (time, batch, inputs), all else (tokens, inputs).
  Rows rows_of(Layout layout, Index width, bool reverse, bool to_initial) {
    const auto of_x = shape(0);
    const auto resets = *args.get<ffi::AnyBuffer>(args.size() - 2);
    const bool* at = resets.element_count() ? resets.typed_data<bool>() : nullptr;
    const Index places = of_x.size() == 3 ? of_x[0] * of_x[1] : of_x[0];
    return {layout, Index(lengths.size()), width, places, reverse, lengths.data(), {at, to_initial}};
  }

 public:
  const Rows rows;
  Sizes sizes;
};

static ffi::Error forward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                          Index layout, Index width, bool reverse, bool to_initial) {
  return told("recurrent layer", [&] {
    Call c(args, rets, layout, width, reverse, to_initial);
    Forward<REAL, CELL>(c.rows, c.sizes,
                        {c.in(0), c.in(1), c.in(2), c.in(3), c.in(4), c.in(5), c.in(6)},
                        {c.out(0), c.out(1), c.out(2), c.out(3)})
        .run(pool.num_threads(), in_threads(pool));
  });
}

static ffi::Error backward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                           Index layout, Index width, bool reverse, bool to_initial) {
  return told("recurrent layer", [&] {
    Call c(args, rets, layout, width, reverse, to_initial);
    const std::size_t x = rets.size() - 6;  // 0 if x's gradient is not wanted
    Backward<REAL, CELL>(c.rows, c.sizes,
                         {c.in(0), c.in(1), c.in(2), c.in(3), c.in(4), nullptr, nullptr},
                         {c.in(5), c.in(6)}, {c.in(7), c.in(8), c.in(9)},
                         {x ? c.out(0) : nullptr, c.out(x), c.out(x + 1), c.out(x + 2),
                          c.out(x + 3), c.out(x + 4), c.out(x + 5)})
        .run(pool.num_threads(), in_threads(pool));
  });
}

#define PASS                                                                      \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()        \
      .Attr<Index>("layout").Attr<Index>("width").Attr<bool>("reverse").Attr<bool>("to_initial")
XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrent_forward, forward, PASS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrent_backward, backward, PASS);
