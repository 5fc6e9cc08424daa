"""What the promises are tested on: layers and models behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle_models
from ragged_conformance.cases import HIDDEN, INPUTS, WIDTH, fill_padding, normal
from ragged_conformance.recurrent import Layer, arrays_of, as_state
from ragged_conformance.tolerances import LAYER, MODEL

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Arrays with rows first, and the lengths of those that are sequences."""

    arrays: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]

    def rows(self, index: Any) -> Batch:
        """Take some rows."""
        return Batch(
            {name: value[index] for name, value in self.arrays.items()},
            {name: value[index] for name, value in self.lengths.items()},
        )

    def filled(self, value: float) -> Batch:
        """Write a value into all padding."""
        return self._map(lambda x, lengths: fill_padding(x, lengths, value))

    def widened(self, steps: int) -> Batch:
        """Append padding."""
        return self._map(lambda x, _: np.pad(x, ((0, 0), (0, steps), (0, 0))))

    def trimmed(self) -> Batch:
        """Cut a batch of one row to its length: no padding is left."""
        return self._map(lambda x, lengths: x[:, : lengths[0]])

    def laid_out(self) -> Batch:
        """Lay every array out row by row in memory."""
        return Batch({n: np.ascontiguousarray(x) for n, x in self.arrays.items()}, self.lengths)

    def emptied(self) -> Batch:
        """Give every row length 0."""
        return Batch(self.arrays, {name: 0 * value for name, value in self.lengths.items()})

    def _map(self, transform: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Batch:
        changed = {name: transform(self.arrays[name], n) for name, n in self.lengths.items()}
        return Batch({**self.arrays, **changed}, self.lengths)


@dataclass(frozen=True, eq=False)
class Subject:
    """A layer or model under test.

    `call(module, arrays, lengths)` gives the outputs with rows first, `oracle(arrays, parameters,
    lengths)` the expected ones; `sequences` names the input whose lengths each output with steps
    has; `operation` is its public name. One that `forwards_lengths` to layers, whose schedules
    other subjects test, is tested with native lengths: JAX then compiles one program for them all.
    """

    operation: str
    build: Callable[[], Any]
    call: Callable[[Callable[..., Any], Arrays, Mapping[str, Any]], Arrays]
    oracle: Callable[[Arrays, Arrays, Mapping[str, Any]], Arrays]
    batch: Batch
    sequences: dict[str, str]
    kind: str
    forwards_lengths: bool = False


def recurrent_subject(mode: str, **options: Any) -> Subject:
    """Make a recurrent layer a subject."""
    spec = Layer(mode, options)

    def call(layer: Callable[..., Any], arrays: Arrays, lengths: Mapping[str, Any]) -> Arrays:
        state = as_state(arrays[name].swapaxes(0, 1) for name in spec.states)
        return rows_first(layer(arrays["x"], lengths["x"], state))

    def equations(arrays: Arrays, parameters: Arrays, lengths: Mapping[str, Any]) -> Arrays:
        return call(lambda *arguments: spec.oracle(parameters, *arguments), arrays, lengths)

    state = {name: part.swapaxes(0, 1) for name, part in spec.state(4).items()}
    return Subject(
        spec.name,
        lambda: spec.build(seed=0),
        call,
        equations,
        Batch({"x": normal(4, WIDTH, INPUTS), **state}, {"x": np.array([3, 5, 0, 1])}),
        {"y": "x"},
        LAYER,
    )


def rows_first(result: Any) -> Arrays:
    """Name what a recurrent layer returns, the rows of its states first."""
    y, *state = arrays_of(result)
    return {"y": y, **dict(zip("hc", (part.swapaxes(0, 1) for part in state), strict=False))}


def lstm_subject(**options: Any) -> Subject:
    """Make the LSTM layer a subject."""
    return recurrent_subject("LSTM", **options)


def model_subject(name: str, **options: Any) -> Subject:
    """Make a forecasting model a subject."""

    def call(model: Callable[..., Any], arrays: Arrays, lengths: Mapping[str, Any]) -> Arrays:
        forecast = model(arrays["past"], arrays["future"], lengths["past"], lengths["future"])
        return {"output": forecast.output}

    def equations(arrays: Arrays, parameters: Arrays, lengths: Mapping[str, Any]) -> Arrays:
        arguments = arrays["past"], arrays["future"], lengths["past"], lengths["future"]
        config = getattr(ragged.models, name).describe(2, 1, seed=0, **options)
        if name == "EncoderDecoderLSTM":
            return {"output": oracle_models.encoder_decoder_lstm(config, parameters, *arguments)}
        return {"output": oracle_models.run(config, parameters, *arguments)["output"]}

    arrays = {"past": normal(4, WIDTH, 2), "future": normal(4, 4, 1)}
    lengths = {"past": np.array([3, 0, 5, 1]), "future": np.array([4, 2, 1, 0])}
    return Subject(
        f"models.{name}",
        lambda: getattr(ragged.models, name)(2, 1, seed=0, **options),
        call,
        equations,
        Batch(arrays, lengths),
        {"output": "future"},
        MODEL,
    )


def encoder_decoder_lstm_subject(**options: Any) -> Subject:
    """Make the EncoderDecoderLSTM a subject."""
    return model_subject("EncoderDecoderLSTM", hidden_size=HIDDEN, **options)


# Small, one layer each: the recurrent subjects test the layers. Left aligned like the suite's
# batches; `test_attention_models` tests right alignment.
ATTENTION: dict[str, dict[str, Any]] = {
    "AttentionLSTM": {"decoder_hidden_size": 6},  # of 2 values a LayerNorm keeps only signs
    "TransformerLSTM": {"num_blocks": 1},
    "TemporalFusionTransformer": {
        "context_length": 5,
        "encoder_alignment": "left",
        "row_normalization": "last_value",
    },
    "PFTemporalFusionTransformer": {"reference_length": 5, "encoder_alignment": "left"},
    "XTFT": {"encoder_alignment": "left"},
}


def attention_subject(name: str, **options: Any) -> Subject:
    """Make a model with attention a subject."""
    sizes = {"hidden_size": 4, "num_layers": 1, "num_heads": 2, "output_size": 2}
    subject = model_subject(name, **{**sizes, **ATTENTION[name], **options})
    return replace(subject, forwards_lengths=True)


def marked(subjects: Mapping[str, Subject]) -> list[Any]:
    """Name subjects as parameters of a test, each marked with what it proves."""
    return [
        pytest.param(name, marks=pytest.mark.operation(subject.operation))
        for name, subject in subjects.items()
    ]


SUBJECTS: dict[str, Subject] = {
    "LSTM": lstm_subject(num_layers=2, bidirectional=True),
    "GRU": recurrent_subject("GRU", num_layers=2, bidirectional=True),
    "RNN_TANH": recurrent_subject("RNN_TANH", bidirectional=True),
    "RNN_RELU": recurrent_subject("RNN_RELU", num_layers=2, bias=False),
    "EncoderDecoderLSTM": encoder_decoder_lstm_subject(
        decoder_hidden_size=2, output_size=2, row_normalization="seasonal", season=2
    ),
    **{name: attention_subject(name) for name in ATTENTION},
}
