"""Scores of forecasts, over the steps whose truth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any, Unpack

import numpy as np

from ragged.backend import backend_of
from ragged.checks import as_array
from ragged.errors import ShapeError
from ragged.io.safe_json import finite_or_none
from ragged.losses import Masking, masked_loss
from ragged.losses.classification import refuse_elements
from ragged.losses.masking import masked
from ragged.protocol import Array, Backend


@dataclass(frozen=True)
class Score:
    """The scores of a point forecast, over all steps whose truth is known.

    Args:
        r2: the share of the truth's variance that the forecast explains; NaN where the truth does
            not vary.
        rmse: the root mean squared error, in the target's unit.
        mae: the mean absolute error, in the target's unit.
    """

    r2: float
    rmse: float
    mae: float

    @classmethod
    def of(cls, truth: np.ndarray, forecast: np.ndarray) -> Score:
        """Compare two vectors of steps; all is NaN where no truth is known.

        Args:
            truth: `(steps,)`; NaN where it is unknown, which is left out.
            forecast: `(steps,)`.

        Example:
            >>> Score.of(np.array([0., 2., np.nan]), np.array([0., 1., 5.]))
            Score(r2=0.5, rmse=0.7071067811865476, mae=0.5)
        """
        known = np.isfinite(truth)
        if not known.any():
            return cls(math.nan, math.nan, math.nan)
        truth, error = truth[known], (forecast - truth)[known]
        spread = float(((truth - truth.mean()) ** 2).sum())
        varies = bool(truth.min() < truth.max())  # the mean of equal values may be rounded
        return cls(
            r2=1 - float((error**2).sum()) / spread if varies else math.nan,
            rmse=float(np.sqrt((error**2).mean())),
            mae=float(np.abs(error).mean()),
        )


def pinball(truth: np.ndarray, levels: Mapping[float, np.ndarray]) -> float:
    """The mean quantile loss of forecasts at several levels; NaN where no truth is known.

    Args:
        truth: `(steps,)`; NaN where it is unknown, which is left out.
        levels: for each level, inside 0..1, the forecast `(steps,)`.

    Example:
        >>> pinball(np.array([1.0]), {0.25: np.array([0.0]), 0.75: np.array([2.0])})
        0.25
    """
    known = np.isfinite(truth)
    if not known.any():
        return math.nan
    errors = {level: (truth - forecast)[known] for level, forecast in levels.items()}
    return float(np.mean([np.maximum(q * e, (q - 1) * e) for q, e in errors.items()]))


def coverage(truth: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The share of the known truths inside a band, its edges included; NaN where none is known.

    Args:
        truth: `(steps,)`; NaN where it is unknown, which is left out.
        lower: the band's lower edge, `(steps,)`.
        upper: its upper edge, `(steps,)`.

    Example:
        >>> coverage(np.array([1.0, 5.0]), np.array([0.0, 0.0]), np.array([2.0, 2.0]))
        0.5
    """
    known = np.isfinite(truth)
    inside = ((lower <= truth) & (truth <= upper))[known]
    return float(inside.mean()) if inside.size else math.nan


@masked_loss()
def accuracy(prediction: Array, target: Array, **masking: Unpack[Masking]) -> Array:
    """The share of labels that equal the target's.

    It is masked, weighted and reduced as a loss is (`ragged.losses`), on arrays of any framework:
    nothing valid gives 0, and `accuracy.total_and_count` is for sums over batches.

    Args:
        prediction: labels, `(batch, time, *features)` or `(batch,)`; or logits or probabilities
            with a last axis of classes, whose argmax is the label.
        target: labels, `(batch, time, *features)` or `(batch,)`.

    Raises:
        ShapeError: the labels of both sides differ in shape.
        TargetError: a valid label is not a whole number, as logits of yes and no or probabilities
            are not. Where a compiler traces both, which have no values then, the share is NaN.

    Example:
        >>> logits = np.array([[[2.0, 1.0], [0.0, 3.0], [np.nan, np.nan]]])
        >>> float(accuracy(logits, np.array([[0, 0, -100]]), lengths=[2]))
        0.5
    """

    def right(backend: Backend, labels: Array, target: Array) -> Array:
        xp = backend.xp
        hits = xp.astype(labels == target, target.dtype)
        expected = "a label, which is a whole number"
        remedy = "Take the argmax over the classes of both sides, or `logits > 0` of yes and no."
        for argument, side in (("prediction", labels), ("target", target)):
            is_broken = side != xp.floor(side)
            refuse_elements(backend, "accuracy", argument, side, is_broken, expected, remedy)
            hits = xp.where(is_broken, xp.full_like(hits, xp.nan), hits)
        return hits

    return masked(accuracy, right, _labels(prediction, target), target, **masking)


def _labels(prediction: Array, target: Array) -> Array:
    """Return the classes of the largest logits, or the labels themselves."""
    backend = backend_of("accuracy", prediction=prediction, target=target)
    logits = as_array(backend, "accuracy", "prediction", prediction)
    labels = as_array(backend, "accuracy", "target", target)
    if logits.ndim != labels.ndim + 1:
        return prediction
    if not logits.shape[-1]:
        got, expected = f"of shape {tuple(logits.shape)}", "a last axis of one class or more"
        remedy = "Give labels, or the logits of all classes."
        raise ShapeError.of("accuracy", "prediction", got, expected, remedy)
    return backend.xp.argmax(logits, axis=-1)


@dataclass(frozen=True)
class TargetScores:
    """All scores of one target.

    Args:
        label: the target with its unit.
        scores: of the model and of each baseline, by name.
        pinball: the model's mean quantile loss; None for point forecasts.
        coverage: the share of the truths in the model's 10..90 % band; None without that band.
    """

    label: str
    scores: Mapping[str, Score]
    pinball: float | None = None
    coverage: float | None = None

    def best_first(self) -> list[tuple[str, Score]]:
        """The scores, the best first: by RMSE, which ranks as R² does; those without one last."""

        def rank(item: tuple[str, Score]) -> tuple[bool, float]:
            return math.isnan(item[1].rmse), item[1].rmse

        return sorted(self.scores.items(), key=rank)


def format_score(value: float) -> str:
    """Format a score with three significant digits or decimals.

    >>> [format_score(value) for value in (0.4567, -12.0, 0.0, 1e-5, 123456.0, float("nan"))]
    ['0.457', '-12.000', '0.000', '1e-05', '1.23e+05', 'nan']
    """
    plain = not math.isfinite(value) or value == 0 or 0.01 <= abs(value) < 1e4
    return f"{value:.3f}" if plain else f"{value:.3g}"


def scores_table(targets: Mapping[str, TargetScores]) -> str:
    """Lay scores out as text, one block for each target, best first."""
    blocks = ["\n".join(_block(target)) for target in targets.values()]
    return "\n\n".join(blocks) or "no test events to score"


def _block(target: TargetScores) -> list[str]:
    lines = [f"{f'test events, {target.label}':<46}{'R²':>9}{'RMSE':>9}{'MAE':>9}"]
    for name, score in target.best_first():
        columns = "".join(f"{format_score(value):>9}" for value in astuple(score))
        lines.append(f"{name:<46}{columns}")
    return lines + calibration_lines(target)


def calibration_lines(target: TargetScores) -> list[str]:
    """Describe the quantile forecasts of a target in lines of text; none for point forecasts."""
    lines = []
    if target.pinball is not None:
        lines.append(f"pinball loss {format_score(target.pinball)}, the mean over the quantiles")
    if target.coverage is not None:
        share = f"{target.coverage:.1%}"
        lines.append(f"{share} of the truths lie in the 10..90 % band, made for 80 %")
    return lines


def to_json(targets: Mapping[str, TargetScores]) -> str:
    """Write the scores of all targets as JSON; what is NaN becomes null.

    Example:
        >>> one = TargetScores("flow [m³/s]", {"persistence": Score(float("nan"), 0.5, 0.25)})
        >>> print(to_json({"flow": one}))
        {
          "targets": {
            "flow": {
              "persistence": {
                "r2": null,
                "rmse": 0.5,
                "mae": 0.25
              }
            }
          }
        }
    """
    content: dict[str, Any] = {
        "targets": {
            name: {
                key: {n: finite_or_none(v) for n, v in asdict(score).items()}
                for key, score in target.scores.items()
            }
            for name, target in targets.items()
        }
    }
    for measure in ("pinball", "coverage"):
        values = {name: getattr(target, measure) for name, target in targets.items()}
        present = {n: finite_or_none(value) for n, value in values.items() if value is not None}
        if present:
            content[measure] = present
    return json.dumps(content, indent=2)
