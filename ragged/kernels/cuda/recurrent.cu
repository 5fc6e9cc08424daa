// A pass of a cell as a kernel; the compiler is told which, and the sizes that `plans.py` chooses.
#include "backward.cuh"
#include "forward.cuh"

using namespace ragged;

KERNEL void recurrent(ARGUMENT PASS<CELL<float>>::Call call) { PASS<CELL<float>>(call).run(); }
