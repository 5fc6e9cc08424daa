"""Quantiles that do not cross."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragged.protocol import Array


def sort_quantiles(
    xp: Any,
    outputs: Array,
    quantiles: Sequence[float],
    sort: Callable[[Array], Array] | None = None,
) -> Array:
    """Sort the quantiles of each target, by which their loss never grows.

    Args:
        xp: the namespace of the array.
        outputs: `(..., targets * levels)`, those of a target together.
        quantiles: the levels, in any order, which is kept.
        sort: sorts the last axis; by default as `xp` does.

    Source: V. Chernozhukov, I. Fernandez-Val and A. Galichon, Quantile and Probability Curves
    without Crossing (2010).

    >>> sort_quantiles(np, np.array([3.0, 2.0, 1.0, 7.0]), (0.9, 0.1))
    array([3., 2., 7., 1.])
    """
    count = len(quantiles)
    by_target = outputs.reshape(*outputs.shape[:-1], outputs.shape[-1] // count, count)
    in_order = (sort or xp.sort)(by_target)
    ranks = np.argsort(np.argsort(quantiles)).tolist()
    return xp.stack([in_order[..., rank] for rank in ranks], axis=-1).reshape(outputs.shape)
