"""Sequence models on batches whose rows differ in length: exact and fast, on PyTorch and JAX."""

from ragged import losses, models
from ragged.attend.explain import explain_attention
from ragged.attend.function import attention
from ragged.backend import available_backends, get_backend, set_backend, use_backend
from ragged.errors import RaggedError
from ragged.io.checkpoint import load, save
from ragged.lengths import Lengths
from ragged.ops.alignment import align_encoder_sequences, align_sequences, flip_sequences
from ragged.ops.masks import create_padding_mask, lengths_from_mask
from ragged.ops.packing import (
    pack_decoder_sequences,
    pack_encoder_sequences,
    pack_sequences,
    should_use_packing,
    unpack_to_fixed_length,
)
from ragged.recurrent.explain import explain
from ragged.recurrent.layers import GRU, LSTM, RNN, gru, lstm, rnn

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Lengths",
    "RaggedError",
    "align_encoder_sequences",
    "align_sequences",
    "attention",
    "available_backends",
    "create_padding_mask",
    "explain",
    "explain_attention",
    "flip_sequences",
    "get_backend",
    "gru",
    "lengths_from_mask",
    "load",
    "losses",
    "lstm",
    "models",
    "pack_decoder_sequences",
    "pack_encoder_sequences",
    "pack_sequences",
    "rnn",
    "save",
    "set_backend",
    "should_use_packing",
    "unpack_to_fixed_length",
    "use_backend",
]
