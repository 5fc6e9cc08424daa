"""Faults in the JAX backend; those of torch.py have the same names."""

from __future__ import annotations

from tests.mutants.mutant import fault
from tests.mutants.names import forecast, forward, lstm_gradients


def _without_kernels(cell: str) -> str:
    case = f"no kernels-both directions, no bias-{cell}"
    return f"recurrent/test_jax_cells.py::test_outputs_and_gradients_equal_a_loop[{case}]"


HELD = "(jnp.where(valid, new_h, h), jnp.where(valid, new_c, c))"

SCAN = (
    fault(
        "gates f and g swapped",
        "ragged_jax.recurrent.cells:LSTM.fwd",
        "i, f, g, o = _split",
        "i, g, f, o = _split",
        forward("mixed"),
    ),
    fault(
        "second bias forgotten",
        "ragged_jax.recurrent.scan:run_direction",
        "bias_ih + bias_hh, None",
        "bias_ih, None",
        forward("mixed"),
    ),
    fault(
        "projection forgotten",
        "ragged_jax.recurrent.scan:run_direction",
        'new_h @ weight["weight_hr"].T',
        "new_h[:, : h.shape[1]]",
        forward("mixed", "projection"),
    ),
    fault(
        "state after the last padded step",
        "ragged_jax.recurrent.scan:run_direction",
        HELD,
        "(new_h, new_c)",
        forward("mixed"),
    ),
    fault(
        "c fed with padding",
        "ragged_jax.recurrent.scan:run_direction",
        HELD,
        "(jnp.where(valid, new_h, h), new_c)",
        forward("mixed"),
    ),
    fault(
        "c forgotten at padding",
        "ragged_jax.recurrent.scan:run_direction",
        HELD,
        "(jnp.where(valid, new_h, h), jnp.where(valid, new_c, 0))",
        forward("mixed"),
    ),
    fault(
        "h after the last padded step",
        "ragged_jax.recurrent.scan:run_direction",
        HELD,
        "(new_h, jnp.where(valid, new_c, c))",
        forward("mixed"),
    ),
    fault(
        "empty row returns zeros for its state",
        "ragged_jax.recurrent.scan:run_direction",
        "y, *kept =",
        "h = jnp.where(lengths[:, None] > 0, h, 0); y, *kept =",
        forward("length 0"),
    ),
    fault(
        "output gate opens on the old c",
        "ragged_jax.recurrent.cells:LSTM.fwd",
        "c = f * c + i * g\n        return o * tanh(c), c",
        "old = c\n        c = f * c + i * g\n        return o * tanh(old), c",
        forward("mixed"),
    ),
)

LAYER = (
    fault(
        "outputs at padding not 0",
        "ragged_jax.recurrent.scan:run_direction",
        "(jnp.where(valid, _swap(each), 0)",
        "(_swap(each)",
        forward("mixed"),
    ),
    fault(
        "padding read",
        "ragged_jax.recurrent.scan:run_direction",
        "jnp.where(valid, x, 0).astype(dtype)",
        "x.astype(dtype)",
        lstm_gradients("one layer"),
    ),
    fault(
        "second direction reads forwards",
        "ragged_jax.recurrent.scan:run_direction",
        "reverse=reverse)\n    y",
        "reverse=False)\n    y",
        forward("mixed", "bidirectional"),
    ),
)

OPERATOR = (
    fault(
        "state of the other direction",
        "ragged_jax.recurrent.scan:run_directions",
        "*(part[k] for part in state)",
        "*(part[0] for part in state)",
        forward("mixed", "bidirectional"),
    ),
    fault(
        "kernels: second direction reads forwards",
        "ragged_jax.recurrent.cpp:run_direction",
        "lengths, resets, **options)",
        "lengths, resets, **{**options, 'reverse': False})",
        forward("mixed", "bidirectional"),
    ),
    fault(
        "operator: gradient of the second bias lost",
        "ragged_jax.recurrent.custom_op:_transpose",
        "    if not moving[0]:",
        "    of_inputs[-1] = 0 * of_inputs[-1]\n    if not moving[0]:",
        lstm_gradients("one layer"),
    ),
)

CELLS = (
    fault(
        "GRU's gates r and z swapped",
        "ragged_jax.recurrent.cells:GRU.fwd",
        "r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)",
        "z, r = sigmoid(x_r + h_r), sigmoid(x_z + h_z)",
        forward("mixed", cell="GRU"),
    ),
    fault(
        "GRU's candidate reset with its input",
        "ragged_jax.recurrent.cells:GRU.fwd",
        "tanh(x_n + r * h_n)",
        "tanh(r * (x_n + h_n))",
        forward("mixed", cell="GRU"),
    ),
)

# Kernels compute the gradients of the conformance suite.
WITHOUT_KERNELS = tuple(
    fault(name, f"ragged_jax.recurrent.cells:{equation}", old, new, _without_kernels(cell))
    for name, cell, equation, old, new in (
        (
            "gradient of z as if h were not held",
            "GRU",
            "GRU.partials",
            "(h_before - n) * z",
            "-n * z",
        ),
        ("gradient of h that a GRU holds lost", "GRU", "GRU.jvp", " + z * h, c", ", c"),
        ("slope of the RNN's tanh", "RNN_TANH", "TanhRNN.partials", "1 - h * h", "1 - h"),
        ("slope of relu below 0", "RNN_RELU", "ReluRNN.partials", "h > 0", "h > -1"),
    )
)

BLOCKS = (
    fault(
        "time-first outputs not turned back",
        "ragged.recurrent.call:validate_and_call",
        "swap(y, (1, 0, 2))",
        "y",
        "test_recurrent.py::test_time_first_is_the_same_turned[{backend}-LSTM]",
    ),
    fault(
        "bias of Linear forgotten",
        "ragged_jax.layers:Linear.__call__",
        " + spread(self.bias[...], y)",
        "",
        forecast("one layer-mixed"),
    ),
)

FAULTS = (*SCAN, *LAYER, *OPERATOR, *CELLS, *BLOCKS)
