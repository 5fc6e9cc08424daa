"""The PyTorch backend of `ragged`: everything that touches torch."""

from ragged_torch.arrays import (
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
from ragged_torch.distributed import join_workers
from ragged_torch.export import (
    export_formats,
    export_model,
    load_exported,
    onnx_translations,
)
from ragged_torch.models import create_model
from ragged_torch.packing import pack_sequences, unpack_to_fixed_length
from ragged_torch.parameters import get_parameters, place, set_parameters
from ragged_torch.recurrent.dispatch import lstm_reasons
from ragged_torch.recurrent.lstm import LSTM, lstm
from ragged_torch.training import TrainingStep, predict

__all__ = [
    "LSTM",
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
    "onnx_translations",
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
