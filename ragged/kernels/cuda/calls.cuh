// What the kernels are called with. `calls.py` has the same fields in the same order.
//
// All arrays lie on the device. `Stored` is how they are stored: float, Bfloat16 or Float16. Where a
// cell has no c, its arrays are null.
#pragma once

#include "../device_rows.hpp"
#include "scalar.cuh"

namespace ragged {

struct ForwardCall {
  DeviceRows rows;
  const STORED *of_x;       // (places, GATES * HIDDEN): x @ weight_ih.T + bias_ih
  const STORED *h0, *c0;    // (batch, HIDDEN)
  const STORED *weight_hh;  // (GATES * HIDDEN, HIDDEN)
  const STORED *bias_hh;    // (GATES * HIDDEN,)
  STORED *y;                // (places, HIDDEN); padding is not touched
  STORED *h, *c;            // (batch, HIDDEN), after each row's last step
  float *kept;              // (places, KEPT * HIDDEN), for the backward pass; or null
};

struct BackwardCall {
  DeviceRows rows;
  const STORED *weight_hh, *h0, *c0;  // of the forward pass
  const STORED *y;
  const float *kept;
  const STORED *dy;                   // (places, HIDDEN), not read at padding
  const STORED *dh, *dc;              // (batch, HIDDEN), of the states after the last step
  STORED *dsums;                      // (places, SUMS * HIDDEN), in the order of the sums
  STORED *h_before;                   // (places, HIDDEN); padding of neither is touched
  STORED *dh0, *dc0;                  // (batch, HIDDEN)
};

}  // namespace ragged
