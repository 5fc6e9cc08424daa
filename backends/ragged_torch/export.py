"""Forecasting models as programs in files, on torch."""

from __future__ import annotations

from pathlib import Path

import torch

from ragged.backend import load_backend
from ragged.exported import Exported, check_format
from ragged_torch.arrays import name

export_formats: tuple[str, ...] = ()


def export_model(module: torch.nn.Module, path: Path, *, format: str) -> None:
    """Refuse every format: none is there yet."""
    check_format(load_backend(name), format)


def load_exported(path: Path, *, format: str) -> Exported:
    """Refuse every format: none is there yet."""
    check_format(load_backend(name), format)
    raise NotImplementedError
