"""Concatenated rows give the results of padded rows at every token."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import INPUTS, WIDTH, fill_padding, normal
from ragged_conformance.recurrent import LAYERS, arrays_of, as_state, marked
from ragged_conformance.tolerances import LAYER, assert_all_close, assert_close

NAMES = (
    "LSTM, bidirectional",
    "LSTM, everything",
    "GRU, two layers, bidirectional",
    "RNN_RELU, no bias, bidirectional",
)
layers = pytest.mark.parametrize("name", marked({name: LAYERS[name] for name in NAMES}))
LENGTHS = np.array([3, 0, WIDTH, 1])
OFFSETS = np.append(0, np.cumsum(LENGTHS))
ROOM = 2  # capacity beyond the tokens
VALID = np.arange(WIDTH) < LENGTHS[:, None]


def tokens_of(padded: np.ndarray, beyond: float) -> np.ndarray:
    """Concatenate the valid steps of rows, and fill the room beyond."""
    flat = padded[VALID]
    return np.concatenate([flat, np.full((ROOM, *flat.shape[1:]), beyond, flat.dtype)])


@layers
def test_outputs_states_and_gradients_are_those_of_padded_rows(adapter: Adapter, name: str) -> None:
    layer = LAYERS[name]
    module = adapter.prepare(layer.build(seed=0))
    parameters, call = adapter.functional(module)
    x, state = normal(len(LENGTHS), WIDTH, INPUTS), layer.state(len(LENGTHS))
    resets = np.zeros(VALID.shape, bool)
    resets[2, [1, 3]] = True
    loss_weights = normal(len(LENGTHS), WIDTH, 2 * layer.output, seed=8)
    padded_resets = adapter.array(resets)
    flat_resets, offsets = adapter.array(tokens_of(resets, True)), adapter.array(OFFSETS)

    def padded(parameters: Any, inputs: Any) -> Any:
        start = as_state(inputs[part] for part in layer.states)
        return call(parameters, inputs["x"], LENGTHS, start, resets=padded_resets)

    def jagged(parameters: Any, inputs: Any) -> Any:
        start = as_state(inputs[part] for part in layer.states)
        return call(parameters, inputs["x"], None, start, resets=flat_resets, offsets=offsets)

    results = []
    for run, array, weights in (
        (padded, fill_padding(x, LENGTHS), loss_weights),
        (jagged, tokens_of(x, np.nan), tokens_of(loss_weights, 1.0)),
    ):
        inputs = {"x": adapter.array(array), **adapter.arrays(state)}
        weights = adapter.array(weights)

        def total(parameters: Any, inputs: Any, run: Any = run, weights: Any = weights) -> Any:
            y, *finals = arrays_of(run(parameters, inputs))
            return (y * weights).sum() + sum((part**2).sum() for part in finals)

        y, *final = map(adapter.to_numpy, arrays_of(run(parameters, inputs)))
        gradients = adapter.differentiate(partial(total, inputs=inputs), parameters)
        by_parameters = {key: adapter.to_numpy(value) for key, value in gradients.items()}
        by_inputs = adapter.gradients(lambda **inputs: total(parameters, inputs), inputs)
        results.append((y, final, by_parameters, by_inputs))
    (y, final, of_parameters, of_inputs), (flat, flat_final, of_flat_parameters, of_flat) = results
    assert_close(flat, tokens_of(y, 0.0), adapter.dtype, LAYER)
    assert (flat[-ROOM:] == 0).all(), "what is beyond the last row"
    for one, other in zip(flat_final, final, strict=True):
        assert_close(one, other, adapter.dtype, LAYER)
    assert_all_close(of_flat_parameters, of_parameters, adapter.dtype)
    of_inputs["x"] = tokens_of(of_inputs["x"], 0.0)
    assert_all_close(of_flat, of_inputs, adapter.dtype)
    assert (of_flat["x"][-ROOM:] == 0).all(), "the gradient beyond the last row"


@layers
def test_offsets_that_cannot_be_are_refused(adapter: Adapter, name: str) -> None:
    module = adapter.prepare(LAYERS[name].build(seed=0))
    x = adapter.array(normal(4, INPUTS))
    for offsets in ([1, 4], [0, 3, 2], [0, 5], [[0, 4]], []):
        with pytest.raises(ragged.errors.LengthsError, match=r"`offsets` is .*; expected integers"):
            module(x, offsets=adapter.array(np.array(offsets, np.int64)))
    with pytest.raises(ragged.errors.ArgumentError, match=r"`lengths` .*; expected None"):
        module(x, [4], offsets=adapter.array(np.array([0, 4])))
    with pytest.raises(ragged.errors.ShapeError, match=r"`x` is .*; expected \(tokens, "):
        module(x[None], offsets=adapter.array(np.array([0, 4])))
