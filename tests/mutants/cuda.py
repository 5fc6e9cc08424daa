"""Faults in the CUDA kernels: one library of a cell holds all, and one at a time is planted.

The host's threads run it: `tests/kernels/test_cuda_faults.py` has to see each.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.mutants.mutant import plant


class CudaFault(NamedTuple):
    """A mistake in the kernels' source.

    Args:
        name: what is wrong.
        file: a header beside `ragged/kernels/cuda/recurrent.cu`.
        old: an expression, or a statement with its semicolon, that stands there once.
        new: what takes its place.
        cell: whose kernels show it.
    """

    name: str
    file: str
    old: str
    new: str
    cell: str = "LSTM"

    def edit(self, text: str, number: int) -> str:
        """Let a source do the wrong thing where `planted` is this fault's number."""
        return plant(text, self.old, self.new, number, self.file)


FAULTS = (
    CudaFault(
        "tokens read one place too far",
        "slots.cuh",
        "rows.row_base[row] + rows.step_base[in_time(n)]",
        "rows.row_base[row] + rows.step_base[in_time(n)] + 1",
    ),
    CudaFault(
        "a reversed row read forwards",
        "slots.cuh",
        "rows.reverse ? length - 1 - n : n",
        "n",
    ),
    CudaFault(
        "a reset on the wrong side of a reversed step",
        "slots.cuh",
        "rows.reverse ? n - 1 : n",
        "n",
    ),
    CudaFault(
        "a row of length 0 takes a step",
        "forward.cuh",
        "if (slot.length) return fetch();",
        "return fetch();",
    ),
    CudaFault(
        "the gradient of a row of length 0 lost",
        "backward.cuh",
        "if (slot.length) return fetch(slot.step);\n      close_row();",
        "if (slot.length) return fetch(slot.step);",
    ),
    CudaFault(
        "a slot's last step not computed",
        "forward.cuh",
        "greatest_of_slots(slot.count_steps())",
        "greatest_of_slots(slot.count_steps()) - 1",
    ),
    CudaFault(
        "a slot's first step not differentiated",
        "backward.cuh",
        "greatest_of_slots(slot.count_steps())",
        "greatest_of_slots(slot.count_steps()) - 1",
    ),
    CudaFault(
        "products with the last tile of weights lost",
        "products.cuh",
        "w.x * factor.x + w.y * factor.y + w.z * factor.z + w.w * factor.w",
        "(q == QUADS - 1 ? 0 : w.x * factor.x + w.y * factor.y + w.z * factor.z + w.w * factor.w)",
    ),
    CudaFault(
        "the sums of a group's other half lost",
        "products.cuh",
        "sums[n] = (upper ? high : low) + exchange(upper ? low : high, half);",
        "sums[n] = (upper ? high : low) + 0 * exchange(upper ? low : high, half);",
    ),
    CudaFault(
        "the next row begins with the state before",
        "forward.cuh",
        "h = of_row(call.h0), c = of_row(call.c0);",
        "",
    ),
    CudaFault(
        "the gradient of the final c lost",
        "backward.cuh",
        "Cell::HAS_C ? of_row(call.dc) : 0.f",
        "0.f",
    ),
    CudaFault(
        "gradients go on beyond a reset",
        "backward.cuh",
        "dh = carry = 0;",
        "",
    ),
    CudaFault(
        "the initial state's gradient by resets lost",
        "backward.cuh",
        "if (call.rows.to_initial) add_to_initial();",
        "",
    ),
    CudaFault(
        "no state before the first step",
        "backward.cuh",
        "zeros ? 0.f : of_row(call.h0)",
        "0.f",
    ),
    CudaFault(
        "gates take each other's products with x",
        "forward.cuh",
        "Cell::x_gate(gate) * HIDDEN",
        "gate * HIDDEN",
        cell="GRU",
    ),
    CudaFault(
        "the bias of a gate taken from the next",
        "forward.cuh",
        "Cell::h_gate(gate) * HIDDEN + unit",
        "(gate + 1) % GATES * HIDDEN + unit",
        cell="GRU",
    ),
    CudaFault(
        "gradients of the products with x, not with h",
        "backward.cuh",
        "dsum[SUMS - GATES + gate]",
        "dsum[gate]",
        cell="GRU",
    ),
    CudaFault(
        "what a GRU holds of h has no gradient",
        "backward.cuh",
        "dh0 += Cell::HAS_C ? dh : dh + carry;",
        "dh0 += dh;",
        cell="GRU",
    ),
)
