"""The base classes of the models on torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ragged.models.modules import AttentionModule, ModelModule
from ragged.models.row_normalization import RowScale
from ragged.ops.alignment import zero_padding
from ragged_torch.arrays import name
from ragged_torch.layers import Embeddings
from ragged_torch.tokens import BothSides, Steps


class ForecastingModel(ModelModule, nn.Module):
    """A forecasting model with an LSTM for its encoder."""

    backend_name = name
    encoder: Any
    embeddings: Embeddings

    @property
    def reference_parameter(self) -> Tensor:
        """One of the parameters, all of which have its dtype and device."""
        weight: Tensor = self.encoder.weight_ih_l0
        return weight

    def tokens_of(
        self, past: Tensor, future: Tensor, encoder_lengths: object, decoder_lengths: object
    ) -> tuple[Tensor, Tensor, BothSides, RowScale]:
        """Check a model's inputs; return both sides' tokens, where they lie, and their scale."""
        *inputs, rows = self.prepare_inputs(past, future, encoder_lengths, decoder_lengths)
        both = BothSides.of(*inputs, self.reference_parameter)
        past = self.embeddings(both.encoder.take(inputs[0]), self.config.past_variables)
        future = self.embeddings(both.decoder.take(inputs[1]), self.config.future_variables)
        return past, future, both, rows

    def undo_rows(self, outputs: Tensor, decoder: Steps, rows: RowScale) -> Tensor:
        """Undo the normalisation of rows, and pad: `(batch, decoder_time, output_size)`."""
        padded = decoder.pad(outputs)
        if rows.location is None:
            return padded
        undone: Tensor = zero_padding(self.backend, rows.undo(padded), decoder.lengths)
        return undone


class AttentionModel(AttentionModule, ForecastingModel):
    """A forecasting model that can explain its forecasts."""
