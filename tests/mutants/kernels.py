"""Faults in the kernels' C++, in the skeleton that all cells share and in each cell."""

from __future__ import annotations

from tests.mutants.mutant import header_fault
from tests.mutants.names import forward, gradients

SKELETON = (
    header_fault(
        "kernels: gate o opened by tanh",
        "cells.hpp",
        "sigmoid<T>(sum[3])",
        "tanh<T>(sum[3])",
        forward("mixed"),
    ),
    header_fault(
        "kernels: c not kept from step to step",
        "forward.hpp",
        "if (Cell::HAS_C) store(side.c[r] + unit, c, count);",
        "",
        forward("mixed"),
    ),
    header_fault(
        "kernels: squares of weights not transposed",
        "simd.hpp",
        "transpose<T>(square);",
        "",
        forward("mixed"),
    ),
    header_fault(
        "kernels: second bias forgotten",
        "forward.hpp",
        "load(in.bias_hh + h, real)",
        "Vec<T>{}",
        forward("mixed"),
        forward("mixed", cell="GRU"),
        forward("mixed", cell="RNN_TANH"),
        forward("mixed", cell="RNN_RELU"),
    ),
    header_fault(
        "kernels: rows end a step early",
        "forward.hpp",
        "rows.length(tile[alive - 1]) <= step",
        "rows.length(tile[alive - 1]) <= step + 1",
        forward("mixed"),
    ),
    header_fault(
        "kernels: outputs at padding not 0",
        "rows.hpp",
        "std::fill_n(to, count * features, T(0))",
        "std::fill_n(to, count * features, T(1))",
        forward("mixed"),
    ),
    header_fault(
        "kernels: rows get each other's initial c",
        "forward.hpp",
        "states.start(in.c0, piece)",
        "in.c0",
        forward("mixed"),
    ),
    header_fault(
        "kernels: rows get each other's initial h",
        "forward.hpp",
        "states.start(in.h0, piece)",
        "in.h0",
        forward("length 0"),
        forward("mixed", cell="GRU"),
    ),
    header_fault(
        "kernels: gradient of the final c lost",
        "backward.hpp",
        "Cell::HAS_C ? states.end(given.c, tile[r]) : states.none()",
        "states.none()",
        gradients("one layer"),
    ),
    header_fault(
        "kernels: first step's c before not the initial one",
        "backward.hpp",
        "states.start(in.c0, piece)",
        "values + (KEPT - 1) * hidden",
        gradients("one layer"),
    ),
    header_fault(
        "kernels: an LSTM's h before is made of the token's own gates",
        "backward.hpp",
        "from.values_before + unit",
        "from.values + unit",
        gradients("one layer"),
    ),
    header_fault(
        "kernels: a row's last token reads the tanh of another c",
        "backward.hpp",
        "step + 1 == rows.length(piece)",
        "false",
        gradients("one layer"),
    ),
    header_fault(
        "kernels: gradient of x read forwards",
        "backward.hpp",
        "found.x + rows.place(tile[r], step) * sizes.inputs",
        "found.x + (tile[r] * rows.width + step) * sizes.inputs",
        gradients("bidirectional"),
    ),
    header_fault(
        "kernels: gradients of the biases swapped",
        "backward.hpp",
        "add(&Totals::bias, (H_SUMS + sum) * hidden, hidden, found.bias_hh + h_row);",
        "add(&Totals::bias, sum * hidden, hidden, found.bias_hh + x_row);",
        gradients(cell="GRU"),
    ),
)

CELLS = tuple(
    header_fault(f"kernels: {name}", "cells.hpp", old, new, *caught_by)
    for name, old, new, *caught_by in (
        (
            "GRU's gates r and z swapped",
            "return (T(1) - z) * n + z * h;",
            "return (T(1) - r) * tanh<T>(sum[0] + z * sum[3]) + r * h;",
            forward("mixed", cell="GRU"),
        ),
        (
            "GRU's candidate not reset",
            "tanh<T>(sum[0] + r * sum[3])",
            "tanh<T>(sum[0] + sum[3])",
            forward("mixed", cell="GRU"),
            forward("mixed", "no bias", "GRU"),
        ),
        (
            "GRU's candidate reset with its input",
            "tanh<T>(sum[0] + r * sum[3])",
            "tanh<T>(r * (sum[0] + sum[3]))",
            forward("mixed", cell="GRU"),
        ),
        (
            "GRU holds what it should renew",
            "return (T(1) - z) * n + z * h;",
            "return z * n + (T(1) - z) * h;",
            forward("mixed", cell="GRU"),
        ),
        (
            "gradient of h that a GRU holds lost",
            "carry = dh * z;",
            "carry = Vec<T>{};",
            gradients(cell="GRU"),
        ),
        (
            "gradient of h that a GRU holds taken anew",
            "dh += carry;",
            "",
            gradients(cell="GRU"),
        ),
        (
            "gradient of z as if h were not held",
            "dh * (h_before - n) * z * (T(1) - z)",
            "dh * (Vec<T>{} - n) * z * (T(1) - z)",
            gradients(cell="GRU"),
        ),
        (
            "gradient of r taken from the hidden unit",
            "dsum[0] * of_h * r * (T(1) - r)",
            "dsum[0] * h_before * r * (T(1) - r)",
            gradients(cell="GRU"),
        ),
        (
            "gradient of h's product not reset",
            "dsum[3] = dsum[0] * r;",
            "dsum[3] = dsum[0];",
            gradients(cell="GRU"),
        ),
        (
            "slope of the RNN's tanh",
            "return dh * (T(1) - h * h);",
            "return dh * (T(1) - h);",
            gradients(cell="RNN_TANH"),
        ),
        (
            "relu leaks",
            "return x < T(0) ? Vec<T>{} : x;",
            "return x < T(0) ? T(0.01) * x : x;",
            forward("mixed", cell="RNN_RELU"),
        ),
        (
            "slope of relu below 0",
            "return h > T(0) ? dh : Vec<T>{};",
            "return dh;",
            gradients(cell="RNN_RELU"),
        ),
        (
            "slope of relu lost",
            "return h > T(0) ? dh : Vec<T>{};",
            "return h > T(1) ? dh : Vec<T>{};",
            gradients(cell="RNN_RELU"),
        ),
    )
)
SUMS = (
    header_fault(
        "kernels: GRU's second bias of n added outside of r",
        "forward.hpp",
        "if (PARTS == 2) store(biases + (units * GATES + v) * L, of_h);",
        """const Vec<T> of_n = load(in.bias_hh + 2 * hidden + unit, real);
        if (PARTS == 2 && v == 0) store(biases, of_x + of_n);
        if (PARTS == 2) store(biases + (units * GATES + v) * L, gate == 2 ? Vec<T>{} : of_h);""",
        forward("mixed", cell="GRU"),
    ),
    header_fault(
        "kernels: sums of h's products with a GRU's gates moved by one",
        "forward.hpp",
        "sums[sum] += of_h[sum - FIRST];",
        "sums[sum] += of_h[sum];",
        forward("mixed", cell="GRU"),
    ),
)

FAULTS = (*SKELETON, *CELLS, *SUMS)
