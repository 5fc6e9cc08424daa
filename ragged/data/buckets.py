"""Buckets: rows of similar lengths, so that batches have few shapes and little padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ragged.checks import as_size

SHAPES = 8  # so that rows of random lengths have the same few widths in every epoch
MAX_EDGES = 256  # of buckets; more take longer to plan and save almost no padding


@dataclass(frozen=True, eq=False)
class Bucket:
    """Rows that are padded to one shape.

    Args:
        rows: their indices in the dataset, the shortest row first.
        widths: of each side, which hold its longest row.
    """

    rows: np.ndarray
    widths: tuple[int, ...]


def make_buckets(lengths: np.ndarray, batch_size: int, max_buckets: int) -> list[Bucket]:
    """Split the rows, sorted by length, into at most `max_buckets` buckets with least padding.

    Exact, by dynamic programming over the ends of buckets: the cost of a bucket is the number of
    its steps, padded to its longest row. Buckets have full batches, except the first one.

    Args:
        lengths: `(rows, sides)` integers.
        batch_size: rows of a batch.
        max_buckets: 1 or more; each bucket is a shape, and for JAX a program.

    >>> lengths = np.array([[9], [1], [8], [2], [1], [9]])
    >>> [bucket.rows.tolist() for bucket in make_buckets(lengths, 2, max_buckets=2)]
    [[1, 4], [3, 2, 0, 5]]
    >>> [bucket.rows.tolist() for bucket in make_buckets(lengths, 3, max_buckets=2)]
    [[1, 4, 3], [2, 0, 5]]
    """
    num_rows = len(lengths)
    if not num_rows:
        return []
    order = np.argsort(lengths.sum(axis=1), kind="stable")
    ascending = lengths[order]
    batches = -(-num_rows // batch_size)
    step = -(-batches // MAX_EDGES)
    ends = np.arange(num_rows, 0, -batch_size * step)[::-1]  # the first batch may be smaller
    edges = np.concatenate([[0], ends])
    cost = _padded_steps(ascending, edges, batch_size)
    cuts = edges[cheapest_cuts(cost, max_buckets)].tolist()
    return [
        Bucket(order[start:stop], _widths(ascending[start:stop])) for start, stop in pairwise(cuts)
    ]


def likely_tokens(lengths: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the steps of each side that a batch drawn from rows hardly ever exceeds.

    Three standard deviations above the mean, so that whatever is drawn the batches of a bucket
    share a program which has room for as many.

    Args:
        lengths: `(rows, sides)` integers, of a bucket.
        batch_size: rows of a batch.

    >>> likely_tokens(np.array([[9], [5]]), 1), likely_tokens(np.array([[9], [5]]), 2)
    (array([13]), array([14]))
    """
    rows = len(lengths)
    drawn = min(batch_size, rows)
    deviation = lengths.std(axis=0) * np.sqrt(drawn * (rows - drawn) / max(1, rows - 1))
    return np.ceil(drawn * lengths.mean(axis=0) + 3 * deviation).astype(np.int64)


def _padded_steps(ascending: np.ndarray, edges: np.ndarray, batch_size: int) -> np.ndarray:
    """Compute the steps of the rows between every two edges, padded to their longest row."""
    num_edges = len(edges)
    cost = np.full((num_edges, num_edges), np.inf)
    longest = np.stack([ascending[a:b].max(axis=0) for a, b in pairwise(edges)])
    for start in range(num_edges - 1):
        widths = np.maximum.accumulate(longest[start:]).sum(axis=1)
        batches = -(-(edges[start + 1 :] - edges[start]) // batch_size)
        cost[start, start + 1 :] = batches * batch_size * widths
    return cost


def _widths(lengths: np.ndarray) -> tuple[int, ...]:
    return tuple(quantise(int(longest), SHAPES) for longest in lengths.max(axis=0))


def cheapest_cuts(cost: np.ndarray, max_steps: int) -> list[int]:
    """Find the cheapest path from the first edge to the last in at most `max_steps` steps.

    Exact, by dynamic programming: after k rounds `best[j]` is the least cost of reaching edge j
    in k steps, and `origins[k - 1][j]` is where the last of them starts.

    Args:
        cost: `(edges, edges)`, of a step from i to j; infinite where there is none.
        max_steps: 1 or more.

    >>> cheapest_cuts(np.array([[np.inf, 1, 5], [np.inf, np.inf, 1], [np.inf] * 3]), 2)
    [0, 1, 2]
    """
    num_edges = len(cost)
    best, origins, totals = np.where(np.arange(num_edges) == 0, 0.0, np.inf), [], []
    for _ in range(min(max_steps, num_edges - 1)):
        candidates = best[:, None] + cost
        origins.append(candidates.argmin(axis=0))
        best = candidates.min(axis=0)
        totals.append(best[-1])
    path = [num_edges - 1]
    for origin in reversed(origins[: int(np.argmin(totals)) + 1]):
        path.append(int(origin[path[-1]]))
    return path[::-1]


def quantise(width: int, shapes: int = 2) -> int:
    """Round a width up so that few widths occur: `shapes` of them between powers of two.

    With 2 shapes the widths are 1 and 1.5 times a power of two: at most a half is added, and an
    epoch compiles few programs. With 4 at most a quarter is added.

    Args:
        width: in steps, 0 or more.
        shapes: widths for each doubling, 1 or more; fewer compile fewer programs and pad more.

    Raises:
        OptionError: a negative width, or no shapes.

    >>> [quantise(width) for width in (0, 7, 9, 33, 512, 513)]
    [0, 8, 12, 48, 512, 768]
    """
    as_size("quantise", "width", width, minimum=0, maximum=None)
    as_size("quantise", "shapes", shapes, minimum=1, maximum=None)
    if width == 0:
        return 0
    power: int = 1 << (width.bit_length() - 1)
    step = max(1, power // shapes)
    return min(-(-width // step) * step, 2 * power)
