"""Concatenated rows give the results of padded rows at every token."""

from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import INPUTS, WIDTH, fill_padding, normal
from ragged_conformance.evaluation import Results, evaluator
from ragged_conformance.recurrent import LAYERS, as_state, marked, named
from ragged_conformance.tolerances import LAYER, assert_all_close

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
    padded = {"lengths": LENGTHS, "resets": adapter.array(resets)}
    jagged = {
        "resets": adapter.array(tokens_of(resets, True)),
        "offsets": adapter.array(OFFSETS),
    }

    def run(options: dict[str, Any], x: np.ndarray, weights: np.ndarray) -> tuple[Results, Results]:
        def total(inputs: Any, constants: Any) -> tuple[Any, dict[str, Any]]:
            start = as_state(inputs[part] for part in layer.states)
            given = {name: inputs[name] for name in parameters}
            results = named(call(given, inputs["x"], state=start, **options))
            y, *finals = results.values()
            return (y * constants["weights"]).sum() + sum((p**2).sum() for p in finals), results

        inputs = {"x": adapter.array(x), **adapter.arrays(state), **parameters}
        return evaluator(adapter, total)(inputs, {"weights": adapter.array(weights)})

    results, gradients = run(padded, fill_padding(x, LENGTHS), loss_weights)
    flat, of_flat = run(jagged, tokens_of(x, np.nan), tokens_of(loss_weights, 1.0))
    assert (flat["y"][-ROOM:] == 0).all(), "what is beyond the last row"
    assert (of_flat["x"][-ROOM:] == 0).all(), "the gradient beyond the last row"
    results["y"], gradients["x"] = (tokens_of(each, 0.0) for each in (results["y"], gradients["x"]))
    assert_all_close(flat, results, adapter.dtype, LAYER)
    assert_all_close(of_flat, gradients, adapter.dtype)


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
