"""What a layer is told as it is built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.recurrent.torch_cases.case import Cases, build, normal, outcome, refused

cases = Cases("test/test_nn.py")


@cases.equal("test_RNN_nonlinearity", "tanh is the default, relu the other, others are refused")
def _(module: Any) -> Iterator[Any]:
    for options in ({}, {"nonlinearity": "tanh"}, {"nonlinearity": "relu"}):
        layer = build(module, "RNN", 2, 3, **options)
        yield layer.nonlinearity, layer.mode, outcome(layer, normal(4, 2, 2))
    yield refused(lambda: module.RNN(2, 3, nonlinearity="sigmoid"))


@cases.equal("test_RNN_nonlinearity_passed_as_arg", "the nonlinearity as fourth argument")
def _(module: Any) -> Iterator[Any]:
    layer = build(module, "RNN", 2, 3, 2, "relu", False, True)
    yield layer.nonlinearity, repr(layer), outcome(layer, normal(4, 2, 2))
    yield refused(lambda: module.RNN(2, 3, 2, "sigmoid"))


@cases.equal("test_projections_errors_on_gru_and_rnn", "a projection is refused but in an LSTM")
def _(module: Any) -> Iterator[Any]:
    for name in ("RNN", "GRU"):
        yield refused(lambda name=name: build(module, name, 3, 5, 2, proj_size=2))


for test, covers in {
    "test_RNN_cell_no_broadcasting": "states of cells are not broadcast",
    "test_LSTM_cell": "single steps of a cell",
    "test_LSTM_cell_forward_input_size": "a cell refuses other features",
    "test_LSTM_cell_forward_hidden_size": "a cell refuses other states",
    "test_lstmcell_backward_only_one_output_grad": "a cell of which one output is used",
}.items():
    cases.not_run(test, covers, "`nn.RNNCell` and its like are not layers and stay torch's")
