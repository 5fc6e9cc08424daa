"""Forecasting models: `ragged.models.X(...)` gives the chosen backend's native module."""

from typing import Any

from ragged.models.attention_lstm import AttentionLSTM, AttentionLSTMConfig
from ragged.models.base import Forecast, Model
from ragged.models.config import ModelConfig
from ragged.models.encoder_decoder_lstm import EncoderDecoderLSTM, EncoderDecoderLSTMConfig
from ragged.models.temporal_fusion_transformer import (
    XTFT,
    PFTemporalFusionTransformer,
    PFTemporalFusionTransformerConfig,
    TemporalFusionTransformer,
    TemporalFusionTransformerConfig,
    XTFTConfig,
)
from ragged.models.transformer_lstm import TransformerLSTM, TransformerLSTMConfig

MODELS: dict[str, type[Model[Any]]] = {
    name: value
    for name, value in dict(vars()).items()
    if isinstance(value, type) and issubclass(value, Model) and value is not Model
}

__all__ = [
    "XTFT",
    "AttentionLSTM",
    "AttentionLSTMConfig",
    "EncoderDecoderLSTM",
    "EncoderDecoderLSTMConfig",
    "Forecast",
    "Model",
    "ModelConfig",
    "PFTemporalFusionTransformer",
    "PFTemporalFusionTransformerConfig",
    "TemporalFusionTransformer",
    "TemporalFusionTransformerConfig",
    "TransformerLSTM",
    "TransformerLSTMConfig",
    "XTFTConfig",
]
