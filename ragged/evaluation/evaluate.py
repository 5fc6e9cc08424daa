"""The evaluation of a model on the test rows, beside the baselines, on the same steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragged.data import EncoderDecoderDataModule, Sample
from ragged.evaluation.baselines import baselines
from ragged.evaluation.calibration import Calibration
from ragged.evaluation.forecasts import RowForecast, forecast_rows
from ragged.evaluation.metrics import Score, TargetScores, coverage, pinball
from ragged.training.trainer import TrainerConfig


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The forecasts of a model and the baselines for the test rows, and their scores.

    Args:
        model: the model's name.
        rows: the test rows.
        forecasts: the model's forecast of each row, in the units of the targets.
        baselines: by target and baseline the forecast of each row, `(horizon,)`, in its unit.
        targets: the scores by target; empty where there are no test rows.
    """

    model: str
    rows: Sequence[Sample]
    forecasts: Sequence[RowForecast]
    baselines: dict[str, dict[str, list[np.ndarray]]]
    targets: dict[str, TargetScores]

    def best_baseline(self, target: str) -> str:
        """The name of the baseline that scores best on a target."""
        ranked = self.targets[target].best_first()
        return next(name for name, _ in ranked if name in self.baselines[target])

    def examples(self, target: str) -> dict[str, tuple[int, float]]:
        """The best, the median and the worst test row by RMSE: its index, and its RMSE.

        Each row has one rank; rows without a known truth have none.
        """
        target_index = list(self.targets).index(target)
        ranked = []
        for index, (row, forecast) in enumerate(zip(self.rows, self.forecasts, strict=True)):
            rmse = Score.of(row.truth(target), forecast.point[:, target_index]).rmse
            if np.isfinite(rmse):
                ranked.append((rmse, index))
        if not ranked:
            return {}
        ranked.sort()
        names = {len(ranked) // 2: "median", len(ranked) - 1: "worst", 0: "best"}
        return {names[rank]: ranked[rank][::-1] for rank in sorted(names)}


def evaluate_model(
    module: Any,
    data: EncoderDecoderDataModule,
    trainer: TrainerConfig,
    calibration: Calibration | None = None,
) -> Evaluation:
    """Forecast the test rows and score each target in its unit, baselines on the same steps."""
    rows, source, roles = list(data.test.rows), data.source, data.source.roles
    fit_rows = [*data.train.rows, *data.validation.rows]
    model = module.config.model
    forecasts = forecast_rows(module, data.test, data, trainer, calibration)
    if not rows:
        return Evaluation(model, rows, forecasts, {}, {})
    asked: Any = {"season": source.season, "driver": source.driver, "known": roles.known}
    target_baselines = {name: baselines(fit_rows, rows, name, **asked) for name in roles.target}
    joined = RowForecast.joined(forecasts)
    targets = {}
    for i, name in enumerate(roles.target):
        truth = np.concatenate([row.truth(name) for row in rows])
        points = {model: joined.point[:, i]}
        points |= {key: np.concatenate(values) for key, values in target_baselines[name].items()}
        targets[name] = TargetScores(
            label(data, name),
            {key: Score.of(truth, values) for key, values in points.items()},
            *_calibrate(truth, joined.of_target(i)),
        )
    return Evaluation(model, rows, forecasts, target_baselines, targets)


def label(data: EncoderDecoderDataModule, column: str) -> str:
    """A column with its unit, if it has one."""
    unit = data.source.units.get(column)
    return f"{column} [{unit}]" if unit and unit != "-" else column


def _calibrate(truth: np.ndarray, forecast: RowForecast) -> tuple[float | None, float | None]:
    """Return the pinball loss and the coverage; None of what the model does not forecast."""
    band = forecast.band
    return (
        pinball(truth, forecast.levels) if forecast.levels else None,
        None if band is None else coverage(truth, *band),
    )
