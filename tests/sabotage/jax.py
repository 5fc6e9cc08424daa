"""Faults in the JAX backend; those of torch.py have the same names."""

from __future__ import annotations

from tests.sabotage.faults import fault
from tests.sabotage.names import forecast, forward, lstm_gradients

HELD = "(jnp.where(valid, new_h, h), jnp.where(valid, new_c, c))"

SCAN = (
    fault(
        "gates f and g swapped",
        "ragged_jax.lstm:_scan",
        "i, f, g, o =",
        "i, g, f, o =",
        forward("mixed"),
    ),
    fault(
        "second bias forgotten",
        "ragged_jax.lstm:_scan",
        ' + weights["bias_hh"]',
        "",
        forward("mixed"),
    ),
    fault(
        "projection forgotten",
        "ragged_jax.lstm:_scan",
        'new_h @ weights["weight_hr"].T',
        "new_h[:, : h.shape[1]]",
        forward("mixed", "projection"),
    ),
    fault(
        "state after the last padded step",
        "ragged_jax.lstm:_scan",
        HELD,
        "(new_h, new_c)",
        forward("mixed"),
    ),
    fault(
        "c fed with padding",
        "ragged_jax.lstm:_scan",
        HELD,
        "(jnp.where(valid, new_h, h), new_c)",
        forward("mixed"),
    ),
    fault(
        "c forgotten at padding",
        "ragged_jax.lstm:_scan",
        HELD,
        "(jnp.where(valid, new_h, h), jnp.where(valid, new_c, 0))",
        forward("mixed"),
    ),
    fault(
        "h after the last padded step",
        "ragged_jax.lstm:_scan",
        HELD,
        "(new_h, jnp.where(valid, new_c, c))",
        forward("mixed"),
    ),
    fault(
        "empty row returns zeros for its state",
        "ragged_jax.lstm:_scan",
        "return jnp.swapaxes(y, 0, 1), h, c",
        "return jnp.swapaxes(y, 0, 1), jnp.where(mask.any(1)[:, None], h, 0), c",
        forward("length 0"),
    ),
    fault(
        "output gate opens on the old c",
        "ragged_jax.lstm:_scan",
        "jnp.tanh(new_c)",
        "jnp.tanh(c)",
        forward("mixed"),
    ),
)

LAYER = (
    fault(
        "outputs at padding not 0",
        "ragged_jax.lstm:_layer",
        "y = select_valid(backend, y, lengths)",
        "pass",
        forward("mixed"),
    ),
    fault(
        "padding read",
        "ragged_jax.lstm:_layer",
        "x = select_valid(backend, x, lengths)",
        "pass",
        lstm_gradients("one layer"),
    ),
    fault(
        "second direction reads forwards",
        "ragged_jax.lstm:_layer",
        "flip(backend, x, lengths) if direction else x",
        "x",
        forward("mixed", "bidirectional"),
    ),
    fault(
        "second direction's outputs not turned back",
        "ragged_jax.lstm:_layer",
        "flip(backend, y, lengths) if direction else y",
        "y",
        forward("mixed", "bidirectional"),
    ),
    fault(
        "lengths lose their padding inside jit",
        "ragged_jax.arrays:_unflatten",
        "Lengths.traced(leaves[0], width, policy, is_full)",
        "Lengths.traced(leaves[0], width, policy, True)",
        forward("mixed"),
    ),
)

BLOCKS = (
    fault(
        "bias of Linear forgotten",
        "ragged_jax.blocks:Linear.__call__",
        " + self.bias[...]",
        "",
        forecast("one layer-mixed"),
    ),
)

FAULTS = (*SCAN, *LAYER, *BLOCKS)
