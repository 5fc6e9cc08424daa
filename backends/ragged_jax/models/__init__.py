"""The forecasting models as flax modules."""

from __future__ import annotations

from flax import nnx

from ragged.models.base import Model
from ragged_jax.models.attention_lstm import AttentionLSTM
from ragged_jax.models.encoder_decoder_lstm import EncoderDecoderLSTM
from ragged_jax.models.pf_temporal_fusion_transformer import PFTemporalFusionTransformer
from ragged_jax.models.temporal_fusion_transformer import TemporalFusionTransformer
from ragged_jax.models.transformer_lstm import TransformerLSTM
from ragged_jax.models.xtft import XTFT

MODELS: dict[str, type[nnx.Module]] = {
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


def create_model(description: Model) -> nnx.Module:
    """Build the module that a description describes."""
    return MODELS[type(description).__name__](description)
