"""Faults in the torch backend; those of jax.py have the same names."""

from __future__ import annotations

from tests.mutants.mutant import fault, header_fault
from tests.mutants.names import forecast, forward, lstm_gradients

UNPACKED = "steps, h0, c0, *weights, train = inputs"
SWAPPED = f"""{UNPACKED}
        weights = [
            w.unflatten(0, (4, -1))[[0, 2, 1, 3]].flatten(0, 1) for w in weights
        ]"""

DENSE = (
    fault(
        "gates f and g swapped",
        "ragged_torch.recurrent.padded:_Layer.forward",
        UNPACKED,
        SWAPPED,
        forward("mixed"),
    ),
    fault(
        "second bias forgotten",
        "ragged_torch.recurrent.padded:_run_onednn",
        "*(weights.get(name, zeros) for name in WEIGHTS))",
        "*(weights.get(name, zeros) for name in WEIGHTS[:3]), zeros)",
        forward("mixed"),
    ),
    fault(
        "projection forgotten",
        "ragged_torch.recurrent.padded:_run_dense",
        "list(weights.values()),",
        "[torch.eye(*w.shape) if own == 'weight_hr' else w for own, w in weights.items()],",
        forward("mixed", "projection"),
    ),
    fault(
        "state after the last padded step",
        "ragged_torch.recurrent.padded:_with_hold",
        "[-HOLD, HOLD, 0.0, -HOLD]",
        "[0.0, 0.0, 0.0, 0.0]",
        forward("mixed"),
    ),
    fault(
        "c fed with padding",
        "ragged_torch.recurrent.padded:_with_hold",
        "[-HOLD, HOLD, 0.0, -HOLD]",
        "[0.0, HOLD, 0.0, -HOLD]",
        forward("mixed"),
    ),
    fault(
        "c forgotten at padding",
        "ragged_torch.recurrent.padded:_with_hold",
        "[-HOLD, HOLD, 0.0, -HOLD]",
        "[-HOLD, 0.0, 0.0, -HOLD]",
        forward("mixed"),
    ),
    fault(
        "h after the last padded step",
        "ragged_torch.recurrent.padded:_last",
        "(count - 1).clamp(min=0)",
        "torch.full_like(count, y.shape[1] - 1)",
        forward("mixed"),
    ),
    fault(
        "empty row returns zeros for its state",
        "ragged_torch.recurrent.padded:_last",
        "found, h0)",
        "found, torch.zeros_like(h0))",
        forward("length 0"),
    ),
    fault(
        "padding read",
        "ragged_torch.recurrent.scan:read_steps",
        "else zero_padding(backend, x, lengths)",
        "else x",
        forward("mixed"),
        lstm_gradients("one layer"),
    ),
    fault(
        "second direction reads forwards",
        "ragged_torch.recurrent.padded:run_layer",
        "steps = read_steps(x, lengths, reverse)",
        "steps = read_steps(x, lengths, False)",
        forward("mixed", "bidirectional"),
    ),
    fault(
        "second direction's outputs not turned back",
        "ragged_torch.recurrent.padded:run_layer",
        "return read_steps(y, lengths, reverse), h, c",
        "return read_steps(y, lengths, False), h, c",
        forward("mixed", "bidirectional"),
    ),
    fault(
        "gradient of the final c lost",
        "ragged_torch.recurrent.padded:_Layer.backward",
        "_states(torch.zeros_like(grad_c), grad_c)",
        "_states(torch.zeros_like(grad_c), 0 * grad_c)",
        lstm_gradients("one layer"),
    ),
    fault(
        "gradient of the initial h lost",
        "ragged_torch.recurrent.padded:_Layer.backward",
        "of_h[0], of_c[0],",
        "0 * of_h[0], of_c[0],",
        lstm_gradients("one layer"),
    ),
    fault(
        "gradient of the second bias lost",
        "ragged_torch.recurrent.padded:_Layer.backward",
        "of_bias, of_other_bias)",
        "of_bias, 0 * of_other_bias)",
        lstm_gradients("one layer"),
    ),
)

PACKED = (
    fault(
        "packed rows get each other's state",
        "ragged_torch.recurrent.packed:run",
        "order.rows[order.sorted_indices]",
        "order.rows",
        forward("mixed"),
    ),
    fault(
        "packed: empty row returns zeros for its state",
        "ragged_torch.recurrent.packed:run",
        "state[0].index_copy",
        "torch.zeros_like(state[0]).index_copy",
        forward("length 0"),
    ),
    fault(
        "packed: directions' weights swapped",
        "ragged_torch.recurrent.packed:run",
        "for direction in weights for",
        "for direction in weights[::-1] for",
        forward("mixed", "bidirectional"),
    ),
)

KERNELS = (
    fault(
        "kernels: second direction reads forwards",
        "ragged_torch.recurrent.cpp:_call",
        "int(reverse)",
        "0",
        forward("mixed", "bidirectional"),
    ),
    fault(
        "kernels: gradient of the second bias lost",
        "ragged_torch.recurrent.cpp:_Layer.backward",
        "(*found, found[-1].clone(),",
        "(*found, 0 * found[-1],",
        lstm_gradients("one layer"),
    ),
    header_fault(
        "kernels: gate o opened by tanh",
        "lstm.hpp",
        "o = sigmoid<T>(sums[r][3])",
        "o = tanh<T>(sums[r][3])",
        forward("mixed"),
    ),
    header_fault(
        "kernels: second bias forgotten",
        "lstm.hpp",
        "in.bias_ih[row] + in.bias_hh[row]",
        "in.bias_ih[row]",
        forward("mixed"),
    ),
    header_fault(
        "kernels: rows end a step early",
        "lstm.hpp",
        "sizes.lengths[rows[alive - 1]] <= step",
        "sizes.lengths[rows[alive - 1]] <= step + 1",
        forward("mixed"),
    ),
    header_fault(
        "kernels: outputs at padding not 0",
        "memory.hpp",
        "std::fill(from, to, T(0))",
        "std::fill(from, to, T(1))",
        forward("mixed"),
    ),
    header_fault(
        "kernels: rows get each other's initial c",
        "lstm.hpp",
        "in.c0 + row * hidden, hidden",
        "in.c0, hidden",
        forward("mixed"),
    ),
    header_fault(
        "kernels: empty row returns zeros for its state",
        "lstm.hpp",
        ": in.h0 + row * sizes.hidden",
        ": out.y + row * sizes.width * sizes.hidden",
        forward("length 0"),
    ),
    header_fault(
        "kernels: gradient of the final c lost",
        "lstm_backward.hpp",
        "std::copy_n(given.c + rows[r] * hidden, hidden, &own.of_cell[r * hidden])",
        "std::fill_n(&own.of_cell[r * hidden], hidden, T(0))",
        lstm_gradients("one layer"),
    ),
    header_fault(
        "kernels: first step's c before not the initial one",
        "lstm_backward.hpp",
        "step ? kept.cells + token(row, step - 1) * hidden : in.c0 + row * hidden",
        "step ? kept.cells + token(row, step - 1) * hidden : c",
        lstm_gradients("one layer"),
    ),
    header_fault(
        "kernels: gradient of x read forwards",
        "lstm_backward.hpp",
        "found.x + sizes.place(rows[r], step) * inputs",
        "found.x + (rows[r] * sizes.width + step) * inputs",
        lstm_gradients("bidirectional"),
    ),
)

BLOCKS = (
    fault(
        "bias of Linear forgotten",
        "ragged_torch.layers:Linear.forward",
        "self.weight, self.bias)",
        "self.weight)",
        forecast("one layer-mixed"),
    ),
)

FAULTS = (*DENSE, *PACKED, *KERNELS, *BLOCKS)
