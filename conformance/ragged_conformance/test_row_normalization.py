"""Normalisation of each row by its own context, undone in the forecast."""

import functools
from typing import Any

import numpy as np
import pytest

import ragged
from ragged.errors import OptionError
from ragged_conformance import oracle, oracle_models
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import fill_padding, normal
from ragged_conformance.evaluation import Evaluate, evaluator
from ragged_conformance.tolerances import MODEL, assert_all_close, assert_close

pytestmark = pytest.mark.operation("models.EncoderDecoderLSTM")
WIDTH, HORIZON, TARGETS = 5, 3, 2
CONTEXTS, HORIZONS = [3, 5, 1, 0, 4, 2], [3, 2, 3, 3, 0, 3]
LENGTHS: dict[str, Any] = {"encoder_lengths": CONTEXTS, "decoder_lengths": HORIZONS}
CONSTANT = 5  # the row whose first target never changes
OPTIONS: dict[str, Any] = {
    "num_layers": 1,
    "output_size": 4,
    "target_features": TARGETS,
    "season": 2,
}
SUM = np.ones((len(CONTEXTS), HORIZON, OPTIONS["output_size"]))  # all weights 1
kinds = pytest.mark.parametrize("kind", ["last_value", "standard", "seasonal"])


def make(kind: str | None, **options: Any) -> Any:
    """A model of two targets with two outputs each."""
    options = {**OPTIONS, "row_normalization": kind, **options}
    return ragged.models.EncoderDecoderLSTM(3, 1, hidden_size=3, seed=0, **options)


def inputs(value: float = float("nan"), level: float = 0.0) -> dict[str, np.ndarray]:
    """Past and future with a value at padding; 0.1 is no number of binary digits."""
    past, future = normal(len(CONTEXTS), WIDTH, 3), normal(len(HORIZONS), HORIZON, 1, seed=1)
    past[..., 1:] = 2 * past[..., 1:] + level
    past[CONSTANT, :, 1] = 0.1 + level
    return {
        "past": fill_padding(past, CONTEXTS, value),
        "future": fill_padding(future, HORIZONS, value),
    }


def expected(kind: str, arrays: dict[str, Any], parameters: dict[str, Any]) -> np.ndarray:
    """The oracle's forecast."""
    options = {**OPTIONS, "row_normalization": kind}
    config = ragged.models.EncoderDecoderLSTM.describe(3, 1, hidden_size=3, **options)
    return oracle_models.encoder_decoder_lstm(config, parameters, **arrays, **LENGTHS)


@functools.cache
def parameters_of(kind: str) -> dict[str, np.ndarray]:
    """A model's parameters in float64, the same of every backend."""
    found = ragged.get_backend().get_parameters(make(kind))
    return {name: value.astype(float) for name, value in found.items()}


@functools.cache
def make_evaluate(adapter: Adapter, kind: str) -> Evaluate:
    """Evaluate a model's forecast, and the gradients of its sum with the weights given."""
    initial, call = adapter.functional(adapter.prepare(make(kind)))

    def function(arrays: Any, constants: Any) -> tuple[Any, Any]:
        parameters = {name: arrays[name] for name in initial}
        output = call(parameters, arrays["past"], arrays["future"], **LENGTHS).output
        return (output * constants["weight"]).sum(), {"output": output}

    return evaluator(adapter, function)


def evaluate(
    adapter: Adapter, kind: str, arrays: dict[str, np.ndarray], weight: np.ndarray = SUM
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A forecast and the gradients; on JAX one program of a kind serves all tests."""
    values, constants = {**arrays, **parameters_of(kind)}, {"weight": weight}
    outputs, gradients = make_evaluate(adapter, kind)(
        adapter.arrays(values), adapter.arrays(constants)
    )
    return outputs["output"], gradients


@kinds
def test_forecast_equals_the_oracle(adapter: Adapter, kind: str) -> None:
    output, _ = evaluate(adapter, kind, inputs())
    assert_close(output, expected(kind, inputs(), parameters_of(kind)), adapter.dtype, MODEL)


@functools.cache
def oracle_gradients(kind: str) -> tuple[np.ndarray, Any]:
    """The weights of the sum, and its gradient by inputs and parameters."""

    def run(past: Any, future: Any, **parameters: Any) -> Any:
        return expected(kind, {"past": past, "future": future}, parameters)

    values = {**varied(0.0), **parameters_of(kind)}
    weight = normal(*run(**values).shape, seed=7)
    gradient = oracle.gradient(lambda **v: (run(**v) * weight).sum(), values)
    return weight, gradient


def varied(value: float) -> dict[str, np.ndarray]:
    """Inputs without the constant row, at which the deviation has no derivative."""
    arrays = inputs(value)
    arrays["past"][CONSTANT, 0, 1] += 1.0
    return arrays


@kinds
def test_gradients_equal_the_oracle(adapter: Adapter, kind: str) -> None:
    weight, expected_gradients = oracle_gradients(kind)
    _, actual = evaluate(adapter, kind, varied(float("nan")), weight)
    assert_all_close(actual, expected_gradients, adapter.dtype)


@kinds
def test_a_constant_row_gives_finite_numbers_and_gradients(adapter: Adapter, kind: str) -> None:
    output, gradients = evaluate(adapter, kind, inputs())
    assert np.isfinite(output).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@kinds
def test_a_level_moves_the_forecast_by_itself(adapter: Adapter, kind: str) -> None:
    def forecast(level: float) -> np.ndarray:
        return evaluate(adapter, kind, inputs(level=level))[0]

    moved = np.zeros((len(CONTEXTS), HORIZON, 4))
    for row, (context, horizon) in enumerate(zip(CONTEXTS, HORIZONS, strict=True)):
        moved[row, :horizon] = 4.0 if context else 0.0  # an empty context has no level
    assert_close(forecast(4.0) - forecast(0.0), moved, adapter.dtype, MODEL)


def test_none_leaves_rows_as_they_are(adapter: Adapter) -> None:
    def forecast(kind: str | None) -> np.ndarray:
        model = adapter.prepare(make(kind))
        return adapter.to_numpy(model(**adapter.arrays(inputs()), **LENGTHS).output)

    np.testing.assert_array_equal(forecast(None), forecast("none"))


def test_what_cannot_be_normalised_is_refused(adapter: Adapter) -> None:
    with pytest.raises(OptionError, match=r"`row_normalization` is 'mean'; expected one of"):
        make("mean")
    with pytest.raises(OptionError, match=r"`target_features` is 4; expected at most past"):
        make("standard", target_features=4)
    with pytest.raises(OptionError, match=r"`output_size` is 3; expected a multiple of tar"):
        make("standard", output_size=3)
    with pytest.raises(OptionError, match=r"`target_features` is 0; expected 1 or more"):
        make("standard", target_features=0)
    with pytest.raises(OptionError, match=r"`season` is 0; expected 1 or more"):
        make("seasonal", season=0)
