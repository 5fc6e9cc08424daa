"""Values, states and gradients of every option."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

from tests.recurrent.torch_cases.case import NAMES, Cases, build, normal, outcome, state

cases = Cases("test/test_nn.py")
INPUT, HIDDEN, LAYERS, BATCH, STEPS = 3, 4, 2, 3, 4
LENGTHS = [4, 2, 1]


def scattered(*shape: int) -> Tensor:
    """Draw values that do not lie one after the other."""
    return torch.stack([torch.zeros(shape), torch.randn(shape)], -1).double()[..., 1]


def every_option(module: Any, name: str, **options: Any) -> Iterator[Any]:
    """Outcomes under every combination of what may be told to a layer and how inputs may lie."""
    for bias, both, batch_first, packed in product((True, False), repeat=4):
        flags = {"bias": bias, "bidirectional": both, "batch_first": batch_first}
        layer = build(module, name, INPUT, HIDDEN, LAYERS, **flags, **options)
        draw = scattered if bias == both else torch.randn
        rows = (BATCH, STEPS) if batch_first else (STEPS, BATCH)
        x = draw(*rows, INPUT).double().requires_grad_()
        lengths = torch.tensor(LENGTHS) if both else LENGTHS
        given = pack_padded_sequence(x, lengths, batch_first) if packed else x
        hx = state(layer, BATCH, lambda *shape, draw=draw: draw(*shape).double().requires_grad_())
        leaves = [x, *(hx if isinstance(hx, tuple) else (hx,))]
        yield outcome(layer, given, hx, leaves)


@cases.equal(
    "test_RNN_cpu_vs_cudnn_no_dropout",
    "bias, direction, layout, strides, packed rows, lengths as list or tensor, relu, projection",
)
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        yield from every_option(module, name)
    yield from every_option(module, "RNN", nonlinearity="relu")
    yield from every_option(module, "LSTM", proj_size=2)


@cases.equal("test_rnn_fused", "GRU and LSTM with and without biases, and all gradients")
def _(module: Any) -> Iterator[Any]:
    for name, bias in product(("GRU", "LSTM"), (True, False)):
        layer = build(module, name, INPUT, HIDDEN, LAYERS, bias=bias)
        yield outcome(layer, normal(STEPS, BATCH, INPUT), state(layer, BATCH))


@cases.equal("test_rnn_initial_hidden_state", "no states are states of zeros")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        layer, x = build(module, name, INPUT, HIDDEN, LAYERS), normal(STEPS, BATCH, INPUT)
        zeros = state(layer, BATCH, lambda *shape: torch.zeros(shape).double())
        given, left_out = layer(x, zeros), layer(x)
        yield given, left_out, torch.equal(given[0], left_out[0])


@cases.equal("test_projections_lstm_initial_hidden_state", "no states, with a projection")
def _(module: Any) -> Iterator[Any]:
    for both in (False, True):
        options = {"proj_size": 2, "bidirectional": both}
        layer, x = build(module, "LSTM", INPUT, HIDDEN, LAYERS, **options), normal(2, 2, INPUT)
        zeros = state(layer, 2, lambda *shape: torch.zeros(shape).double())
        yield layer(x, zeros), layer(x)


@cases.equal("test_variable_sequence", "packed rows, sorted or not, and each row alone")
def _(module: Any) -> Iterator[Any]:
    for name, both, is_sorted in product(NAMES, (False, True), (False, True)):
        layer = build(module, name, INPUT, HIDDEN, LAYERS, bidirectional=both)
        rows = [normal(length, INPUT) for length in (LENGTHS if is_sorted else (2, 4, 1))]
        hx = state(layer, BATCH)
        leaves = [*rows, *(hx if isinstance(hx, tuple) else (hx,))]
        yield outcome(layer, pack_sequence(rows, enforce_sorted=is_sorted), hx, leaves)
        yield [layer(row) for row in rows]


@cases.equal("test_RNN_input_size_zero", "a batch of no row")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        yield outcome(build(module, name, INPUT, HIDDEN), normal(STEPS, 0, INPUT))


@cases.equal(
    "test_lstm", "float32 by the processor's library, in training or not", "test/test_mkldnn.py"
)
def _(module: Any) -> Iterator[Any]:
    for both, bias, batch_first in product((True, False), repeat=3):
        options = {"bidirectional": both, "bias": bias, "batch_first": batch_first}
        layer = build(module, "LSTM", INPUT, HIDDEN, dtype=torch.float32, **options)
        x = normal(BATCH, BATCH, INPUT, dtype=torch.float32)
        yield outcome(layer, x)
        with torch.no_grad():
            yield layer.eval()(x)
