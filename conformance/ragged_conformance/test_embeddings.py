"""Labels of categories among the features: each model learns a row of a table for each."""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ragged
from ragged.errors import OptionError
from ragged_conformance import evaluation, oracle, oracle_models
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import fill_padding, normal
from ragged_conformance.tolerances import DEEP, HALF, MODEL, assert_all_close, assert_close

WIDTH, HORIZON = 6, 3
CONTEXTS, HORIZONS = [4, 6, 0, 3], [3, 1, 2, 0]
LENGTHS: dict[str, Any] = {"encoder_lengths": CONTEXTS, "decoder_lengths": HORIZONS}
LABELS = np.array([1, 2, np.nan, 0, 2, 1.5, 3, 1, -1, np.inf])  # all but 1 and 2 are of no label
# Past features, future ones and what else; the XTFT is a TemporalFusionTransformer, less statics.
MODELS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "EncoderDecoderLSTM": (3, 1, {"cardinalities": (3, 0, 0)}),
    "AttentionLSTM": (3, 2, {"cardinalities": (0, 3, 0), "num_heads": 2}),
    "TransformerLSTM": (3, 2, {"cardinalities": (0, 3, 0), "embedding_size": 2, "num_blocks": 1}),
    "TemporalFusionTransformer": (
        3,
        2,
        {
            "cardinalities": (3, 3, 0),
            "static_features": 2,
            "static_cardinalities": (3, 0),
            "context_length": 5,
        },
    ),
}
models = pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.operation(f"models.{name}")) for name in MODELS]
)


def arguments(model: str) -> dict[str, Any]:
    """A model's arguments."""
    past, future, options = MODELS[model]
    sizes = {"past_features": past, "future_features": future, "hidden_size": 4, "num_layers": 1}
    return {**sizes, "output_size": 2, "seed": 0, **options}


def inputs(model: str, value: float = float("nan")) -> dict[str, np.ndarray]:
    """Past, future and static values, labels among them, with a value at padding."""
    given, rows = arguments(model), len(CONTEXTS)
    past = normal(rows, WIDTH, given["past_features"])
    future = normal(rows, HORIZON, given["future_features"], seed=1)
    for place, count in enumerate(given["cardinalities"]):
        for x in (past, future)[: 1 + (place < given["future_features"])] if count else ():
            x[..., place] = np.resize(np.roll(LABELS, place), x.shape[:2])
    side = getattr(ragged.models, model).describe(**given).encoder_alignment
    arrays = {
        "past": fill_padding(past, CONTEXTS, value, side),
        "future": fill_padding(future, HORIZONS, value),
    }
    if "static_features" in given:
        arrays["static"] = np.stack([LABELS[:rows], normal(rows)], axis=1)
    return arrays


@functools.cache
def expected_of(model: str) -> tuple[dict[str, Any], dict[str, Any], Any, Any, Any]:
    """The oracle's parameters, outputs, weights of their sum, directions and slopes."""
    config = getattr(ragged.models, model).describe(**arguments(model))
    initial = ragged.get_backend().get_parameters(make(model))
    parameters = {
        name: value.astype(float) + 0.25 * normal(*value.shape, seed=i)
        for i, (name, value) in enumerate(sorted(initial.items()))
    }
    batch = inputs(model, 0.0)

    def outputs(**values: Any) -> dict[str, np.ndarray]:
        arrays: Any = {**{name: values.pop(name) for name in batch}, **LENGTHS}
        if model == "EncoderDecoderLSTM":
            return {"output": oracle_models.encoder_decoder_lstm(config, values, **arrays)}
        return oracle_models.run(config, values, **arrays)

    values = {**batch, **parameters}
    found = outputs(**values)
    weight = normal(*found["output"].shape, seed=7)
    directions = {  # of the other parameters `test_attention_models` has the gradients
        name: normal(*value.shape, seed=100 + i)
        for i, (name, value) in enumerate(values.items())
        if name in batch or "embeddings" in name
    }

    def total(**varied: Any) -> Any:
        return (outputs(**{**values, **varied})["output"] * weight).sum()

    slopes = oracle.slopes(total, {name: values[name] for name in directions}, directions)
    return parameters, found, weight, directions, slopes


def make(model: str, **changed: Any) -> Any:
    """A model of the chosen backend."""
    return getattr(ragged.models, model)(**{**arguments(model), **changed})


@models
def test_forecast_and_gradients_equal_the_oracle(adapter: Adapter, model: str) -> None:
    parameters, expected, weight, directions, slopes = expected_of(model)
    module = adapter.prepare(make(model))
    adapter.backend.set_parameters(module, parameters)
    initial, call = adapter.functional(module)
    arrays = adapter.arrays(inputs(model))

    def total(values: Any, constants: Any) -> Any:
        own, given = (
            {name: {**constants, **values}[name] for name in n} for n in (initial, arrays)
        )
        found = {n: v for n, v in call(own, **given, **LENGTHS)._asdict().items() if v is not None}
        return (found["output"] * constants["weight"]).sum(), found

    values, constants = {**arrays, **initial}, {"weight": adapter.array(weight)}
    constants |= {name: values.pop(name) for name in initial if name not in slopes}
    has_slopes = (adapter.name, adapter.dtype) != ("jax", "float32") and adapter.dtype not in HALF
    if has_slopes:  # elsewhere bounds are wide, and JAX compiles them for seconds
        outputs, gradients = evaluation.evaluator(adapter, total)(values, constants)
    else:
        outputs = evaluation.forward(adapter, lambda v, c: total(v, c)[1])(values, constants)
    padded = {"past_selection": CONTEXTS, "future_selection": HORIZONS}
    for name, actual in outputs.items():
        real = fill_padding(actual, padded[name], 0.0) if name in padded else actual
        assert_close(real, expected[name], adapter.dtype, MODEL, name)
    if has_slopes:
        along = {name: (gradients[name] * directions[name]).sum() for name in slopes}
        assert_all_close(along, slopes, adapter.dtype, DEEP)


@pytest.mark.operation("models.EncoderDecoderLSTM", "models.TemporalFusionTransformer")
def test_what_is_no_table_is_refused(adapter: Adapter) -> None:
    lstm, tft = "EncoderDecoderLSTM", "TemporalFusionTransformer"
    refused: list[tuple[str, dict[str, Any], str]] = [
        (lstm, {"cardinalities": (3,)}, "is of 1 features; expected past_features, 3"),
        (lstm, {"cardinalities": (3, -1, 0)}, "expected integers of 0 or more"),
        (lstm, {"cardinalities": (2**21, 0, 0)}, "is 2097152; expected at most 1048576"),
        (lstm, {"future_features": 5}, "`future_features` is 5; expected at most past_features"),
        (lstm, {"cardinalities": (0, 0, 3), "row_normalization": "standard"}, "0 for each target"),
        (tft, {"embedding_size": 3}, "expected left out: a label has the width of a number"),
        (tft, {"static_cardinalities": (3,)}, "of 1 values; expected static_features, 2"),
    ]
    for model, changed, message in refused:
        with pytest.raises(OptionError, match=message):
            make(model, **changed)


@pytest.mark.operation("models.EncoderDecoderLSTM")
def test_labels_that_a_dtype_rounds_are_refused(adapter: Adapter) -> None:
    half = replace(adapter, dtype="bfloat16")
    model = half.prepare(make("EncoderDecoderLSTM", cardinalities=(258, 0, 0)))
    with pytest.raises(OptionError, match="with labels up to 257; expected at most 256"):
        model(**half.arrays(inputs("EncoderDecoderLSTM")), **LENGTHS)
