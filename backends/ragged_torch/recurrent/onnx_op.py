"""A layer while `torch.onnx.export` records it: ONNX's own layer between plain operations.

The exporter has no translation of our operator unless it is passed one, but accepts nodes of ONNX.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ragged_torch.recurrent.stack import Result, Weights

# Of each cell: ONNX's operator, the order of its gates in torch's, and its further attributes.
OPERATORS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "LSTM": ("LSTM", (0, 3, 1, 2), {}),  # i, o, f, g
    "GRU": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),  # z, r, n
    "RNN_TANH": ("RNN", (0,), {"activations": ["Tanh"]}),
    "RNN_RELU": ("RNN", (0,), {"activations": ["Relu"]}),
}


def is_exporting() -> bool:
    """Whether `torch.onnx.export` records this call, and accepts nodes of ONNX."""
    return torch.onnx.is_in_onnx_export() and hasattr(torch.onnx, "ops")


def run_layer(
    mode: str,
    weights: Weights,
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor,
    *,
    reverse: bool = False,
) -> Result:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    Runtimes need not keep the state of a row of length 0, nor ignore NaN at padding: both are
    selected here.
    """
    (batch, width, _), hidden = x.shape, h0.shape[1]
    count, steps = lengths[:, None], torch.arange(width, device=x.device)
    valid = (steps < count)[..., None]
    operator, order, attributes = OPERATORS[mode]
    states = [h0, c0] if mode == "LSTM" else [h0]

    def reordered(name: str) -> Tensor:
        gates = weights[name].unflatten(0, (len(order), hidden))
        return torch.cat([gates[gate] for gate in order])[None]

    biases = [reordered(name) for name in ("bias_ih", "bias_hh") if name in weights]
    y, *final = torch.onnx.ops.symbolic_multi_out(
        f"::{operator}",
        [
            torch.where(valid, x, 0.0).transpose(0, 1),
            *(reordered("weight_ih"), reordered("weight_hh")),
            torch.cat(biases, 1) if biases else None,
            lengths.clamp(min=1).to(torch.int32),
            *(state[None] for state in states),
        ],
        {"hidden_size": hidden, "direction": "reverse" if reverse else "forward", **attributes},
        dtypes=[x.dtype] * (1 + len(states)),
        shapes=[(width, 1, batch, hidden), *[(1, batch, hidden)] * len(states)],
        version=14,
    )
    y = torch.where(valid, y[:, 0].transpose(0, 1), 0.0)
    h, *c = (torch.where(count > 0, new[0], old) for new, old in zip(final, states, strict=True))
    return y, h, c[0] if c else c0
