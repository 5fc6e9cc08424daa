"""Scores of forecasts and of the baselines that a model has to beat, on the same steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ragged.data import Row


@dataclass(frozen=True)
class Score:
    """R², root mean squared error and mean absolute error over all valid steps."""

    r2: float
    rmse: float
    mae: float

    @classmethod
    def of(cls, truth: np.ndarray, forecast: np.ndarray) -> Score:
        """Compare two vectors of steps; R² is NaN where the truth does not vary.

        Example:
            >>> Score.of(np.array([0., 2.]), np.array([0., 1.]))
            Score(r2=0.5, rmse=0.7071067811865476, mae=0.5)
        """
        error = forecast - truth
        spread = float(((truth - truth.mean()) ** 2).sum())
        return cls(
            r2=1 - float((error**2).sum()) / spread if spread > 0 else float("nan"),
            rmse=float(np.sqrt((error**2).mean())),
            mae=float(np.abs(error).mean()),
        )


def pinball(truth: np.ndarray, levels: dict[float, np.ndarray]) -> float:
    """The mean quantile loss of forecasts at several levels.

    Example:
        >>> pinball(np.array([1.0]), {0.25: np.array([0.0]), 0.75: np.array([2.0])})
        0.25
    """
    errors = {level: truth - forecast for level, forecast in levels.items()}
    return float(np.mean([np.maximum(q * e, (q - 1) * e) for q, e in errors.items()]))


def coverage(truth: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The share of the truths inside a band, its edges included.

    Example:
        >>> coverage(np.array([1.0, 5.0]), np.array([0.0, 0.0]), np.array([2.0, 2.0]))
        0.5
    """
    return float(((lower <= truth) & (truth <= upper)).mean())


Features = Callable[[Row], np.ndarray]


def baselines(fit_rows: list[Row], rows: list[Row]) -> dict[str, list[np.ndarray]]:
    """Forecast `rows` with what needs no sequence model, fitted by least squares on `fit_rows`.

    Rows carry normalised features: known ones in `future`, the target last in `past`. Straight
    lines and parabolas do not depend on the normalisation.

    Returns:
        The forecasts of each row, `(horizon,)` each, by the baseline's name.
    """
    return {
        "rating curve, line": _fit(_line, fit_rows, rows),
        "rating curve, parabola": _fit(_parabola, fit_rows, rows),
        "rating curve, rate of change, last observed": _fit(_rate_and_last, fit_rows, rows),
        "persistence": [np.full(len(row.future), row.past[-1, -1]) for row in rows],
    }


def _fit(features: Features, fit_rows: list[Row], rows: list[Row]) -> list[np.ndarray]:
    matrix = np.concatenate([features(row) for row in fit_rows])
    truth = np.concatenate([row.target[:, 0] for row in fit_rows])
    weights = np.linalg.lstsq(matrix, truth, rcond=None)[0]
    return [features(row) @ weights for row in rows]


def _line(row: Row) -> np.ndarray:
    return np.stack([np.ones(len(row.future)), row.future[:, 0]], axis=1)


def _parabola(row: Row) -> np.ndarray:
    return np.concatenate([_line(row), row.future[:, :1] ** 2], axis=1)


def _rate_and_last(row: Row) -> np.ndarray:
    last = np.full((len(row.future), 1), row.past[-1, -1])
    return np.concatenate([_parabola(row), row.future[:, 1:2], last], axis=1)
