"""Faults in the torch backend; those of jax.py have the same names."""

from __future__ import annotations

from tests.sabotage.faults import fault
from tests.sabotage.names import forecast, forward, lstm_gradients

WEIGHTS = "list(weights.values()),"

DENSE = (
    fault(
        "gates f and g swapped",
        "ragged_torch.lstm:_layer",
        WEIGHTS,
        "[w.unflatten(0, (4, -1))[[0, 2, 1, 3]].flatten(0, 1) for w in weights.values()],",
        forward("mixed"),
    ),
    fault(
        "second bias forgotten",
        "ragged_torch.lstm:_layer",
        WEIGHTS,
        "[0 * w if own == 'bias_hh' else w for own, w in weights.items()],",
        forward("mixed"),
    ),
    fault(
        "projection forgotten",
        "ragged_torch.lstm:_layer",
        WEIGHTS,
        "[torch.eye(*w.shape) if own == 'weight_hr' else w for own, w in weights.items()],",
        forward("mixed", "projection"),
    ),
    fault(
        "state after the last padded step",
        "ragged_torch.lstm:_hold_at_padding",
        "[-HOLD, HOLD, 0.0, 0.0]",
        "[0.0, 0.0, 0.0, 0.0]",
        forward("mixed"),
    ),
    fault(
        "c fed with padding",
        "ragged_torch.lstm:_hold_at_padding",
        "[-HOLD, HOLD, 0.0, 0.0]",
        "[0.0, HOLD, 0.0, 0.0]",
        forward("mixed"),
    ),
    fault(
        "c forgotten at padding",
        "ragged_torch.lstm:_hold_at_padding",
        "[-HOLD, HOLD, 0.0, 0.0]",
        "[-HOLD, 0.0, 0.0, 0.0]",
        forward("mixed"),
    ),
    fault(
        "h after the last padded step",
        "ragged_torch.lstm:_layer",
        "y.gather(1, last)[:, 0]",
        "y[:, -1]",
        forward("mixed"),
    ),
    fault(
        "empty row returns zeros for its state",
        "ragged_torch.lstm:_layer",
        "y.gather(1, last)[:, 0], h0)",
        "y.gather(1, last)[:, 0], torch.zeros_like(h0))",
        forward("length 0"),
    ),
    fault(
        "outputs at padding not 0",
        "ragged_torch.lstm:_layer",
        "return select_valid(backend, y, lengths), h, c[0]",
        "return y, h, c[0]",
        forward("mixed"),
    ),
    fault(
        "padding read",
        "ragged_torch.lstm:_hold_at_padding",
        "x = select_valid(backend, x, lengths)",
        "pass",
        lstm_gradients("one layer"),
    ),
    fault(
        "second direction reads forwards",
        "ragged_torch.lstm:dense",
        "flip(backend, x, lengths) if direction else x",
        "x",
        forward("mixed", "bidirectional"),
    ),
    fault(
        "second direction's outputs not turned back",
        "ragged_torch.lstm:dense",
        "flip(backend, y, lengths) if direction else y",
        "y",
        forward("mixed", "bidirectional"),
    ),
)

PACKED = (
    fault(
        "packed rows get each other's state",
        "ragged_torch.lstm:packed",
        "order.rows[order.sorted_indices]",
        "order.rows",
        forward("mixed"),
    ),
    fault(
        "packed: empty row returns zeros for its state",
        "ragged_torch.lstm:packed",
        "state[0].index_copy",
        "torch.zeros_like(state[0]).index_copy",
        forward("length 0"),
    ),
    fault(
        "packed: directions' weights swapped",
        "ragged_torch.lstm:packed",
        "for direction in weights for",
        "for direction in weights[::-1] for",
        forward("mixed", "bidirectional"),
    ),
)

BLOCKS = (
    fault(
        "bias of Linear forgotten",
        "ragged_torch.blocks:Linear.forward",
        "self.weight, self.bias)",
        "self.weight)",
        forecast("one layer-mixed"),
    ),
)

FAULTS = (*DENSE, *PACKED, *BLOCKS)
