"""What torch offers for rows of different lengths, on the same work as ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.passes import Run, Work, torch_pass


def torch_lstm(work: Work) -> Any:
    """`torch.nn.LSTM` with the parameters that all contestants have."""
    import torch

    shape = work.case.shape
    layer = torch.nn.LSTM(
        shape.input_size,
        shape.hidden_size,
        shape.num_layers,
        batch_first=True,
        bidirectional=shape.bidirectional,
    )
    layer.load_state_dict({k: torch.from_numpy(v) for k, v in work.parameters.items()})
    return layer.to(work.device)


def packed_sequence(layer: Any, work: Work, lengths: np.ndarray, backward: bool = True) -> Run:
    """Pack, run `nn.LSTM`, pad again: exact, and what torch's own documents show."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    counts = torch.from_numpy(lengths)  # on the host, where packing wants them

    def forward(x: Any) -> tuple[Any, Any]:
        packed = pack_padded_sequence(x, counts, batch_first=True, enforce_sorted=False)
        y, (_, c) = layer(packed)
        whole, _ = pad_packed_sequence(y, batch_first=True, total_length=work.case.width)
        return whole, c

    return _run(forward, layer, work, lengths, backward)


def padded(layer: Any, work: Work, lengths: np.ndarray, backward: bool = True) -> Run:
    """Run `nn.LSTM` over the padding too: its states, and its reverse direction, are wrong there.

    The fastest that torch offers on a CPU, and so the one to beat, exact or not.
    """

    def forward(x: Any) -> tuple[Any, Any]:
        y, (_, c) = layer(x)
        return y, c

    return _run(forward, layer, work, lengths, backward)


def _run(forward: Any, layer: Any, work: Work, lengths: np.ndarray, backward: bool) -> Run:
    factor = work.factor(lengths)
    values = layer.parameters()
    return torch_pass(forward, values, work.x, factor, device=work.device, backward=backward)
