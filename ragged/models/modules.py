"""Base classes of the backends' model modules: input validation and explanations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ragged.backend import check_frameworks, load_backend
from ragged.checks import as_array
from ragged.errors import OptionError, ShapeError
from ragged.lengths import Lengths
from ragged.models.base import Forecast
from ragged.models.categories import check_labels_fit
from ragged.models.config import ModelConfig
from ragged.models.row_normalization import RowScale, normalize_rows
from ragged.ops.alignment import align_encoder_sequences
from ragged.protocol import Array, Backend

Module = TypeVar("Module")


class Inputs(NamedTuple):
    """A model's inputs, checked and left aligned, with the lengths of both sides.

    The targets in `past` are normalised as the model does; `rows` undoes it. Padding may hold
    anything.
    """

    past: Array
    future: Array
    encoder: Lengths
    decoder: Lengths
    rows: RowScale


class ModelModule:
    """A mixin of a model's module, beside the framework's module class.

    Args:
        config: the model's configuration.
        backend_name: the backend's.
        reference_parameter: one of the parameters, which all have its dtype and device.
    """

    config: Any
    backend_name: str
    reference_parameter: Any

    @property
    def backend(self) -> Backend:
        """The backend that the module is of."""
        return load_backend(self.backend_name)

    def prepare_inputs(
        self, past: Array, future: Array, encoder_lengths: object, decoder_lengths: object
    ) -> Inputs:
        """Check, convert, left-align and normalise a model's inputs."""
        config, backend, reference = self.config, self.backend, self.reference_parameter
        model = config.model
        check_frameworks(
            model,
            backend,
            past=past,
            future=future,
            encoder_lengths=encoder_lengths,
            decoder_lengths=decoder_lengths,
        )
        past = as_array(backend, model, "past", past, reference)
        future = as_array(backend, model, "future", future, reference)
        sides = (
            ("past", "encoder_time", past, config.past_features),
            ("future", "decoder_time", future, config.future_features),
        )
        for name, time, array, size in sides:
            if array.ndim != 3 or array.shape[2] != size:
                got, expected = f"of shape {tuple(array.shape)}", f"(batch, {time}, {size})"
                remedy = f"Set {name}_features to the features of the data."
                raise ShapeError.of(model, name, got, expected, remedy)
        batch = past.shape[0]
        if future.shape[0] != batch:
            got, expected = f"of {future.shape[0]} rows", f"{batch}, one for each row of `past`"
            remedy = "Give both sides of the same batch."
            raise ShapeError.of(model, "future", got, expected, remedy)
        arrays = {"parameters": reference, "past": past, "future": future}
        _, past, future = backend.promote_arrays(model, arrays).values()
        check_labels_fit(backend, model, "past", past, config.cardinalities)
        named = {"encoder_lengths": (encoder_lengths, past)}
        named |= {"decoder_lengths": (decoder_lengths, future)}
        call: dict[str, Any] = {"function": model, "batch": batch}
        encoder, decoder = (
            Lengths.of(lengths, array.shape[1], backend, **call, argument=argument)
            for argument, (lengths, array) in named.items()
        )
        if config.encoder_alignment == "right" and not encoder.is_full:
            past = align_encoder_sequences(past, encoder)
        past, rows = normalize_rows(
            backend,
            past,
            encoder,
            decoder,
            kind=config.row_normalization,
            targets=config.target_features,
            season=config.season,
        )
        return Inputs(past, future, encoder, decoder, rows)


class AttentionModule(ModelModule):
    """A module that can explain its forecasts."""

    def interpret(self, batch: Any) -> dict[str, np.ndarray]:
        """Explain the forecasts of a host batch, as arrays on the host.

        `attention (batch, heads, decoder_time, encoder_time + decoder_time)`, and where the model
        selects variables `past_selection`, `future_selection` and `static_selection`, each
        `(batch, ..., features)`; all left aligned and exactly 0 at padding. `encoder_lengths` and
        `decoder_lengths` are their valid steps.

        Args:
            batch: of `ragged.data`, in the model's own alignment.
        """
        return interpretation(self.backend.predict(self, batch, need_weights=True), batch)


def creator(*modules: type[Module]) -> Callable[[ModelConfig], Module]:
    """Build a backend's `create_model` from its modules, each named like its model."""
    by_model: dict[str, Callable[[ModelConfig], Module]] = {m.__name__: m for m in modules}

    def create_model(config: ModelConfig) -> Module:
        """Build the module of a configuration."""
        return by_model[config.model](config)

    return create_model


def check_batch(config: Any, batch: Any) -> None:
    """Refuse a batch whose context is not aligned as the model requires."""
    required = config.encoder_alignment
    if batch.encoder_alignment != required:
        got = f"{batch.encoder_alignment} aligned in its encoder part"
        expected = f"{required} aligned, which the model takes"
        remedy = f"Set data.encoder_alignment, or `alignment` of collate, to {required!r}."
        raise OptionError.of(config.model, "batch", got, expected, remedy)


def interpretation(forecast: Forecast, batch: Any) -> dict[str, np.ndarray]:
    """Collect the explanations of a forecast in a dict of host arrays, exactly 0 at padding."""
    encoder, decoder = batch.encoder_lengths, batch.decoder_lengths
    explanations = {
        "attention": forecast.attention,
        "past_selection": forecast.past_selection,
        "future_selection": forecast.future_selection,
        "static_selection": forecast.static_selection,
    }
    if forecast.static_selection is not None:  # rows that only fill the batch have no values
        filled = (batch.rows >= 0)[:, None]
        explanations["static_selection"] = np.where(filled, forecast.static_selection, 0)
    explained = {name: value for name, value in explanations.items() if value is not None}
    return {**explained, "encoder_lengths": encoder.host, "decoder_lengths": decoder.host}
