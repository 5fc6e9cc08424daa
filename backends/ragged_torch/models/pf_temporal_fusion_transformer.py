"""PFTemporalFusionTransformer as a torch module."""

from __future__ import annotations

from ragged_torch.models.temporal_fusion_transformer import TemporalFusionTransformer


class PFTemporalFusionTransformer(TemporalFusionTransformer):
    """Forecast quantiles; see `ragged.models.PFTemporalFusionTransformer`."""
