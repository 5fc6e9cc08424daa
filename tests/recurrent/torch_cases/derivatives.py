"""Derivatives: once more, of second order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tests.recurrent.torch_cases.case import NAMES, Cases, build, normal, state, tensors

cases = Cases("test/test_nn.py")
RELU, PROJECTION = {"nonlinearity": "relu"}, {"proj_size": 2}


def second_derivatives(layer: Any, x: Any, hx: Any) -> list[Any]:
    """First derivatives, and those of their squares."""
    leaves = [*tensors((x, hx)), *layer.parameters()]
    loss = sum(each.square().sum() for each in tensors(layer(x, hx)))
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    norm = sum(each.square().sum() for each in first)
    return [*first, *torch.autograd.grad(norm, leaves)]


@cases.equal("test_LSTM_grad_and_gradgrad", "first and second derivatives of an LSTM")
def _(module: Any) -> Iterator[Any]:
    for bias in (True, False):
        layer = build(module, "LSTM", 3, 4, bias=bias)
        yield second_derivatives(layer, normal(3, 2, 3), state(layer, 2))


@cases.equal("test_GRU_grad_and_gradgrad", "first and second derivatives of a GRU")
def _(module: Any) -> Iterator[Any]:
    for bias in (True, False):
        layer = build(module, "GRU", 3, 4, bias=bias)
        yield second_derivatives(layer, normal(3, 2, 3), state(layer, 2))


@cases.equal(
    "test_LSTM_differentiable_backward_using_oneDNN", "second derivatives of an LSTM in float32"
)
def _(module: Any) -> Iterator[Any]:
    layer = build(module, "LSTM", 3, 4, 2, dtype=torch.float32)
    yield second_derivatives(layer, normal(3, 2, 3, dtype=torch.float32), None)


@cases.equal("test_rnn_retain_variables", "two backward passes through one forward pass")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        layer = build(module, name, 3, 4, 2)
        x, hx = normal(4, 2, 3), state(layer, 2)
        y, _ = layer(x, hx)
        leaves = [*tensors((x, hx)), *layer.parameters()]
        yield [torch.autograd.grad(y.sum(), leaves, retain_graph=True) for _ in range(2)]
        torch.autograd.grad(y.sum(), leaves)
        try:
            torch.autograd.grad(y.sum(), leaves)
        except RuntimeError as error:  # what was kept is freed
            yield "second time" in str(error)


@cases.equal(
    "test_gradgrad",
    "second derivatives of every module",
    "test/test_modules.py",
)
def _(module: Any) -> Iterator[Any]:
    for name, options in (("RNN", {}), ("RNN", RELU), ("LSTM", PROJECTION)):
        layer = build(module, name, 3, 4, 2, bidirectional=True, **options)
        yield second_derivatives(layer, normal(3, 2, 3), state(layer, 2))
