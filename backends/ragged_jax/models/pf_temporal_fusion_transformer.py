"""PFTemporalFusionTransformer as a flax module."""

from __future__ import annotations

from ragged_jax.models.temporal_fusion_transformer import TemporalFusionTransformer


class PFTemporalFusionTransformer(TemporalFusionTransformer):
    """Forecast quantiles; see `ragged.models.PFTemporalFusionTransformer`."""
