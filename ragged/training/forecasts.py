"""Forecasts of whole datasets, row by row, without padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragged.backend import get_backend
from ragged.data import Dataset, EncoderDecoderDataModule, batches


def forecast_rows(
    module: Any, dataset: Dataset, batch_size: int, *, device: str, dtype: str
) -> list[np.ndarray]:
    """Forecast every row: `(horizon, outputs)` each, normalised, in the dataset's order."""
    backend = get_backend()
    backend.place(module, device=device, dtype=dtype)
    forecasts: list[np.ndarray] = [np.empty(0)] * len(dataset)
    for batch in batches(dataset, batch_size, dtype=dtype):
        output = backend.predict(module, batch, device=device, dtype=dtype)
        for values, length, row in zip(output, batch.decoder_lengths.host, batch.rows, strict=True):
            if row >= 0:
                forecasts[row] = values[:length]
    return forecasts


def to_units(data: EncoderDecoderDataModule, forecast: np.ndarray) -> np.ndarray:
    """Undo the normalisation of a forecast `(horizon, targets)`."""
    names = data.source.roles.target
    columns = [data.standardizer.inverse(n, forecast[:, i]) for i, n in enumerate(names)]
    return np.stack(columns, axis=-1)
