"""EncoderDecoderLSTM: forecasts and all gradients against the oracle."""

import functools
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import HIDDEN, WIDTH, fill_padding, normal
from ragged_conformance.evaluation import evaluator
from ragged_conformance.tolerances import MODEL, assert_all_close, assert_close

pytestmark = pytest.mark.operation("models.EncoderDecoderLSTM")
HORIZON = 4
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "one layer": {"num_layers": 1},
    "bridge": {"num_layers": 2, "decoder_hidden_size": 2, "output_size": 2},
    "MLP head": {"num_layers": 1, "head_hidden_size": 3, "output_size": 3},
}
LENGTHS: dict[str, tuple[list[int], list[int]]] = {
    "mixed": ([3, 5, 1, 4], [4, 2, 1, 3]),
    "full": ([5, 5, 5, 5], [4, 4, 4, 4]),
    "length 0": ([3, 0, 5, 0], [4, 2, 0, 0]),
    "all rows empty": ([0, 0, 0, 0], [0, 0, 0, 0]),
    "no rows": ([], []),
}
configurations = pytest.mark.parametrize("configuration", CONFIGURATIONS)


def make(configuration: str) -> Any:
    """A model of the chosen backend."""
    options = CONFIGURATIONS[configuration]
    return ragged.models.EncoderDecoderLSTM(2, 1, hidden_size=HIDDEN, seed=0, **options)


def inputs(case: str, value: float = float("nan")) -> dict[str, np.ndarray]:
    """Past and future with a value at padding."""
    encoder, decoder = LENGTHS[case]
    past, future = normal(len(encoder), WIDTH, 2), normal(len(decoder), HORIZON, 1, seed=1)
    return {
        "past": fill_padding(past, encoder, value),
        "future": fill_padding(future, decoder, value),
    }


@pytest.mark.parametrize("case", LENGTHS)
@configurations
def test_forecast_equals_the_oracle(adapter: Adapter, configuration: str, case: str) -> None:
    model = adapter.prepare(make(configuration))
    parameters = {n: v.astype(float) for n, v in adapter.backend.get_parameters(model).items()}
    expected = oracle.encoder_decoder_lstm(parameters, **inputs(case), **lengths_of(case))
    output = model(**adapter.arrays(inputs(case)), **lengths_of(case)).output
    assert_close(adapter.to_numpy(output), expected, adapter.dtype, MODEL)


def lengths_of(case: str) -> dict[str, Any]:
    """The lengths as keyword arguments."""
    return dict(zip(("encoder_lengths", "decoder_lengths"), LENGTHS[case], strict=True))


def test_rows_are_full_if_no_lengths_are_given(adapter: Adapter) -> None:
    model, batch = adapter.prepare(make("bridge")), adapter.arrays(inputs("full"))
    without, full = model(**batch).output, model(**batch, **lengths_of("full")).output
    np.testing.assert_array_equal(adapter.to_numpy(without), adapter.to_numpy(full))


@functools.cache
def oracle_gradients(configuration: str) -> tuple[dict[str, np.ndarray], np.ndarray, Any]:
    """The parameters, the weights of the sum, and its gradient by inputs and parameters."""
    initial = ragged.get_backend().get_parameters(make(configuration))
    parameters = {name: value.astype(float) for name, value in initial.items()}

    def run(past: Any, future: Any, **parameters: Any) -> Any:
        return oracle.encoder_decoder_lstm(parameters, past, future, **lengths_of("length 0"))

    values = {**inputs("length 0", 0.0), **parameters}
    weight = normal(*run(**values).shape, seed=7)
    gradient = oracle.gradient(lambda **v: (run(**v) * weight).sum(), values)
    return parameters, weight, gradient


@configurations
def test_gradients_equal_the_oracle(adapter: Adapter, configuration: str) -> None:
    parameters, weight, expected = oracle_gradients(configuration)
    model = adapter.prepare(make(configuration))
    initial, call = adapter.functional(model)
    assert set(initial) == set(parameters)

    def total(values: Any, constants: Any) -> tuple[Any, dict[str, Any]]:
        parameters = {name: values[name] for name in initial}
        given = {name: values[name] for name in ("past", "future")}
        output = call(parameters, **given, **lengths_of("length 0")).output
        return (output * constants["weight"]).sum(), {}

    values = {**adapter.arrays(inputs("length 0")), **initial}
    _, actual = evaluator(adapter, total)(values, {"weight": adapter.array(weight)})
    assert_all_close(actual, expected, adapter.dtype)


def test_wrong_sizes_are_refused(adapter: Adapter) -> None:
    model = adapter.prepare(make("one layer"))
    past, future = adapter.array(normal(4, WIDTH, 2)), adapter.array(normal(4, HORIZON, 1))
    with pytest.raises(ragged.RaggedError, match=r"`past` is of shape .*\(batch, encoder_time, 2"):
        model(future, future)
    with pytest.raises(ragged.RaggedError, match="`future` is of 3 rows; expected 4"):
        model(past, future[:3])
    with pytest.raises(ragged.RaggedError, match="`decoder_num_layers` is 3; expected num_layers"):
        ragged.models.EncoderDecoderLSTM(2, 1, num_layers=2, decoder_num_layers=3)
    with pytest.raises(ragged.RaggedError, match="`hidden_size` is 0; expected 1 or more"):
        ragged.models.EncoderDecoderLSTM(2, 1, hidden_size=0)
    with pytest.raises(ragged.RaggedError, match=r"`dropout` is 1\.0; expected 0 or more, below 1"):
        ragged.models.EncoderDecoderLSTM(2, 1, dropout=1.0)
