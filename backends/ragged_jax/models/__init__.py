"""The forecasting models as flax modules."""

from __future__ import annotations

from flax import nnx

from ragged.models.base import Model
from ragged_jax.models.encoder_decoder_lstm import EncoderDecoderLSTM

MODELS: dict[str, type[nnx.Module]] = {"EncoderDecoderLSTM": EncoderDecoderLSTM}


def create_model(description: Model) -> nnx.Module:
    """Build the module that a description describes."""
    return MODELS[type(description).__name__](description)
