"""The PyTorch backend of `ragged`: everything that touches torch."""

from ragged_torch.arrays import (
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
from ragged_torch.distributed import init_process_group
from ragged_torch.export import (
    export_formats,
    export_model,
    load_exported,
    onnx_translations,
)
from ragged_torch.models import create_model
from ragged_torch.packing import pack_sequences, unpack_to_fixed_length
from ragged_torch.parameters import get_parameters, set_parameters, to
from ragged_torch.ragged_attention.attend import attend
from ragged_torch.ragged_attention.dispatch import attention_reasons
from ragged_torch.ragged_attention.nested import nested_attention
from ragged_torch.recurrent.dispatch import recurrent_reasons
from ragged_torch.recurrent.layers import Recurrent
from ragged_torch.recurrent.replace import replace_recurrent
from ragged_torch.recurrent.rnn import GRU, LSTM, RNN
from ragged_torch.recurrent.run import run_recurrent
from ragged_torch.training import TrainingStep, predict

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
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
    "load_exported",
    "name",
    "nested_attention",
    "onnx_translations",
    "owns",
    "pack_sequences",
    "predict",
    "promote_arrays",
    "recurrent_reasons",
    "replace_recurrent",
    "run_recurrent",
    "set_parameters",
    "to",
    "to_numpy",
    "unpack_to_fixed_length",
    "xp",
]
