"""The JAX backend of `ragged`: everything that touches jax."""

from ragged_jax.arrays import (
    arange_like,
    asarray,
    devices,
    framework,
    gather_steps,
    has_values,
    is_compiling,
    is_traced,
    name,
    owns,
    promote_arrays,
    to_numpy,
    xp,
)
from ragged_jax.compiling import jit
from ragged_jax.distributed import init_process_group
from ragged_jax.export import export_formats, export_model, load_exported
from ragged_jax.models import create_model
from ragged_jax.packing import PackedSequence, pack_sequences, unpack_to_fixed_length
from ragged_jax.parameters import get_parameters, set_parameters, to
from ragged_jax.ragged_attention.attend import attend
from ragged_jax.ragged_attention.dispatch import attention_reasons
from ragged_jax.recurrent.dispatch import recurrent_reasons
from ragged_jax.recurrent.layers import GRU, LSTM, Recurrent, run_recurrent
from ragged_jax.recurrent.rnn import RNN, Bidirectional
from ragged_jax.training import TrainingStep, predict

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "PackedSequence",
    "Recurrent",
    "TrainingStep",
    "arange_like",
    "asarray",
    "attend",
    "attention_reasons",
    "create_model",
    "devices",
    "export_formats",
    "export_model",
    "framework",
    "gather_steps",
    "get_parameters",
    "has_values",
    "init_process_group",
    "is_compiling",
    "is_traced",
    "jit",
    "load_exported",
    "name",
    "owns",
    "pack_sequences",
    "predict",
    "promote_arrays",
    "recurrent_reasons",
    "run_recurrent",
    "set_parameters",
    "to",
    "to_numpy",
    "unpack_to_fixed_length",
    "xp",
]
