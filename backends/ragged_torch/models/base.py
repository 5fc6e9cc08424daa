"""The base classes of the models on torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ragged.models.modules import AttentionModule, ModelModule
from ragged_torch.arrays import name


class ForecastingModel(ModelModule, nn.Module):
    """A forecasting model with an LSTM for its encoder."""

    backend_name = name
    encoder: Any

    @property
    def reference_parameter(self) -> Tensor:
        """One of the parameters, all of which have its dtype and device."""
        weight: Tensor = self.encoder.weight_ih_l0
        return weight


class AttentionModel(AttentionModule, ForecastingModel):
    """A forecasting model that can explain its forecasts."""
