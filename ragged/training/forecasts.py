"""Forecasts of whole datasets, row by row, without padding, in the units of the targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ragged.backend import get_backend
from ragged.data import Dataset, EncoderDecoderDataModule, batches
from ragged.training.objective import Objective
from ragged.training.trainer import Trainer


@dataclass(frozen=True, eq=False)
class RowForecast:
    """The forecast of one row.

    Args:
        point: `(horizon, targets)`.
        levels: the same for each quantile level that the model forecasts.
        band: the lower and upper edge of the 10..90 % band, where the model forecasts both.
    """

    point: np.ndarray
    levels: dict[float, np.ndarray]
    band: tuple[np.ndarray, np.ndarray] | None


def forecast_rows(
    module: Any, dataset: Dataset, data: EncoderDecoderDataModule, trainer: Trainer
) -> list[RowForecast]:
    """Forecast every row of a dataset, in its order."""
    backend = get_backend()
    backend.place(module, device=trainer.pick_device(backend), dtype=trainer.precision)
    objective = trainer.objective(module.config, data)
    found: dict[int, RowForecast] = {}
    for batch in batches(dataset, data.batch_size, dtype=trainer.precision):
        output = backend.predict(module, batch).output
        for values, length, row in zip(output, batch.decoder_lengths.host, batch.rows, strict=True):
            if row >= 0:
                found[int(row)] = _in_units(values[:length], objective, data)
    return [found[row] for row in range(len(dataset))]


def _in_units(
    output: np.ndarray, objective: Objective, data: EncoderDecoderDataModule
) -> RowForecast:
    """Undo the normalisation of a row's outputs `(horizon, outputs)`."""

    def inverse(forecast: np.ndarray) -> np.ndarray:
        names = data.source.roles.target
        columns = [data.standardizer.inverse(n, forecast[:, i]) for i, n in enumerate(names)]
        return np.stack(columns, axis=-1)

    levels = {level: inverse(f) for level, f in objective.at_levels(output).items()}
    band = objective.band(output)
    edges = None if band is None else (inverse(band[0]), inverse(band[1]))
    return RowForecast(inverse(objective.point(output)), levels, edges)
