"""Data: sources of events, their normalisation, and padded batches of few shapes."""

from ragged.data.batches import Batch, batches, collate
from ragged.data.dataset import Dataset, Row
from ragged.data.magnet import MagnetHysteresis
from ragged.data.module import EncoderDecoderDataModule
from ragged.data.normalization import Standardizer
from ragged.data.sources import Event, Roles, Source
from ragged.data.storms import Storms

__all__ = [
    "Batch",
    "Dataset",
    "EncoderDecoderDataModule",
    "Event",
    "MagnetHysteresis",
    "Roles",
    "Row",
    "Source",
    "Standardizer",
    "Storms",
    "batches",
    "collate",
]
