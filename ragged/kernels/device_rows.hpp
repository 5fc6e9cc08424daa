// The rows of a call on a GPU. `cuda/calls.py` has the same fields in the same order.
#pragma once

namespace ragged {

// A token stands at row_base[row] + step_base[step] of an array of places: the two tables hold any
// layout (padded, time-major, jagged, packed). All arrays lie on the device.
struct DeviceRows {
  const int *row_base;          // (batch,)
  const int *step_base;         // (width,)
  const int *lengths;           // (batch,)
  const int *order;             // (batch,): the rows, longest first
  const unsigned char *resets;  // (places,): not 0 where the state starts anew before a token; or null
  int batch;
  int reverse;                  // read each row from its last step back
  int to_initial;               // a reset goes to the row's initial state; else to zeros
};

}  // namespace ragged
