"""The base classes of the models on JAX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flax import nnx
from jax import Array

from ragged.models.modules import AttentionModule, ModelModule
from ragged.models.row_normalization import RowScale
from ragged.ops.alignment import zero_padding
from ragged.ops.tokens import as_token_capacity
from ragged_jax.arrays import name
from ragged_jax.layers import Embeddings
from ragged_jax.tokens import BothSides, Steps


class ForecastingModel(ModelModule, nnx.Module):
    """A forecasting model with an LSTM for its encoder.

    Called with `token_capacity`, static under `jax.jit`, it computes tokens alone: so many there is
    room for on each side, encoder and decoder. With too little room it raises, or forecasts NaN.
    """

    backend_name = name
    encoder: Any
    embeddings: Embeddings

    @property
    def reference_parameter(self) -> Array:
        """One of the parameters, all of which have its dtype and device."""
        weight: Array = self.encoder.weight_ih_l0[...]
        return weight

    def tokens_of(
        self,
        past: Array,
        future: Array,
        encoder_lengths: object,
        decoder_lengths: object,
        token_capacity: Sequence[int] | None,
    ) -> tuple[Array, Array, BothSides, RowScale]:
        """Check a model's inputs; return both sides' tokens, where they lie, and their scale."""
        past, future, encoder, decoder, rows = self.prepare_inputs(
            past, future, encoder_lengths, decoder_lengths
        )
        capacity = as_token_capacity(self.config.model, token_capacity, encoder, decoder)
        both = BothSides.of(past, future, encoder, decoder, capacity)
        past = self.embeddings(both.encoder.take(past), self.config.past_variables)
        future = self.embeddings(both.decoder.take(future), self.config.future_variables)
        return past, future, both, rows

    def undo_rows(self, outputs: Array, decoder: Steps, rows: RowScale) -> Array:
        """Undo the normalisation of rows, and pad: `(batch, decoder_time, output_size)`."""
        padded = decoder.pad(outputs)
        if rows.location is None:
            return padded
        undone: Array = zero_padding(self.backend, rows.undo(padded), decoder.lengths)
        return undone


class AttentionModel(AttentionModule, ForecastingModel):
    """A forecasting model that can explain its forecasts."""
