// The kernels of gated residual networks over shapes past every boundary that they have: for sanitizers. Their
// numbers are proven beside plain operations; here neither threads nor what is kept may change them.
//
// Each array is of exactly the size that a call may touch. What is told goes to the standard error,
// and the status is 1.
#include "gated.cpp"

#include "harness.hpp"

using Array = std::vector<REAL>;

// What tokens have beside x; one network has no weights.
struct Others {
  bool weights, added, residual;
};

// What a forward pass keeps; it may have been another one's, which leaves zeros.
enum class Keeps { nothing, all, zeros };

class Case {
 public:
  Case(Gated call, Others others) : call(call) {
    const Index tokens = call.tokens;
    Index each[ARRAYS];
    for (int n = 0; n < ARRAYS; ++n) each[n] = places(call)[n].each;
    given.push_back(drawn(call.pitch() * tokens));
    given.push_back(drawn(others.weights ? tokens * call.features : 0));
    given.push_back(drawn(others.added ? tokens * call.hidden : 0));
    given.push_back(drawn(others.residual ? tokens * call.size : 0));
    for (Index size : each) given.push_back(drawn(call.features * size));
    dout = drawn(tokens * call.size);
  }

  void check() {
    expect(run(1, Keeps::nothing) == Status::done, "one thread");
    const std::vector<Array> alone = found;
    for (Keeps keeps : {Keeps::all, Keeps::zeros}) {
      expect(run(3, keeps) == Status::done, "three threads");
      expect(alone == found, "threads, or what is kept, change results", call.tokens);
    }
    for (const Array& each : found)
      for (REAL value : each) expect(std::isfinite(value), "a number that was not written", call.tokens);
  }

  Status starve() {
    return with_little_memory([&] { return run(2, Keeps::nothing); });
  }

 private:
  const Gated call;
  std::vector<Array> given, found;  // the result and the gradients
  Array dout;

  static Array drawn(Index size) {
    Array values(size);
    for (REAL& value : values) value = std::uniform_real_distribution<REAL>(-1, 1)(generator);
    return values;
  }

  static REAL* address(Array& array) { return array.empty() ? nullptr : array.data(); }

  // As many numbers as these processors' vectors take.
  Array room() const {
    const Index lanes = LANES<REAL>, wide = round_up(call.size, lanes);
    const Index each = 2 * wide + (call.hidden ? wide + round_up(call.hidden, lanes) : 0);
    return Array(call.features == 1 ? call.tokens * each + 1 : 0, REAL(0));
  }

  Status run(Index threads, Keeps keeps) {
    const Index sizes[] = {call.features, call.tokens,  call.inputs, call.hidden, call.size, call.stretched,
                           call.numbers,  call.softmax, 5,           threads,     0};
    const Index left = allocations_left.exchange(-1);
    std::vector<REAL*> all, back;
    Array kept = keeps == Keeps::nothing ? Array() : room();
    found.assign(1, Array(dout.size(), REAL(NAN)));
    for (Array& each : given) all.push_back(address(each)), found.push_back(Array(each.size(), REAL(NAN)));
    back = all;
    all.insert(all.end(), {found[0].data(), keeps == Keeps::all ? address(kept) : nullptr});
    back.insert(back.end(), {dout.data(), address(kept)});
    for (std::size_t n = 1; n < found.size(); ++n) back.push_back(address(found[n]));
    allocations_left = left;
    const Status status = gated_forward(sizes, call.dropout, all.data(), nullptr);
    return status == Status::done ? gated_backward(sizes, call.dropout, back.data(), nullptr) : status;
  }
};

int main() {
  const Others nothing{false, false, false}, selected{true, false, false}, added{false, true, true};
  for (Index tokens : {1, 2, 47, 48, 49, 193})
    for (Index size : {1, 3, 8, 17, 40}) {
      const double dropout = any(1) ? 0.3 : 0.0;
      Case({1 + any(3), tokens, 1 + any(9), 1 + any(9), size, true, dropout, 5}, selected).check();
      Case({1, tokens, 1 + any(9), 1 + any(9), size, false, dropout, 5}, added).check();
      Case({1, tokens, size, 1 + any(9), size, false, dropout, 5}, nothing).check();
      Case({1, tokens, size, 0, size, false, dropout, 5}, {false, false, true}).check();
      const Index features = 1 + any(9), width = 1 + any(9);
      Case({features, tokens, width, 1 + any(9), size, true, dropout, 5, 1}, selected).check();
      Case({1, tokens, size * width, 1 + any(9), size, true, dropout, 5, size, true}, {false, true, false}).check();
    }
  Case({2, 4100, 3, 2, 16, true, 0.1, 5}, selected).check();  // more than a segment
  Case({1, 4100, 16, 0, 16, false, 0.1, 5}, nothing).check();
  expect(Case({3, 100, 3, 2, 8, true, 0.1, 5}, selected).starve() == Status::done, "a call is done at last");
  return 0;
}
