// Both passes of a CUDA kernel once, with threads of the host that a sanitizer watches.
#include <cstdio>

#include "recurrent.cu"

using Cell = CELL<float>;

int main() {
  const int batch = 7, width = 5, places = batch * width;
  std::vector<int> row_base, step_base, lengths{3, 0, 5, 1, 3, 2, 0}, order{2, 0, 4, 5, 3, 1, 6};
  for (int row = 0; row < batch; ++row) row_base.push_back(row * width);
  for (int step = 0; step < width; ++step) step_base.push_back(step);
  const auto numbers = [](int count) { return std::vector<float>(count, 0.1f); };
  auto of_x = numbers(places * Cell::GATES * HIDDEN), weight_hh = numbers(Cell::GATES * HIDDEN * HIDDEN);
  auto bias = numbers(Cell::GATES * HIDDEN), kept = numbers(places * Cell::KEPT * HIDDEN);
  auto y = numbers(places * HIDDEN), dy = y, h_before = y, dsums = numbers(places * Cell::SUMS * HIDDEN);
  auto h0 = numbers(batch * HIDDEN), c0 = h0, h = h0, c = h0, dh = h0, dc = h0, dh0 = h0, dc0 = h0;
  const DeviceRows rows{row_base.data(), step_base.data(), lengths.data(), order.data(), nullptr, batch, 0, 0};
  const ForwardCall forward{rows, of_x.data(), h0.data(), c0.data(), weight_hh.data(), bias.data(),
                            y.data(), h.data(), c.data(), kept.data()};
  const BackwardCall backward{rows, weight_hh.data(), h0.data(), c0.data(), y.data(), kept.data(), dy.data(),
                              dh.data(), dc.data(), dsums.data(), h_before.data(), dh0.data(), dc0.data()};
  const std::size_t floats = 1 << 14;  // as much as either pass needs
  played::launch([&] { Forward<Cell>(forward).run(); }, 2, floats);
  played::launch([&] { Backward<Cell>(backward).run(); }, 2, floats);
  std::printf("%d\n", h[0] > 0 && dh0[0] != 0);
}
