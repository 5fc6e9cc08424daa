"""Data: sources of events, their normalisation, and padded batches of few shapes."""

from ragged.data.batching import Batch, batches, collate, without_loss_masking
from ragged.data.dataset import RaggedDataset
from ragged.data.magnet import MagnetHysteresis
from ragged.data.module import EncoderDecoderDataModule
from ragged.data.normalization import Normalization
from ragged.data.prefetching import prefetch
from ragged.data.sample import Sample
from ragged.data.sources import Roles, Series, Source
from ragged.data.storms import Storms
from ragged.data.tables import Tables
from ragged.data.transforms import (
    CalibrationCurve,
    Difference,
    Log,
    RobustScaler,
    StandardScaler,
    Transform,
)
from ragged.data.windows import Windows

__all__ = [
    "Batch",
    "CalibrationCurve",
    "Difference",
    "EncoderDecoderDataModule",
    "Log",
    "MagnetHysteresis",
    "Normalization",
    "RaggedDataset",
    "RobustScaler",
    "Roles",
    "Sample",
    "Series",
    "Source",
    "StandardScaler",
    "Storms",
    "Tables",
    "Transform",
    "Windows",
    "batches",
    "collate",
    "prefetch",
    "without_loss_masking",
]
