"""XTFT as a torch module."""

from __future__ import annotations

from ragged_torch.models.temporal_fusion_transformer import TemporalFusionTransformer


class XTFT(TemporalFusionTransformer):
    """Forecast quantiles; see `ragged.models.XTFT`."""
