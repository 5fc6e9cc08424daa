"""The LSTM layer: outputs, states and all gradients against the oracle, on every policy."""

import functools
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import (
    GRADIENT_LENGTHS,
    HIDDEN,
    INPUTS,
    LENGTHS,
    LSTM_OPTIONS,
    POLICIES,
    WIDTH,
    fill_padding,
    lstm_state,
    normal,
)
from ragged_conformance.tolerances import LAYER, assert_all_close, assert_close

options_cases = pytest.mark.parametrize("options", LSTM_OPTIONS)


def make(adapter: Adapter, options: str) -> tuple[Any, dict[str, np.ndarray]]:
    """A layer, and its parameters for the oracle."""
    layer = adapter.prepare(ragged.LSTM(INPUTS, HIDDEN, seed=0, **LSTM_OPTIONS[options]))
    found = adapter.backend.get_parameters(layer)
    return layer, {name: value.astype(float) for name, value in found.items()}


def assert_results_close(adapter: Adapter, found: Any, expected: Any, what: str) -> None:
    """Compare (y, (h, c))."""
    y, (h, c) = found
    for name, a, b in (("y", y, expected[0]), ("h", h, expected[1][0]), ("c", c, expected[1][1])):
        assert_close(adapter.to_numpy(a), b, adapter.dtype, LAYER, f"{name} ({what})")


@pytest.mark.parametrize("case", LENGTHS)
@options_cases
def test_outputs_and_state_equal_the_oracle(adapter: Adapter, options: str, case: str) -> None:
    layer, parameters = make(adapter, options)
    lengths = LENGTHS[case]
    x = fill_padding(normal(len(lengths), WIDTH, INPUTS), lengths)
    h, c = lstm_state(LSTM_OPTIONS[options], len(lengths))
    expected = oracle.lstm(parameters, x, lengths, (h, c))
    state = adapter.array(h), adapter.array(c)
    for policy in POLICIES:
        valid = ragged.Lengths(lengths, WIDTH, policy=policy)
        y, final = layer(adapter.array(x), valid, state)
        assert_results_close(adapter, (y, final), expected, policy)
        padding = ~oracle.padding_mask(lengths, WIDTH)
        assert (adapter.to_numpy(y)[padding] == 0).all(), f"padding ({policy})"


@options_cases
def test_state_is_zero_and_rows_are_full_if_not_given(adapter: Adapter, options: str) -> None:
    layer, parameters = make(adapter, options)
    x = normal(4, WIDTH, INPUTS)
    expected = oracle.lstm(parameters, x, [WIDTH] * 4)
    assert_results_close(adapter, layer(adapter.array(x)), expected, "module")
    native = adapter.arrays(parameters)
    assert_results_close(adapter, ragged.lstm(native, adapter.array(x)), expected, "function")


def weighted_sum(result: Any, like: Any) -> Any:
    """Reduce (y, (h, c)) to a scalar in which every element has its own weight."""
    y, (h, c) = result
    return sum((array * weight).sum() for array, weight in zip((y, h, c), like, strict=True))


@functools.cache
def oracle_gradients(options: str) -> tuple[dict[str, np.ndarray], list[np.ndarray], Any]:
    """The inputs, the weights of the sum, and its gradient by every input."""
    layer = ragged.LSTM(INPUTS, HIDDEN, seed=0, **LSTM_OPTIONS[options])
    h, c = lstm_state(LSTM_OPTIONS[options], len(GRADIENT_LENGTHS))
    inputs = {"x": normal(len(GRADIENT_LENGTHS), WIDTH, INPUTS), "h": h, "c": c}
    for name, value in ragged.get_backend().get_parameters(layer).items():
        inputs[name] = value.astype(float)

    def run(x: Any, h: Any, c: Any, **parameters: Any) -> Any:
        return oracle.lstm(parameters, x, GRADIENT_LENGTHS, (h, c))

    y, (h, c) = run(**inputs)
    like = [normal(*array.shape, seed=7) for array in (y, h, c)]
    return inputs, like, oracle.gradient(lambda **v: weighted_sum(run(**v), like), inputs)


@options_cases
def test_gradients_equal_the_oracle(adapter: Adapter, options: str) -> None:
    inputs, like, expected = oracle_gradients(options)
    inputs = {**inputs, "x": fill_padding(inputs["x"], GRADIENT_LENGTHS)}
    like = [adapter.array(weight) for weight in like]
    policies = POLICIES if adapter.name == "torch" else ("auto",)  # JAX has one path for all
    for policy in policies:
        lengths = ragged.Lengths(GRADIENT_LENGTHS, WIDTH, policy=policy)

        def total(x: Any, h: Any, c: Any, lengths: Any = lengths, **parameters: Any) -> Any:
            return weighted_sum(ragged.lstm(parameters, x, lengths, (h, c)), like)

        found = adapter.gradients(total, adapter.arrays(inputs))
        assert_all_close(found, expected, adapter.dtype)
        padding = ~oracle.padding_mask(GRADIENT_LENGTHS, WIDTH)
        assert (found["x"][padding] == 0).all(), f"gradient at padding ({policy})"


@options_cases
def test_equals_torch_on_a_packed_sequence(adapter: Adapter, options: str) -> None:
    torch = pytest.importorskip("torch")
    layer, parameters = make(adapter, options)
    lengths = LENGTHS["mixed"]  # torch refuses length 0
    x, state = normal(4, WIDTH, INPUTS), lstm_state(LSTM_OPTIONS[options], 4)
    theirs = torch.nn.LSTM(INPUTS, HIDDEN, batch_first=True, **LSTM_OPTIONS[options]).double()
    assert list(theirs.state_dict()) == list(parameters) or adapter.name == "jax"
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in parameters.items()})
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(x), torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        y, final = theirs(packed, tuple(torch.from_numpy(s) for s in state))
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=WIDTH)
    expected = y.numpy(), tuple(s.numpy() for s in final)
    found = layer(adapter.array(x), list(lengths), tuple(adapter.array(s) for s in state))
    assert_results_close(adapter, found, expected, "torch.nn.LSTM")


def test_time_first_is_the_same_turned(adapter: Adapter) -> None:
    lengths, x = [3, 5, 1, 4], normal(4, WIDTH, INPUTS)
    batch_first = adapter.prepare(ragged.LSTM(INPUTS, HIDDEN, seed=0))
    time_first = adapter.prepare(ragged.LSTM(INPUTS, HIDDEN, seed=0, batch_first=False))
    y, _ = batch_first(adapter.array(x), lengths)
    turned, _ = time_first(adapter.array(x.swapaxes(0, 1)), lengths)
    np.testing.assert_array_equal(adapter.to_numpy(turned).swapaxes(0, 1), adapter.to_numpy(y))


def test_width_zero_keeps_the_state(adapter: Adapter) -> None:
    layer, _ = make(adapter, "one layer")
    h, c = lstm_state({}, 4)
    x = adapter.array(np.zeros((4, 0, INPUTS)))
    y, final = layer(x, [0] * 4, (adapter.array(h), adapter.array(c)))
    assert tuple(y.shape) == (4, 0, HIDDEN)
    for found, expected in zip(final, (h, c), strict=True):
        np.testing.assert_array_equal(adapter.to_numpy(found), expected)
