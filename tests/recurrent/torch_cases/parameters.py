"""Parameters that are tied, deleted, normed, pruned, moved or kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from tests.recurrent.torch_cases.case import NAMES, Cases, build, normal, outcome, state

cases = Cases("test/test_nn.py")
INPUT, HIDDEN = 3, 4
WITH_PROJECTION = [*((name, {}) for name in NAMES), ("LSTM", {"proj_size": 2})]


@cases.equal("test_cudnn_weight_format", "a parameter that is given other memory")
def _(module: Any) -> Iterator[Any]:
    for name, options in WITH_PROJECTION:
        layer = build(module, name, INPUT, HIDDEN, batch_first=True, **options)
        x, hx = normal(2, 5, INPUT), state(layer, 2)
        yield outcome(layer, x, hx)
        memory = layer.weight_hh_l0.detach().clone()
        with torch.no_grad():
            layer.weight_hh_l0.set_(memory)
        yield outcome(layer, x, hx)
        memory[:] = 0.5
        yield outcome(layer, x, hx)


@cases.equal("test_cudnn_weight_tying", "two names for one parameter, through a step of training")
def _(module: Any) -> Iterator[Any]:
    for name, options in WITH_PROJECTION:
        layer = build(module, name, INPUT, HIDDEN, bidirectional=True, **options)
        layer.bias_ih_l0_reverse = layer.bias_ih_l0
        x, hx = normal(5, 2, INPUT), state(layer, 2)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        yield len(list(layer.parameters())), outcome(layer, x, hx)
        layer(x, hx)[0].sum().backward()
        optimizer.step()
        yield layer(x, hx), layer.state_dict()


@cases.equal("test_RNN_cudnn_weight_norm", "a weight norm put on and taken off")
def _(module: Any) -> Iterator[Any]:
    for name, options, weight in (
        ("LSTM", {}, "weight_hh_l0"),
        ("GRU", {}, "weight_ih_l1"),
        ("LSTM", {"proj_size": 2}, "weight_hr_l0"),
    ):
        layer, x = build(module, name, INPUT, HIDDEN, 2, **options), normal(5, 2, INPUT)
        yield layer(x)
        parametrizations.weight_norm(layer, weight)
        yield outcome(layer, x), list(layer.state_dict())
        parametrize.remove_parametrizations(layer, weight)
        yield layer(x), sorted(layer.state_dict())


@cases.equal("test_partial_flat_weights", "a parameter that is deleted, and set again")
def _(module: Any) -> Iterator[Any]:
    layer, x = build(module, "LSTM", INPUT, HIDDEN, 2), normal(3, 2, INPUT)
    yield layer(x)
    weight = layer.weight_hh_l0
    del layer.weight_hh_l0
    yield hasattr(layer, "weight_hh_l0"), list(layer.state_dict())
    layer.float().double()
    layer.weight_hh_l0 = weight
    yield layer(x)


@cases.equal("test_rnn_pruning", "a pruned parameter is no parameter", "test/nn/test_pruning.py")
def _(module: Any) -> Iterator[Any]:
    layer, x = build(module, "LSTM", INPUT, HIDDEN), normal(3, 2, INPUT)
    prune.l1_unstructured(layer, "weight_ih_l0", 0.5)
    yield [isinstance(each, nn.Parameter) for each in layer._flat_weights]
    yield outcome(layer, x), list(layer.state_dict())
    prune.remove(layer, "weight_ih_l0")
    yield [isinstance(each, nn.Parameter) for each in layer._flat_weights]
    yield outcome(layer, x), sorted(dict(layer.named_parameters()))


@cases.equal(
    "test_data_parallel_rnn",
    "training by a model that calls `flatten_parameters` at each step",
    "test/distributed/test_data_parallel.py",
)
def _(module: Any) -> Iterator[Any]:
    layer = build(module, "LSTM", INPUT, HIDDEN, batch_first=True, bidirectional=True)
    x = normal(2, 3, INPUT)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer.flatten_parameters()
        layer(x)[0].square().sum().backward()
        optimizer.step()
        yield layer.state_dict()
