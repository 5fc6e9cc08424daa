"""What a call refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ragged_torch
import torch
from torch import Tensor, nn

from tests.recurrent.torch_cases.case import NAMES, Cases, build, normal, refused, state

cases = Cases("test/test_nn.py")
INPUT, HIDDEN, LAYERS, BATCH, STEPS, WRONG = 3, 5, 2, 4, 6, 7


def wrong_states(right: Any) -> Iterator[Any]:
    """States that are wrong in one axis of one part."""
    parts = right if isinstance(right, tuple) else (right,)
    for part, axis in ((part, axis) for part in range(len(parts)) for axis in range(3)):
        changed = list(parts)
        extent = list(parts[part].shape)
        extent[axis] = WRONG
        changed[part] = torch.zeros(extent, dtype=torch.float64)
        yield tuple(changed) if isinstance(right, tuple) else changed[0]


def wrong_calls(layer: Any) -> Iterator[Any]:
    """The errors of states and inputs that are wrong in one axis."""
    right, x = state(layer, BATCH), normal(STEPS, BATCH, INPUT)
    for hx in wrong_states(right):
        yield refused(lambda hx=hx: layer(x, hx))
    yield refused(lambda: layer(normal(STEPS, WRONG, INPUT), right))
    yield refused(lambda: layer(normal(STEPS, BATCH, WRONG), right))


@cases.equal("test_rnn_args_check", "features, batch and states of another size are refused")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        yield from wrong_calls(build(module, name, INPUT, HIDDEN, LAYERS))


@cases.equal("test_projections_lstm_args_check", "wrong sizes beside a projection")
def _(module: Any) -> Iterator[Any]:
    layer = build(module, "LSTM", INPUT, HIDDEN, LAYERS, proj_size=2)
    yield from wrong_calls(layer)
    _, c = state(layer, BATCH)
    yield refused(lambda: layer(normal(STEPS, BATCH, INPUT), (c, c)))


def elsewhere(layer: Any) -> Iterator[Any]:
    """The errors of inputs, parameters and states on two devices."""
    x, hx = normal(STEPS, BATCH, INPUT), state(layer, BATCH)
    there = layer.mode == "LSTM" and tuple(part.to("meta") for part in hx)
    yield refused(lambda: layer(x.to("meta")))
    yield refused(lambda: layer(x, there or hx.to("meta")))
    if there:
        yield refused(lambda: layer(x, (hx[0], there[1])))
    layer.to("meta")
    yield refused(lambda: layer(x))


@cases.equal("test_rnn_check_device", "input, parameters and states on two devices are refused")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        yield from elsewhere(build(module, name, INPUT, HIDDEN, LAYERS))


@cases.equal("test_projections_lstm_check_device", "tensors on two devices, with a projection")
def _(module: Any) -> Iterator[Any]:
    yield from elsewhere(build(module, "LSTM", INPUT, HIDDEN, LAYERS, proj_size=2))


@cases.equal("test_cudnn_forward_exception", "states and inputs of another last axis are refused")
def _(module: Any) -> Iterator[Any]:
    for name, options in (*((name, {}) for name in NAMES), ("LSTM", {"proj_size": 2})):
        layer = build(module, name, INPUT, HIDDEN, batch_first=True, **options)
        h = torch.zeros(1, 2, 4, dtype=torch.float64)
        hx = (h, h) if name == "LSTM" else h
        yield refused(lambda layer=layer, hx=hx: layer(normal(2, 3, INPUT), hx))
        yield refused(lambda layer=layer: layer(normal(2, 3, HIDDEN)))


@cases.differs(
    "test_error_RNN_seq_len_zero",
    "a batch of no step is refused",
    "ours gives no outputs and the initial states, as for a row of length 0",
)
def _() -> None:
    x = torch.ones(0, BATCH, INPUT)
    for name in NAMES:
        for bidirectional in (True, False):
            theirs, ours = (
                getattr(module, name)(INPUT, HIDDEN, bidirectional=bidirectional)
                for module in (nn, ragged_torch)
            )
            with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
                theirs(x)
            hx = state(ours, BATCH, torch.randn)
            y, final = ours(x, hx)
            assert y.shape == (0, BATCH, HIDDEN * (2 if bidirectional else 1))
            final, hx = ((each,) if isinstance(each, Tensor) else each for each in (final, hx))
            assert all(map(torch.equal, final, hx))
