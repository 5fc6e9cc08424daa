"""Faults in the torch backend; those of jax.py have the same names."""

from __future__ import annotations

from tests.mutants import kernels
from tests.mutants.mutant import fault
from tests.mutants.names import (
    forecast,
    forward,
    lstm_gradients,
    mapped_resets,
    recorded_resets,
    transformed,
)

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
        "ragged_torch.recurrent.torch_layer:call_torch",
        "[tensor for direction in weights for tensor in direction.values()]",
        "[torch.eye(*w.shape) if n == 'weight_hr' else w for d in weights for n, w in d.items()]",
        forward("mixed", "projection"),
    ),
    fault(
        "state after the last padded step",
        "ragged_torch.recurrent.padded:_with_hold",
        "(-HOLD, HOLD, 0.0, -HOLD)",
        "(0.0, 0.0, 0.0, 0.0)",
        forward("mixed"),
    ),
    fault(
        "c fed with padding",
        "ragged_torch.recurrent.padded:_with_hold",
        "(-HOLD, HOLD, 0.0, -HOLD)",
        "(0.0, HOLD, 0.0, -HOLD)",
        forward("mixed"),
    ),
    fault(
        "c forgotten at padding",
        "ragged_torch.recurrent.padded:_with_hold",
        "(-HOLD, HOLD, 0.0, -HOLD)",
        "(-HOLD, 0.0, 0.0, -HOLD)",
        forward("mixed"),
    ),
    fault(
        "h after the last padded step",
        "ragged_torch.recurrent.padded:_last",
        "(count - 1).clamp(0, y.shape[1] - 1)",
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
        "h0.index_select(1, rows)",
        "h0.index_select(1, rows.sort().values)",
        forward("mixed"),
    ),
    fault(
        "packed: empty row returns zeros for its state",
        "ragged_torch.recurrent.packed:run",
        "h0.index_copy",
        "torch.zeros_like(h0).index_copy",
        forward("length 0"),
    ),
    fault(
        "packed: directions' weights swapped",
        "ragged_torch.recurrent.torch_layer:call_torch",
        "for direction in weights for",
        "for direction in weights[::-1] for",
        forward("mixed", "bidirectional"),
    ),
)

KERNELS = (
    fault(
        "kernels: second direction reads forwards",
        "ragged_torch.recurrent.cpp:_call",
        "layout, call.reverse, features",
        "layout, 0, features",
        forward("mixed", "bidirectional"),
    ),
    fault(
        "kernels: gradient of the second bias lost",
        "ragged_torch.recurrent.cpp:_Layer.backward",
        "return (*found, None",
        "return (*found[:-1], 0 * found[-1], None",
        lstm_gradients("one layer"),
    ),
)

SCAN = (
    fault(
        "scan: relu's slope is 1 everywhere",
        "ragged_torch.recurrent.cells:_relu_fwd",
        ".relu()",
        "",
        forward("mixed", cell="RNN_RELU"),
    ),
    fault(
        "scan: a reversed row reset a step early",
        "ragged_torch.recurrent.scan:fresh_steps",
        "if reverse:",
        "if False:",
        mapped_resets("0-zeros"),
    ),
    fault(
        "scan: reset to zeros whatever is asked for",
        "ragged_torch.recurrent.scan:_initial",
        "(h0, c0) if",
        "(0.0, 0.0) if",
        mapped_resets("0-initial"),
    ),
    fault(
        "scan: a gradient goes on through a reset",
        "ragged_torch.recurrent.scan:vjp",
        "(torch.where(starts, 0.0, each)",
        "(each",
        mapped_resets("1-zeros"),
    ),
    fault(
        "scan: the gradient of what rows start anew from lost",
        "ragged_torch.recurrent.scan:vjp",
        "dh + of_initial[0]",
        "dh",
        mapped_resets("1-initial"),
    ),
    *(
        fault(f"scan: {name}", f"ragged_torch.recurrent.cells:{cell.lower()}", old, new, *caught_by)
        for name, cell, old, new, *caught_by in (
            (
                "GRU's gates r and z swapped",
                "_gru_fwd",
                "return ((1 - z) * n + z * before[0], before[1])",
                "return ((1 - r) * n + r * before[0], before[1])",
                transformed("func.functionalize", "GRU"),
            ),
            (
                "GRU's candidate reset with its input",
                "_gru_fwd",
                "n = (x_n + r * h_n).tanh()",
                "n = (r * (x_n + h_n)).tanh()",
                transformed("func.functionalize", "GRU"),
            ),
            (
                "tanh left out",
                "_tanh_fwd",
                ".tanh()",
                "",
                transformed("func.functionalize", "RNN_TANH"),
            ),
        )
    ),
)

OPERATOR = (
    fault(
        "operator: resets forgotten",
        "ragged_torch.recurrent.passes:kernels_forward",
        "count, at, call",
        "count, None, call",
        recorded_resets("zeros"),
    ),
    fault(
        "operator: reset to zeros whatever is asked for",
        "ragged_torch.recurrent.custom_op:recurrent_op",
        "train, at, start)",
        "train, at, 'zeros')",
        recorded_resets("initial"),
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

FAULTS = (*DENSE, *PACKED, *KERNELS, *kernels.FAULTS, *SCAN, *OPERATOR, *BLOCKS)
