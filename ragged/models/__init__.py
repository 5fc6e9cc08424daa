"""Forecasting models: `ragged.models.X(...)` gives the chosen backend's native module."""

from ragged.models.attention_lstm import AttentionLSTM
from ragged.models.base import Forecast, Model
from ragged.models.encoder_decoder_lstm import EncoderDecoderLSTM
from ragged.models.pf_temporal_fusion_transformer import PFTemporalFusionTransformer
from ragged.models.temporal_fusion_transformer import TemporalFusionTransformer
from ragged.models.transformer_lstm import TransformerLSTM
from ragged.models.xtft import XTFT

__all__ = [
    "XTFT",
    "AttentionLSTM",
    "EncoderDecoderLSTM",
    "Forecast",
    "Model",
    "PFTemporalFusionTransformer",
    "TemporalFusionTransformer",
    "TransformerLSTM",
]
