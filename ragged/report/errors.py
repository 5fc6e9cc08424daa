"""Errors by horizon step, and by the length of the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ErrorsBy:
    """Root mean squared errors of several forecasts, in groups of steps.

    Args:
        first: `(groups,)`, the least step or length of each group.
        last: `(groups,)`, the greatest.
        counts: `(groups,)`, how many steps with a known truth it holds.
        rmse: by forecast `(groups,)`, NaN in a group without a known truth.
    """

    first: np.ndarray
    last: np.ndarray
    counts: np.ndarray
    rmse: dict[str, np.ndarray]


def errors_by_step(
    truths: Sequence[np.ndarray], forecasts: Mapping[str, Sequence[np.ndarray]], groups: int = 40
) -> ErrorsBy:
    """Group the steps of all rows by how far ahead they are, in at most `groups`.

    Args:
        truths: of each row `(horizon,)`, NaN where unknown.
        forecasts: by name the same.
        groups: the maximum number, each of equally many steps ahead.

    Example:
        >>> truths = [np.zeros(2), np.zeros(3)]
        >>> errors = errors_by_step(truths, {"a": [np.array([1., 2]), np.array([1., 0, 5])]})
        >>> errors.first.tolist(), errors.counts.tolist(), errors.rmse["a"].round(2).tolist()
        ([1, 2, 3], [2, 2, 1], [1.0, 1.41, 5.0])
    """
    steps = np.concatenate([np.arange(1, len(truth) + 1) for truth in truths])
    width = -(-int(steps.max()) // groups)
    edges = np.arange(1, steps.max() + width, width)
    return _grouped(steps, edges, truths, forecasts)


def errors_by_length(
    truths: Sequence[np.ndarray], forecasts: Mapping[str, Sequence[np.ndarray]], groups: int = 6
) -> ErrorsBy:
    """Group the steps of all rows by the length of their horizon, about as many rows in each.

    Arguments are those of `errors_by_step`.

    Example:
        >>> truths = [np.zeros(2), np.zeros(3)]
        >>> errors = errors_by_length(truths, {"a": [np.ones(2), np.full(3, 2.0)]}, 2)
        >>> errors.first.tolist(), errors.last.tolist(), errors.rmse["a"].tolist()
        ([2, 3], [2, 3], [1.0, 2.0])
    """
    rows = np.array([len(truth) for truth in truths])
    edges = np.unique(np.quantile(rows, np.arange(groups) / groups, method="higher"))
    return _grouped(np.repeat(rows, rows), edges, truths, forecasts)


def _grouped(
    keys: np.ndarray,
    edges: np.ndarray,
    truths: Sequence[np.ndarray],
    forecasts: Mapping[str, Sequence[np.ndarray]],
) -> ErrorsBy:
    """Put each step into the group whose edge is the last one not above its key."""
    truth = np.concatenate(truths)
    known, groups = np.isfinite(truth), np.searchsorted(edges, keys, side="right") - 1
    present = np.unique(groups)
    counts = np.bincount(groups[known], minlength=len(edges))[present]

    def rmse(forecast: Sequence[np.ndarray]) -> np.ndarray:
        squared = (np.concatenate(forecast) - truth)[known] ** 2
        sums = np.bincount(groups[known], squared, minlength=len(edges))[present]
        return np.sqrt(np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0))

    return ErrorsBy(
        np.array([keys[groups == group].min() for group in present]),
        np.array([keys[groups == group].max() for group in present]),
        counts,
        {name: rmse(forecast) for name, forecast in forecasts.items()},
    )
