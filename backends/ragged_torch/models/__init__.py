"""The forecasting models as torch modules."""

from __future__ import annotations

from torch import nn

from ragged.models.base import Model
from ragged_torch.models.encoder_decoder_lstm import EncoderDecoderLSTM

MODELS: dict[str, type[nn.Module]] = {"EncoderDecoderLSTM": EncoderDecoderLSTM}


def create_model(description: Model) -> nn.Module:
    """Build the module that a description describes."""
    return MODELS[type(description).__name__](description)
