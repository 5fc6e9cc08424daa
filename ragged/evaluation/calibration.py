"""Calibration of quantiles on validation rows, by step: split conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragged.errors import CheckpointError, OptionError
from ragged.io.checkpoint import Checkpoint
from ragged.models import ModelConfig
from ragged.training.objective import Objective
from ragged.training.trainer import TrainerConfig


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far the quantiles of each step of a horizon are moved.

    With n scores s_i = max(low_i - y_i, y_i - high_i) of what a pair of levels a / 2 and 1 - a / 2
    forecast on validation rows, and S the ceil((n + 1) (1 - a))-th smallest of them, the low level
    is moved by -S and the high one by S. A new row that is exchangeable with those lies in between
    with a probability of 1 - a or more. Levels without a partner stay, and all are sorted after.

    Args:
        offsets: `(steps + 1, outputs)`, in the normalised units of a model's outputs; the last row
            is of steps with too few scores of their own: of all steps together.
        pooled: how many steps have too few.

    Source: Y. Romano, E. Patterson, E. Candès, Conformalized Quantile Regression (2019).
    """

    offsets: np.ndarray
    pooled: int = 0

    @classmethod
    def fit(
        cls, outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray], objective: Objective
    ) -> Calibration:
        """Calibrate on rows.

        Args:
            outputs: of each row a model's outputs, `(horizon, targets * levels)`.
            truths: the targets of each row, normalised, `(horizon, targets)`; NaN where unknown.
            objective: the quantile loss with its levels.

        Raises:
            OptionError: too few known targets for a pair of levels, over all steps.
        """
        check_rows(truths, objective)
        steps, levels, pooled = max(map(len, truths)), objective.quantiles, 0
        targets = truths[0].shape[1]
        offsets = np.zeros((steps + 1, targets, len(levels)))
        truth = np.full((len(truths), steps, targets), np.nan)
        forecast = np.full((*truth.shape, len(levels)), np.nan)
        for row, (y, output) in enumerate(zip(truths, outputs, strict=True)):
            truth[row, : len(y)] = y
            forecast[row, : len(y)] = objective.by_target(output)
        for low, high in objective.pairs:
            scores = np.maximum(forecast[..., low] - truth, truth - forecast[..., high])
            for target in range(targets):
                moved, few = _bounds(scores[..., target], 2 * levels[low])
                offsets[:, target, low], offsets[:, target, high] = -moved, moved
                pooled = max(pooled, few)
        return cls(offsets.reshape(steps + 1, -1), pooled)

    def apply(self, output: np.ndarray, objective: Objective) -> np.ndarray:
        """Move the outputs of a row, `(horizon, targets * levels)`; they may cross then."""
        rows = np.minimum(np.arange(len(output)), len(self.offsets) - 1)
        return objective.by_target(output).reshape(output.shape) + self.offsets[rows]

    @classmethod
    def from_list(cls, saved: Any, outputs: int) -> Calibration:
        """Undo `offsets.tolist()`.

        Raises:
            CheckpointError: something else.
        """
        try:
            offsets = np.array(saved, dtype=np.float64)
        except (TypeError, ValueError):
            offsets = np.zeros(0)
        if offsets.ndim != 2 or offsets.shape[1] != outputs or not np.isfinite(offsets).all():
            got, expected = f"{str(saved)[:60]}", f"rows of {outputs} finite numbers"
            remedy = "Restore the file as it was written."
            raise CheckpointError.of("load", "calibration", got, expected, remedy)
        return cls(offsets)


def calibration_of(
    saved: Checkpoint, trainer: TrainerConfig, model: ModelConfig
) -> Calibration | None:
    """Return the calibration of a checkpoint; None where the trainer asks for none.

    Raises:
        CheckpointError: there is none, as the training has not ended, or a damaged one.
    """
    if not trainer.calibrate:
        return None
    offsets = saved.state.get("calibration")
    if offsets is None:
        raise saved.refuse("calibration", None, "offsets, which the end of a training writes")
    return Calibration.from_list(offsets, model.arguments()["output_size"])


def rank(count: int, alpha: float) -> int:
    """Return which of the scores in order is the bound: ceil((n + 1) (1 - a)); more than n: none.

    >>> rank(9, 0.2), rank(3, 0.2)
    (8, 4)
    """
    return math.ceil((count + 1) * (1 - alpha) - 1e-9)


def needed(alpha: float) -> int:
    """Return the least number of scores that have a bound.

    >>> needed(0.2), needed(0.04)
    (4, 24)
    """
    return math.ceil((1 - alpha) / alpha - 1e-9)


def check_rows(truths: Sequence[np.ndarray], objective: Objective) -> None:
    """Refuse validation rows with too few known targets for a pair of levels.

    Raises:
        OptionError: such rows.
    """
    known = min(np.sum([np.isfinite(y).sum(axis=0) for y in truths], axis=0)) if truths else 0
    low = min(objective.quantiles[low] for low, _ in objective.pairs)
    if known < needed(2 * low):
        got, expected = f"True with {known} known validation steps", f"{needed(2 * low)} or more"
        remedy = f"Validate on more, or leave the levels {low:g} and {1 - low:g} out."
        raise OptionError.of("train", "trainer.calibrate", got, expected, remedy)


def _bounds(scores: np.ndarray, alpha: float) -> tuple[np.ndarray, int]:
    """Return the bound of the scores `(rows, steps)` of each step and, last, of all together.

    Beside it is how many steps have too few scores of their own.
    """
    pooled = _bound(scores.ravel(), alpha)
    own = [_bound(column, alpha) for column in scores.T]
    bounds = [pooled if bound is None else bound for bound in [*own, pooled]]
    return np.array(bounds, dtype=np.float64), own.count(None)


def _bound(scores: np.ndarray, alpha: float) -> float | None:
    """Return the bound of scores, those that are not known left out; None of too few."""
    known = np.sort(scores[np.isfinite(scores)])
    place = rank(len(known), alpha)
    return float(known[place - 1]) if place <= len(known) else None
