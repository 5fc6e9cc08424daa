"""The LSTM layer: outputs, states and all gradients against the oracle, on every policy."""

import functools
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import (
    EMULATED,
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
from ragged_conformance.tolerances import LAYER, MODEL, assert_all_close, assert_close

pytestmark = pytest.mark.operation("LSTM")
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


@pytest.mark.operation("lstm")
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


@pytest.mark.operation("lstm")
@options_cases
def test_gradients_equal_the_oracle(adapter: Adapter, options: str) -> None:
    inputs, like, expected = oracle_gradients(options)
    inputs = {**inputs, "x": fill_padding(inputs["x"], GRADIENT_LENGTHS)}
    like = [adapter.array(weight) for weight in like]
    for policy in POLICIES:
        if adapter.name == "jax" and policy in EMULATED:
            continue
        lengths = ragged.Lengths(GRADIENT_LENGTHS, WIDTH, policy=policy)

        def total(x: Any, h: Any, c: Any, lengths: Any = lengths, **parameters: Any) -> Any:
            return weighted_sum(ragged.lstm(parameters, x, lengths, (h, c)), like)

        found = adapter.gradients(total, adapter.arrays(inputs))
        assert_all_close(found, expected, adapter.dtype)
        padding = ~oracle.padding_mask(GRADIENT_LENGTHS, WIDTH)
        assert (found["x"][padding] == 0).all(), f"gradient at padding ({policy})"


LARGE = {"inputs": 140, "hidden": 130, "batch": 300, "width": 4}  # past all that is cut, 256 too


@pytest.mark.operation("lstm")
def test_many_rows_and_units_are_as_few(adapter: Adapter) -> None:
    """Whatever is cut into parts (vectors, tiles of rows, chunks of tokens) is whole again.

    Outputs and states against the oracle; gradients against "never", whose kernels cut nothing.
    """
    inputs, hidden, batch, width = LARGE.values()
    lengths = np.random.default_rng(0).integers(0, width + 1, batch)
    layer = adapter.prepare(ragged.LSTM(inputs, hidden, bidirectional=True, seed=0))
    found = adapter.backend.get_parameters(layer)
    arrays = {"x": normal(batch, width, inputs), **{n: v.astype(float) for n, v in found.items()}}
    parameters = {name: arrays[name] for name in found}
    expected = oracle.lstm(parameters, arrays["x"], lengths)
    like = [normal(*array.shape, seed=7) for array in (expected[0], *expected[1])]
    arrays["x"] = fill_padding(arrays["x"], lengths)
    weights = [adapter.array(weight) for weight in like]

    def gradients(policy: str) -> dict[str, np.ndarray]:
        valid = ragged.Lengths(lengths, width, policy=policy)

        def total(x: Any, **parameters: Any) -> Any:
            return weighted_sum(ragged.lstm(parameters, x, valid), weights)

        return adapter.gradients(total, adapter.arrays(arrays))

    for policy in ("auto", "never"):
        valid = ragged.Lengths(lengths, width, policy=policy)
        assert_results_close(adapter, layer(adapter.array(arrays["x"]), valid), expected, policy)
    assert_all_close(gradients("auto"), gradients("never"), adapter.dtype, MODEL)


@pytest.mark.operation("lstm")
def test_between_layers_acts_there_and_nowhere_else(adapter: Adapter) -> None:
    _, parameters = make(adapter, "two layers")
    x, lengths = normal(4, WIDTH, INPUTS), LENGTHS["mixed"]
    found = ragged.lstm(
        adapter.arrays(parameters), adapter.array(x), lengths, between_layers=lambda y: 2 * y
    )
    lower, upper = (
        {n.replace(layer, "l0"): value for n, value in parameters.items() if layer in n}
        for layer in ("l0", "l1")
    )
    below, first = oracle.lstm(lower, x, lengths)
    above, last = oracle.lstm(upper, 2 * below, lengths)
    final = tuple(np.concatenate(arrays) for arrays in zip(first, last, strict=True))
    assert_results_close(adapter, found, (above, final), "between_layers")


def test_time_first_is_the_same_turned(adapter: Adapter) -> None:
    lengths, x = [3, 5, 1, 4], normal(4, WIDTH, INPUTS)
    batch_first = adapter.prepare(ragged.LSTM(INPUTS, HIDDEN, seed=0))
    time_first = adapter.prepare(ragged.LSTM(INPUTS, HIDDEN, seed=0, batch_first=False))
    y, _ = batch_first(adapter.array(x), lengths)
    turned, _ = time_first(adapter.array(x.swapaxes(0, 1)), lengths)
    np.testing.assert_array_equal(adapter.to_numpy(turned).swapaxes(0, 1), adapter.to_numpy(y))


@pytest.mark.parametrize("steps", [1, 5])
def test_one_row_among_empty_ones_is_as_alone(adapter: Adapter, steps: int) -> None:
    """As a batch of fixed size holds a dataset's last row: what is planned for many, one fills."""
    layer, parameters = make(adapter, "one layer")
    rows = 16
    lengths = [steps] + [0] * (rows - 1)
    x = fill_padding(normal(rows, steps, INPUTS), lengths)
    expected = oracle.lstm(parameters, x, lengths)
    for policy in ("auto", "never"):
        found = layer(adapter.array(x), ragged.Lengths(lengths, steps, policy=policy))
        assert_results_close(adapter, found, expected, policy)


def test_width_zero_keeps_the_state(adapter: Adapter) -> None:
    layer, _ = make(adapter, "one layer")
    h, c = lstm_state({}, 4)
    x = adapter.array(np.zeros((4, 0, INPUTS)))
    y, final = layer(x, [0] * 4, (adapter.array(h), adapter.array(c)))
    assert tuple(y.shape) == (4, 0, HIDDEN)
    for found, expected in zip(final, (h, c), strict=True):
        np.testing.assert_array_equal(adapter.to_numpy(found), expected)


def test_wrong_shapes_are_refused(adapter: Adapter) -> None:
    layer, parameters = make(adapter, "one layer")
    x, native = adapter.array(normal(4, WIDTH, INPUTS)), adapter.arrays(parameters)
    bias = native["bias_hh_l0"]
    for wrong, form in ((x[0], r"\(5, 2\)"), (x[..., :1], r"\(4, 5, 1\)")):
        with pytest.raises(ragged.RaggedError, match=rf"LSTM\(\): `x` is of shape {form}; exp"):
            layer(wrong)
    with pytest.raises(ragged.RaggedError, match=r"`parameters\['bias_hh_l0'\]` is of shape \(3,"):
        ragged.lstm({**native, "bias_hh_l0": bias[:3]}, x)
    with pytest.raises(ragged.RaggedError, match=r"`parameters` is named \['bias_hh_l0'\]; exp"):
        ragged.lstm({"bias_hh_l0": bias}, x)
    with pytest.raises(ragged.RaggedError, match="`policy` is 'fast'; expected one of"):
        ragged.Lengths([1], policy="fast")
