"""Faults in the JAX backend; those of torch.py have the same names."""

from __future__ import annotations

from tests.mutants.mutant import fault
from tests.mutants.names import forecast, forward, lstm_gradients

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

BLOCKS = (
    fault(
        "bias of Linear forgotten",
        "ragged_jax.layers:Linear.__call__",
        " + spread(self.bias[...], y)",
        "",
        forecast("one layer-mixed"),
    ),
)

FAULTS = (*SCAN, *LAYER, *OPERATOR, *BLOCKS)
