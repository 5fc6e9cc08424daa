"""The layer while `torch.onnx.export` records it: ONNX's LSTM between plain operations.

The exporter knows no translation of our operator unless it is given one, but takes nodes of ONNX as
they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ragged_torch.recurrent.stack import Result, Weights

GATES = (0, 3, 1, 2)  # ONNX has i, o, f, g


def is_exporting() -> bool:
    """Whether `torch.onnx.export` records this call, and knows nodes of ONNX."""
    return torch.onnx.is_in_onnx_export() and hasattr(torch.onnx, "ops")


def run_layer(
    weights: Weights, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor, *, reverse: bool = False
) -> Result:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    What runs a file need not keep the state of a row of length 0, nor refuse NaN at padding: both
    are selected here.
    """
    (batch, width, _), hidden = x.shape, h0.shape[1]
    count, steps = lengths[:, None], torch.arange(width, device=x.device)
    valid = (steps < count)[..., None]

    def reordered(name: str) -> Tensor:
        gates = weights[name].unflatten(0, (4, hidden))
        return torch.cat([gates[gate] for gate in GATES])[None]

    biases = [reordered(name) for name in ("bias_ih", "bias_hh") if name in weights]
    y, h, c = torch.onnx.ops.symbolic_multi_out(
        "::LSTM",
        [
            torch.where(valid, x, 0.0).transpose(0, 1),
            *(reordered("weight_ih"), reordered("weight_hh")),
            torch.cat(biases, 1) if biases else None,
            lengths.clamp(min=1).to(torch.int32),
            *(h0[None], c0[None]),
        ],
        {"hidden_size": hidden, "direction": "reverse" if reverse else "forward"},
        dtypes=[x.dtype] * 3,
        shapes=[(width, 1, batch, hidden), (1, batch, hidden), (1, batch, hidden)],
        version=14,
    )
    y = torch.where(valid, y[:, 0].transpose(0, 1), 0.0)
    return y, torch.where(count > 0, h[0], h0), torch.where(count > 0, c[0], c0)
