"""The base classes of the models on JAX."""

from __future__ import annotations

from typing import Any

from flax import nnx
from jax import Array

from ragged.models.modules import AttentionModule, ModelModule
from ragged_jax.arrays import name


class ForecastingModel(ModelModule, nnx.Module):
    """A forecasting model with an LSTM for its encoder."""

    backend_name = name
    encoder: Any

    @property
    def reference_parameter(self) -> Array:
        """One of the parameters, all of which have its dtype and device."""
        weight: Array = self.encoder.weight_ih_l0[...]
        return weight


class AttentionModel(AttentionModule, ForecastingModel):
    """A forecasting model that can explain its forecasts."""
