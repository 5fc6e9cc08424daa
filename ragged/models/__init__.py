"""Forecasting models: `ragged.models.X(...)` gives the chosen backend's native module."""

from ragged.models.base import Forecast, Model
from ragged.models.encoder_decoder_lstm import EncoderDecoderLSTM

__all__ = ["EncoderDecoderLSTM", "Forecast", "Model"]
