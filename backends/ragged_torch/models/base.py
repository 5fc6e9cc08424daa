"""The base classes of the models on torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ragged.models.modules import AttentionModule, ModelModule
from ragged_torch.arrays import name
from ragged_torch.tokens import BothSides


class ForecastingModel(ModelModule, nn.Module):
    """A forecasting model with an LSTM for its encoder."""

    backend_name = name
    encoder: Any

    @property
    def reference_parameter(self) -> Tensor:
        """One of the parameters, all of which have its dtype and device."""
        weight: Tensor = self.encoder.weight_ih_l0
        return weight

    def tokens_of(
        self, past: Tensor, future: Tensor, encoder_lengths: object, decoder_lengths: object
    ) -> tuple[Tensor, Tensor, BothSides]:
        """Check a model's inputs and return the tokens of both sides, and where they lie."""
        inputs = self.prepare_inputs(past, future, encoder_lengths, decoder_lengths)
        both = BothSides.of(*inputs, self.reference_parameter)
        return both.encoder.take(inputs.past), both.decoder.take(inputs.future), both


class AttentionModel(AttentionModule, ForecastingModel):
    """A forecasting model that can explain its forecasts."""
