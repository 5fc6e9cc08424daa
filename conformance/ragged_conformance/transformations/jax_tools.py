"""What jax's transformations share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragged_conformance.evaluation import compiled
from ragged_conformance.transformations.comparison import RAGGED_BATCHES
from ragged_conformance.transformations.problems import Arrays, Trial, Values


def run(trial: Trial, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a transformed function compiled: single operations take JAX longer than the whole."""
    return compiled(trial.adapter, function)(*arguments)


def stack(trial: Trial, points: tuple[str, ...]) -> Arrays:
    """The variables at several points, stacked."""
    values = [trial.problem.points[point].variables for point in points]
    return _stacked(trial, values)


def stacked_lengths(trial: Trial) -> Arrays:
    """The lengths at the points of ragged batches, stacked."""
    return _stacked(trial, [trial.problem.points[point].batch.lengths for point in RAGGED_BATCHES])


def _stacked(trial: Trial, values: Sequence[Values]) -> Arrays:
    """Stack on the host, where no shape is a program to compile."""
    return trial.adapter.arrays({n: np.stack([each[n] for each in values]) for n in values[0]})


def native_lengths(trial: Trial) -> Arrays:
    """The lengths as arrays, as programs take them."""
    return trial.adapter.arrays(trial.point.batch.lengths)
