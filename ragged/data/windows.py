"""Where rows are cut: whole events, or windows of context and horizon, also in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from ragged.checks import as_size


@dataclass(frozen=True)
class Windows:
    """Windows of context and horizon, of which an event gives many rows.

    In training they start every `stride` steps, in validation and test every `horizon` steps, so
    that each step is forecast once. The last one of an event has what is left as its horizon.

    Args:
        context: steps of the context, 1 or more.
        horizon: steps of the horizon, 1 or more.
        stride: steps from one training window to the next, 1 or more.

    Raises:
        OptionError: a number below 1.
    """

    context: int
    horizon: int
    stride: int = 1

    def __post_init__(self) -> None:
        for argument in ("context", "horizon", "stride"):
            as_size("Windows", argument, getattr(self, argument), least=1, most=None)


@dataclass(frozen=True)
class Split:
    """The steps of an event in which horizons may lie; their context may lie before.

    Args:
        place: of the event in its list.
        begin: the first step; above 0 everything before it is context.
        end: the step after the last one.
    """

    place: int
    begin: int
    end: int


@dataclass(frozen=True)
class MinSteps:
    """The least steps of a row's context and horizon."""

    context: int
    horizon: int

    @property
    def steps(self) -> int:
        """The least steps of a row."""
        return self.context + self.horizon


def cut_whole(part: Split, context_fraction: float) -> np.ndarray:
    """Cut the one row of a part.

    The context is a share of the steps, rounded down, at least 1; or all that lies before.

    Returns:
        `(1, 4)` int64: place, start, split, stop.

    >>> cut_whole(Split(7, 0, 10), 1 / 3).tolist()
    [[7, 0, 3, 10]]
    """
    share = int(part.end * context_fraction + 1e-9)  # 0.29 * 100 is below 29
    split = part.begin or min(max(1, share), part.end - 1)
    return np.array([[part.place, 0, split, part.end]])


def cut_windows(part: Split, windows: Windows, least: MinSteps, stride: int) -> np.ndarray:
    """Cut the windows of a part; the last one ends where the part ends.

    An event that is too short for a whole context and the least horizon gives a shorter context.

    Returns:
        `(rows, 4)` int64: place, start, split, stop.

    >>> cut_windows(Split(0, 0, 9), Windows(4, 2), MinSteps(1, 1), stride=2).tolist()
    [[0, 0, 4, 6], [0, 2, 6, 8], [0, 4, 8, 9]]
    """
    first = part.begin or min(windows.context, part.end - least.horizon)
    needed = 1 + max(0, -(-(part.end - windows.horizon - first) // stride))
    splits = np.arange(first, part.end, stride)[:needed]
    starts = np.maximum(splits - windows.context, 0)
    stops = np.minimum(splits + windows.horizon, part.end)
    return np.stack([np.full_like(splits, part.place), starts, splits, stops], axis=1)


def draw_splits(cuts: np.ndarray, least: MinSteps, generator: np.random.Generator) -> np.ndarray:
    """Draw anew where the horizon of whole rows starts; too short a row stays as it is."""
    drawn = cuts.copy()
    for row in drawn:
        last = row[3] - least.horizon
        if last >= row[1] + least.context:
            row[2] = generator.integers(row[1] + least.context, last + 1)
    return drawn


def draw_windows(cuts: np.ndarray, least: MinSteps, generator: np.random.Generator) -> np.ndarray:
    """Draw anew how long context and horizon of each window are, at most what they were."""
    place, starts, splits, stops = cuts.T
    context, horizon = splits - starts, stops - splits
    drawn = (
        generator.integers(np.minimum(low, most), most + 1)
        for low, most in ((least.context, context), (least.horizon, horizon))
    )
    before, after = drawn
    return np.stack([place, splits - before, splits, splits + after], axis=1)


def split_sizes(count: int, shares: tuple[float, float]) -> tuple[int, int, int]:
    """Share `count` out to training, validation and test; training gets the rest, if there is any.

    >>> split_sizes(10, (0.1, 0.2)), split_sizes(2, (0.1, 0.2))
    ((7, 1, 2), (0, 1, 1))
    """
    validation, test = (max(1, round(count * share)) if share > 0 else 0 for share in shares)
    return count - validation - test, validation, test


def split_events(steps: Sequence[int], shares: tuple[float, float]) -> tuple[list[Split], ...]:
    """Split events into training, validation and test: the first ones, the next, the last.

    Args:
        steps: of each event.
        shares: of the events that validate and test; training must be left some, see `split_sizes`.

    >>> [[part.place for part in parts] for parts in split_events([5, 6, 7, 8], (0.25, 0.25))]
    [[0, 1], [2], [3]]
    """
    parts = [Split(place, 0, count) for place, count in enumerate(steps)]
    train, validation, _ = split_sizes(len(steps), shares)
    return parts[:train], parts[train : train + validation], parts[train + validation :]


def split_time(steps: Sequence[int], shares: tuple[float, float]) -> tuple[list[Split], ...]:
    """Split each event into training, validation and test: its first steps, the next, the last.

    Args:
        steps: of each event.
        shares: of an event's steps that validate and test; see `split_sizes`.

    >>> [[(part.begin, part.end) for part in parts] for parts in split_time([10], (0.1, 0.2))]
    [[(0, 7)], [(7, 8)], [(8, 10)]]
    """
    found: tuple[list[Split], ...] = ([], [], [])
    for place, count in enumerate(steps):
        edges = accumulate(split_sizes(count, shares), initial=0)
        for parts, (begin, end) in zip(found, pairwise(edges), strict=True):
            if end > begin:
                parts.append(Split(place, begin, end))
    return found
