"""Dropout between layers; under the same seed ours drops what torch's layer does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from tests.recurrent.torch_cases.case import Cases, build, normal, outcome, state

cases = Cases("test/test_nn.py")
INPUT, HIDDEN = 3, 4


@cases.equal("test_RNN_dropout", "it acts between layers, at any rate, in training alone")
def _(module: Any) -> Iterator[Any]:
    for rate, training in product((0, 0.276, 0.731, 1), (True, False)):
        options = {"bias": False, "dropout": rate, "nonlinearity": "relu"}
        layer = build(module, "RNN", 10, 100, 2, **options).train(training)
        for weight in layer.parameters():
            nn.init.ones_(weight)
        y, h = layer(torch.ones(1, 1, 10).double(), torch.zeros(2, 1, 100).double())
        yield y, h, bool((y == y.max()).all()), h[0].min()


@cases.equal("test_RNN_cpu_vs_cudnn_with_dropout", "a rate of 1, in every layer and layout")
def _(module: Any) -> Iterator[Any]:
    for name, both in product(("RNN", "GRU", "LSTM"), (True, False)):
        layer = build(module, name, INPUT, HIDDEN, 2, dropout=1, bidirectional=both)
        yield outcome(layer, normal(4, 3, INPUT), state(layer, 3))
        rows = [normal(length, INPUT) for length in (4, 2, 1)]
        yield outcome(layer, pack_sequence(rows), state(layer, 3), rows)


@cases.equal("test_cudnn_rnn_dropout_states_device", "dropout beside given states")
def _(module: Any) -> Iterator[Any]:
    for batch_first in (False, True):
        layer = build(module, "RNN", INPUT, HIDDEN, 2, dropout=0.5, batch_first=batch_first)
        yield outcome(layer, normal(4, 4, INPUT), state(layer, 4))


@cases.equal("test_RNN_dropout_state", "a layer saved and loaded draws as it did")
def _(module: Any) -> Iterator[Any]:
    for rate, training in product((0, 0.1234), (True, False)):
        layer = build(module, "RNN", 10, 10, 2, dropout=rate, nonlinearity="relu").train(training)
        x, hx = normal(1, 1, 10), state(layer, 1)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        loaded.flatten_parameters()
        calls = [each(x, hx) for each in (layer, layer, loaded)]
        yield calls, [torch.equal(calls[0][0], y) for y, _ in calls]


@cases.equal("test_RNN_change_dropout", "a rate that changes from call to call")
def _(module: Any) -> Iterator[Any]:
    for training in (True, False):
        layer = build(module, "RNN", 10, 10, 2, nonlinearity="relu").train(training)
        x = normal(3, 2, 10)
        for rate in (0, 0.5, 0, 0.7, 0.2, 1, 0.2, 0):
            layer.dropout = rate
            yield layer(x), layer(x)
