"""The JAX backend of `ragged`: everything that touches jax."""

from ragged_jax.arrays import (
    asarray,
    count_steps,
    devices,
    framework,
    is_recording,
    is_traced,
    name,
    owns,
    promote_arrays,
    take_steps,
    to_numpy,
    xp,
)
from ragged_jax.distributed import join_workers
from ragged_jax.export import export_formats, export_model, load_exported
from ragged_jax.models import create_model
from ragged_jax.packing import PackedSequence, pack_sequences, unpack_to_fixed_length
from ragged_jax.parameters import get_parameters, place, set_parameters
from ragged_jax.recurrent.dispatch import lstm_reasons
from ragged_jax.recurrent.lstm import LSTM, lstm
from ragged_jax.training import TrainingStep, predict

__all__ = [
    "LSTM",
    "PackedSequence",
    "TrainingStep",
    "asarray",
    "count_steps",
    "create_model",
    "devices",
    "export_formats",
    "export_model",
    "framework",
    "get_parameters",
    "is_recording",
    "is_traced",
    "join_workers",
    "load_exported",
    "lstm",
    "lstm_reasons",
    "name",
    "owns",
    "pack_sequences",
    "place",
    "predict",
    "promote_arrays",
    "set_parameters",
    "take_steps",
    "to_numpy",
    "unpack_to_fixed_length",
    "xp",
]
