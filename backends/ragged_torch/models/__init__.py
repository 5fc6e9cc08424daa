"""The forecasting models as torch modules."""

from ragged.models.modules import creator
from ragged_torch.models.attention_lstm import AttentionLSTM
from ragged_torch.models.encoder_decoder_lstm import EncoderDecoderLSTM
from ragged_torch.models.temporal_fusion_transformer import (
    XTFT,
    PFTemporalFusionTransformer,
    TemporalFusionTransformer,
)
from ragged_torch.models.transformer_lstm import TransformerLSTM

create_model = creator(
    EncoderDecoderLSTM,
    AttentionLSTM,
    TransformerLSTM,
    TemporalFusionTransformer,
    PFTemporalFusionTransformer,
    XTFT,
)
