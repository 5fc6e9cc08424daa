"""The forecasting models as flax modules."""

from ragged.models.modules import creator
from ragged_jax.models.attention_lstm import AttentionLSTM
from ragged_jax.models.encoder_decoder_lstm import EncoderDecoderLSTM
from ragged_jax.models.temporal_fusion_transformer import (
    XTFT,
    PFTemporalFusionTransformer,
    TemporalFusionTransformer,
)
from ragged_jax.models.transformer_lstm import TransformerLSTM

create_model = creator(
    EncoderDecoderLSTM,
    AttentionLSTM,
    TransformerLSTM,
    TemporalFusionTransformer,
    PFTemporalFusionTransformer,
    XTFT,
)
