"""Forecasts of whole datasets, row by row, without padding, in the units of the targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragged.backend import get_backend
from ragged.data import Batch, EncoderDecoderDataModule, RaggedDataset, Sample, batches
from ragged.evaluation.calibration import Calibration
from ragged.training.objective import Objective
from ragged.training.precision import param_dtype
from ragged.training.trainer import TrainerConfig

BAND = (0.1, 0.9)


@dataclass(frozen=True, eq=False)
class RowForecast:
    """The forecast of one row, or of several joined.

    Args:
        point: `(horizon, targets)`, or `(horizon,)` of one target.
        levels: the same for each quantile level that the model forecasts.
    """

    point: np.ndarray
    levels: dict[float, np.ndarray]

    @property
    def band(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The lower and upper edge of the 10..90 % band, where the model forecasts both."""
        lower, upper = (self.levels.get(level) for level in BAND)
        return None if lower is None or upper is None else (lower, upper)

    def of_target(self, index: int) -> RowForecast:
        """The forecast of one target alone."""
        levels = {level: values[:, index] for level, values in self.levels.items()}
        return RowForecast(self.point[:, index], levels)

    @classmethod
    def joined(cls, forecasts: Sequence[RowForecast]) -> RowForecast:
        """Put rows one after the other."""
        levels = {
            level: np.concatenate([forecast.levels[level] for forecast in forecasts])
            for level in forecasts[0].levels
        }
        return cls(np.concatenate([forecast.point for forecast in forecasts]), levels)


def forecast_rows(
    module: Any,
    dataset: RaggedDataset,
    data: EncoderDecoderDataModule,
    trainer: TrainerConfig,
    calibration: Calibration | None = None,
) -> list[RowForecast]:
    """Forecast every row of a dataset, in its order, with quantiles as they are calibrated."""
    objective, dtype = trainer.objective(module.config, data), param_dtype(trainer.precision)
    predict = predictor_of(module, trainer)
    return forecast_rows_with(predict, dataset, data, objective, dtype, calibration)


def predictor_of(module: Any, trainer: TrainerConfig) -> Callable[[Batch], np.ndarray]:
    """Return the function that gives a model's outputs for a batch."""
    backend = get_backend()
    device = trainer.pick_device(backend)
    backend.to(module, device=device, dtype=param_dtype(trainer.precision))

    def predict(batch: Batch) -> np.ndarray:
        return np.asarray(backend.predict(module, batch).output)

    return predict


def forecast_rows_with(
    predict: Callable[[Batch], np.ndarray],
    dataset: RaggedDataset,
    data: EncoderDecoderDataModule,
    objective: Objective,
    dtype: str,
    calibration: Calibration | None = None,
) -> list[RowForecast]:
    """Forecast every row of a dataset, in its order, by a function of a batch."""
    outputs = outputs_of_rows(predict, dataset, data.batch_size, dtype)
    if calibration is not None:
        outputs = [calibration.apply(output, objective) for output in outputs]
    return [_in_units(output, objective, data, dataset[row]) for row, output in enumerate(outputs)]


def outputs_of_rows(
    predict: Callable[[Batch], np.ndarray], dataset: RaggedDataset, batch_size: int, dtype: str
) -> list[np.ndarray]:
    """Return the outputs of every row, `(horizon, outputs)` float64, normalised."""
    outputs: dict[int, np.ndarray] = {}
    for batch in batches(dataset, batch_size, dtype=dtype):
        lengths = batch.decoder_lengths.host
        for values, length, row in zip(predict(batch), lengths, batch.rows, strict=True):
            if row >= 0:
                outputs[int(row)] = values[:length].astype(np.float64)
    return [outputs[row] for row in range(len(dataset))]


def _in_units(
    output: np.ndarray, objective: Objective, data: EncoderDecoderDataModule, row: Sample
) -> RowForecast:
    """Undo the normalisation of a row's outputs `(horizon, outputs)`."""

    def in_units(forecast: np.ndarray) -> np.ndarray:
        names = data.source.roles.target
        inverse = data.normalization.inverse
        return np.stack([inverse(n, forecast[:, i], row) for i, n in enumerate(names)], axis=-1)

    levels = {level: in_units(f) for level, f in objective.at_levels(output).items()}
    return RowForecast(in_units(objective.point(output)), levels)
