"""XTFT as a flax module."""

from __future__ import annotations

from ragged_jax.models.temporal_fusion_transformer import TemporalFusionTransformer


class XTFT(TemporalFusionTransformer):
    """Forecast quantiles; see `ragged.models.XTFT`."""
