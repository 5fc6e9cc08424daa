"""What jax's transformations share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ragged_conformance.evaluation import compiled
from ragged_conformance.transformations.comparison import RAGGED_BATCHES
from ragged_conformance.transformations.problems import Arrays, Trial


def run(trial: Trial, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a transformed function compiled: single operations take JAX longer than the whole."""
    return compiled(trial.adapter, function)(*arguments)


def stack(trial: Trial, points: tuple[str, ...]) -> Arrays:
    """The variables at several points, stacked."""
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *map(trial.at, points))


def stacked_lengths(trial: Trial) -> Arrays:
    """The lengths at the points of ragged batches, stacked."""
    lengths = [native_lengths(trial, point) for point in RAGGED_BATCHES]
    return jax.tree.map(lambda *counts: jnp.stack(counts), *lengths)


def native_lengths(trial: Trial, point: str = "original") -> Arrays:
    """The lengths as arrays, as programs take them."""
    return trial.adapter.arrays(trial.problem.points[point].batch.lengths)
