"""Buckets: rows of similar lengths, so that few shapes occur and little of them is padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ragged.checks import as_size

SHAPES = 8  # so that rows cut anew in every epoch meet the same widths again
CUTS = 256  # places where a bucket may end; more plan longer and save nothing that shows


@dataclass(frozen=True, eq=False)
class Bucket:
    """Rows that are padded to one shape.

    Args:
        rows: their places in the dataset, the shortest row first.
        widths: of each side, which hold its longest row.
    """

    rows: np.ndarray
    widths: tuple[int, ...]


def make_buckets(lengths: np.ndarray, batch_size: int, most: int) -> list[Bucket]:
    """Cut the rows, sorted by length, into at most `most` buckets that pad least.

    Exact, by dynamic programming over where buckets end: the cost of a bucket is what its rows
    take, padded to the longest. Buckets hold whole batches, so that only the shortest rows leave
    a batch to be filled.

    Args:
        lengths: `(rows, sides)` integers.
        batch_size: rows of a batch.
        most: buckets, 1 or more; each is a shape, and for JAX a program.

    >>> lengths = np.array([[9], [1], [8], [2], [1], [9]])
    >>> [bucket.rows.tolist() for bucket in make_buckets(lengths, 2, most=2)]
    [[1, 4], [3, 2, 0, 5]]
    >>> [bucket.rows.tolist() for bucket in make_buckets(lengths, 3, most=2)]
    [[1, 4, 3], [2, 0, 5]]
    """
    count = len(lengths)
    if not count:
        return []
    order = np.argsort(lengths.sum(axis=1), kind="stable")
    ascending = lengths[order]
    batches = -(-count // batch_size)
    step = -(-batches // CUTS)
    ends = np.arange(count, 0, -batch_size * step)[::-1]  # the short rows fill no whole batch
    edges = np.concatenate([[0], ends])
    cost = _padded_steps(ascending, edges, batch_size)
    cuts = edges[cheapest_cuts(cost, most)].tolist()
    return [
        Bucket(order[start:stop], _widths(ascending[start:stop])) for start, stop in pairwise(cuts)
    ]


def _padded_steps(ascending: np.ndarray, edges: np.ndarray, batch_size: int) -> np.ndarray:
    """What the rows between every two edges take, padded to the longest among them."""
    count = len(edges)
    cost = np.full((count, count), np.inf)
    longest = np.stack([ascending[a:b].max(axis=0) for a, b in pairwise(edges)])
    for start in range(count - 1):
        widths = np.maximum.accumulate(longest[start:]).sum(axis=1)
        batches = -(-(edges[start + 1 :] - edges[start]) // batch_size)
        cost[start, start + 1 :] = batches * batch_size * widths
    return cost


def _widths(lengths: np.ndarray) -> tuple[int, ...]:
    return tuple(quantise(int(longest), SHAPES) for longest in lengths.max(axis=0))


def cheapest_cuts(cost: np.ndarray, most: int) -> list[int]:
    """Go from the first place to the last in at most `most` steps that cost least together.

    Exact, by dynamic programming: after k rounds `best[j]` is the least cost of reaching place j
    in k steps, and `origins[k - 1][j]` is where the last of them starts.

    Args:
        cost: `(places, places)`, of a step from i to j; infinite where there is none.
        most: steps, 1 or more.

    >>> cheapest_cuts(np.array([[np.inf, 1, 5], [np.inf, np.inf, 1], [np.inf] * 3]), most=2)
    [0, 1, 2]
    """
    places = len(cost)
    best, origins, totals = np.where(np.arange(places) == 0, 0.0, np.inf), [], []
    for _ in range(min(most, places - 1)):
        reached = best[:, None] + cost
        origins.append(reached.argmin(axis=0))
        best = reached.min(axis=0)
        totals.append(best[-1])
    stops = [places - 1]
    for origin in reversed(origins[: int(np.argmin(totals)) + 1]):
        stops.append(int(origin[stops[-1]]))
    return stops[::-1]


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
    as_size("quantise", "width", width, least=0, most=None)
    as_size("quantise", "shapes", shapes, least=1, most=None)
    if width == 0:
        return 0
    power: int = 1 << (width.bit_length() - 1)
    step = max(1, power // shapes)
    return min(-(-width // step) * step, 2 * power)
