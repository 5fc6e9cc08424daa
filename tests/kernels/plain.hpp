// Every cell in plain scalars, one hidden unit at a time, as its equations say it.
//
// `a` are a unit's products with x and bias_ih, `b` those with h before and bias_hh, one of each gate
// in the order of the weights; `da`, `db` are their gradients. `forward` turns h and c before into
// those after; `backward` turns the gradients of h and c after into what reaches those before
// directly, not by the weights.
#pragma once

#include <cmath>

namespace plain {

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct LSTM {
  static constexpr int GATES = 4, KEPT = 5;
  static constexpr bool HAS_C = true;

  static void forward(const double* a, const double* b, double& h, double& c) {
    c = sigmoid(a[1] + b[1]) * c + sigmoid(a[0] + b[0]) * std::tanh(a[2] + b[2]);
    h = sigmoid(a[3] + b[3]) * std::tanh(c);
  }

  static void backward(const double* a, const double* b, double h, double c, double& dh, double& dc,
                       double* da, double* db) {
    const double i = sigmoid(a[0] + b[0]), f = sigmoid(a[1] + b[1]);
    const double g = std::tanh(a[2] + b[2]), o = sigmoid(a[3] + b[3]), c_before = c;
    forward(a, b, h, c);
    const double t = std::tanh(c), of_cell = dc + dh * o * (1 - t * t);
    db[0] = da[0] = of_cell * g * i * (1 - i);
    db[1] = da[1] = of_cell * c_before * f * (1 - f);
    db[2] = da[2] = of_cell * i * (1 - g * g);
    db[3] = da[3] = dh * t * o * (1 - o);
    dc = of_cell * f, dh = 0;
  }
};

struct GRU {
  static constexpr int GATES = 3, KEPT = 4;
  static constexpr bool HAS_C = false;

  static void forward(const double* a, const double* b, double& h, double&) {
    const double r = sigmoid(a[0] + b[0]), z = sigmoid(a[1] + b[1]);
    h = (1 - z) * std::tanh(a[2] + r * b[2]) + z * h;
  }

  static void backward(const double* a, const double* b, double h, double, double& dh, double&,
                       double* da, double* db) {
    const double r = sigmoid(a[0] + b[0]), z = sigmoid(a[1] + b[1]), n = std::tanh(a[2] + r * b[2]);
    da[2] = dh * (1 - z) * (1 - n * n);
    db[2] = da[2] * r;
    db[0] = da[0] = da[2] * b[2] * r * (1 - r);
    db[1] = da[1] = dh * (h - n) * z * (1 - z);
    dh *= z;
  }
};

struct RNN_TANH {
  static constexpr int GATES = 1, KEPT = 0;
  static constexpr bool HAS_C = false;

  static void forward(const double* a, const double* b, double& h, double&) {
    h = std::tanh(a[0] + b[0]);
  }

  static void backward(const double* a, const double* b, double h, double c, double& dh, double&,
                       double* da, double* db) {
    forward(a, b, h, c);
    db[0] = da[0] = dh * (1 - h * h);
    dh = 0;
  }
};

struct RNN_RELU {
  static constexpr int GATES = 1, KEPT = 0;
  static constexpr bool HAS_C = false;

  static void forward(const double* a, const double* b, double& h, double&) {
    h = a[0] + b[0] > 0 ? a[0] + b[0] : 0;
  }

  static void backward(const double* a, const double* b, double, double, double& dh, double&,
                       double* da, double* db) {
    db[0] = da[0] = a[0] + b[0] > 0 ? dh : 0;
    dh = 0;
  }
};

}  // namespace plain
