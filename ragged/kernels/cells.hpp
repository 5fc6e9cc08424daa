// The cells: what a token makes of its products with the weights, and the gradients of that.
//
// The weights of a cell have GATES blocks of rows. Its SUMS are what it starts from: the first GATES
// of them take the products with x, the last GATES those with h before, and `x_gate`, `h_gate` say
// with which blocks. Where they take both, they are one sum. UNITS vectors of hidden units are
// computed together, so that their sums fill the registers.
//
//     forward   from the sums, h before and c before: h, c, and what is kept for the backward pass
//     backward  from what was kept and the gradient of h: the gradients of the sums. `carry` is what
//               reaches the token before other than by the weights: the gradient of c, or of h.
//     h         where the cell KEEPS_H: from what was kept
// The last two take what was kept after `activate`, which a token needs once.
#pragma once

#ifndef RAGGED_SCALAR  // a GPU's lane brings numbers of its own: cuda/scalar.cuh
#include "simd.hpp"
#endif

namespace ragged {

// i, f, g, o = split(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)
// c = sigmoid(f) * c + sigmoid(i) * tanh(g)
// h = sigmoid(o) * tanh(c)
template <class T>
struct LSTM {
  static constexpr int GATES = 4, SUMS = 4, KEPT = 5, UNITS = 1;
  static constexpr bool HAS_C = true, KEEPS_H = true;
  static constexpr int x_gate(int sum) { return sum; }
  static constexpr int h_gate(int sum) { return sum; }

  static Vec<T> forward(const Vec<T>* sum, Vec<T>, Vec<T>& c, Vec<T>* kept) {
    const Vec<T> i = sigmoid<T>(sum[0]), f = sigmoid<T>(sum[1]);
    const Vec<T> g = tanh<T>(sum[2]), o = sigmoid<T>(sum[3]);
    c = f * c + i * g;
    kept[0] = i, kept[1] = f, kept[2] = g, kept[3] = o, kept[4] = c;
    return o * tanh<T>(c);
  }

  static void activate(Vec<T>* kept) { kept[4] = tanh<T>(kept[4]); }
  static Vec<T> h(const Vec<T>* kept) { return kept[3] * kept[4]; }

  static void backward(const Vec<T>* kept, Vec<T>, Vec<T>, Vec<T> c_before, Vec<T> dh, Vec<T>& carry,
                       Vec<T>* dsum) {
    const Vec<T> i = kept[0], f = kept[1], g = kept[2], o = kept[3], tanh_c = kept[4];
    const Vec<T> dc = carry + dh * o * (T(1) - tanh_c * tanh_c);
    dsum[0] = dc * g * i * (T(1) - i);
    dsum[1] = dc * c_before * f * (T(1) - f);
    dsum[2] = dc * i * (T(1) - g * g);
    dsum[3] = dh * tanh_c * o * (T(1) - o);
    carry = dc * f;
  }
};

// r, z = sigmoid(split(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh))
// n = tanh(x @ weight_in.T + bias_in + r * (h @ weight_hn.T + bias_hn))
// h = (1 - z) * n + z * h
template <class T>
struct GRU {
  static constexpr int GATES = 3, SUMS = 4, KEPT = 4, UNITS = 1;
  static constexpr bool HAS_C = false, KEEPS_H = false;
  static constexpr int x_gate(int sum) { return sum == 0 ? 2 : sum - 1; }  // n, r, z
  static constexpr int h_gate(int sum) { return sum; }                     // r, z, n

  static Vec<T> forward(const Vec<T>* sum, Vec<T> h, Vec<T>&, Vec<T>* kept) {
    const Vec<T> r = sigmoid<T>(sum[1]), z = sigmoid<T>(sum[2]);
    const Vec<T> n = tanh<T>(sum[0] + r * sum[3]);
    kept[0] = r, kept[1] = z, kept[2] = n, kept[3] = sum[3];
    return (T(1) - z) * n + z * h;
  }

  static void activate(Vec<T>*) {}

  static void backward(const Vec<T>* kept, Vec<T>, Vec<T> h_before, Vec<T>, Vec<T> dh, Vec<T>& carry,
                       Vec<T>* dsum) {
    const Vec<T> r = kept[0], z = kept[1], n = kept[2], of_h = kept[3];
    dh += carry;
    dsum[0] = dh * (T(1) - z) * (T(1) - n * n);
    dsum[1] = dsum[0] * of_h * r * (T(1) - r);
    dsum[2] = dh * (h_before - n) * z * (T(1) - z);
    dsum[3] = dsum[0] * r;
    carry = dh * z;
  }
};

// h = activation(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)
template <class T, class Activation>
struct RNN {
  static constexpr int GATES = 1, SUMS = 1, KEPT = 0, UNITS = 4;
  static constexpr bool HAS_C = false, KEEPS_H = false;
  static constexpr int x_gate(int sum) { return sum; }
  static constexpr int h_gate(int sum) { return sum; }

  static Vec<T> forward(const Vec<T>* sum, Vec<T>, Vec<T>&, Vec<T>*) {
    return Activation::of(sum[0]);
  }

  static void activate(Vec<T>*) {}

  static void backward(const Vec<T>*, Vec<T> h, Vec<T>, Vec<T>, Vec<T> dh, Vec<T>&, Vec<T>* dsum) {
    dsum[0] = Activation::backward(h, dh);
  }
};

template <class T>
struct Tanh {
  static Vec<T> of(Vec<T> x) { return tanh<T>(x); }
  static Vec<T> backward(Vec<T> h, Vec<T> dh) { return dh * (T(1) - h * h); }
};

template <class T>
struct Relu {
  static Vec<T> of(Vec<T> x) { return x < T(0) ? Vec<T>{} : x; }  // NaN stays NaN
  static Vec<T> backward(Vec<T> h, Vec<T> dh) { return h > T(0) ? dh : Vec<T>{}; }
};

template <class T>
using RNN_TANH = RNN<T, Tanh<T>>;
template <class T>
using RNN_RELU = RNN<T, Relu<T>>;

}  // namespace ragged
