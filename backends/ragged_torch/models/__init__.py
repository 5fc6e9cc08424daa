"""The forecasting models as torch modules."""

from __future__ import annotations

from torch import nn

from ragged.models.base import Model
from ragged_torch.models.attention_lstm import AttentionLSTM
from ragged_torch.models.encoder_decoder_lstm import EncoderDecoderLSTM
from ragged_torch.models.pf_temporal_fusion_transformer import PFTemporalFusionTransformer
from ragged_torch.models.temporal_fusion_transformer import TemporalFusionTransformer
from ragged_torch.models.transformer_lstm import TransformerLSTM
from ragged_torch.models.xtft import XTFT

MODELS: dict[str, type[nn.Module]] = {
    model.__name__: model
    for model in (
        EncoderDecoderLSTM,
        AttentionLSTM,
        TransformerLSTM,
        TemporalFusionTransformer,
        PFTemporalFusionTransformer,
        XTFT,
    )
}


def create_model(description: Model) -> nn.Module:
    """Build the module that a description describes."""
    return MODELS[type(description).__name__](description)
