"""Cutting of events into rows: whole events, or windows of context and horizon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragged.checks import as_size


@dataclass(frozen=True)
class Windows:
    """Windows of context and horizon, of which an event gives many rows.

    In training they start every `stride` steps, in validation and test every `horizon` steps, so
    that each step is forecast once. The last one of an event has a shorter horizon.

    Args:
        context: steps of the context, 1 or more.
        horizon: steps of the horizon, 1 or more.
        stride: steps from one training window to the next, 1 or more.

    Raises:
        OptionError: a number below 1.

    Example:
        >>> Windows(context=48, horizon=12, stride=6)
        Windows(context=48, horizon=12, stride=6)
    """

    context: int
    horizon: int
    stride: int = 1

    def __post_init__(self) -> None:
        for argument in ("context", "horizon", "stride"):
            as_size("Windows", argument, getattr(self, argument), minimum=1, maximum=None)


@dataclass(frozen=True)
class Section:
    """The steps of an event for horizons; their context may be before.

    Args:
        index: of the event in its list.
        begin: the first step; above 0 everything before it is context.
        end: the step after the last one.
    """

    index: int
    begin: int
    end: int


@dataclass(frozen=True)
class MinSteps:
    """The minimum steps of a row's context and horizon."""

    context: int
    horizon: int

    @property
    def steps(self) -> int:
        """The minimum steps of a row."""
        return self.context + self.horizon


def cut_whole(section: Section, context_fraction: float) -> np.ndarray:
    """Cut a section into one row.

    The context is a share of the steps, rounded down, at least 1; or all steps before.

    Returns:
        `(1, 4)` int64: event index, start, split, stop.

    >>> cut_whole(Section(7, 0, 10), 1 / 3).tolist()
    [[7, 0, 3, 10]]
    """
    share = int(section.end * context_fraction + 1e-9)  # 0.29 * 100 is below 29
    split = section.begin or min(max(1, share), section.end - 1)
    return np.array([[section.index, 0, split, section.end]])


def cut_windows(section: Section, windows: Windows, min_steps: MinSteps, stride: int) -> np.ndarray:
    """Cut a section into windows; the last one ends where the section ends.

    An event that is too short for a whole context and the minimum horizon gets a shorter context.

    Returns:
        `(rows, 4)` int64: event index, start, split, stop.

    >>> cut_windows(Section(0, 0, 9), Windows(4, 2), MinSteps(1, 1), stride=2).tolist()
    [[0, 0, 4, 6], [0, 2, 6, 8], [0, 4, 8, 9]]
    """
    first_split = section.begin or min(windows.context, section.end - min_steps.horizon)
    num_windows = 1 + max(0, -(-(section.end - windows.horizon - first_split) // stride))
    splits = np.arange(first_split, section.end, stride)[:num_windows]
    starts = np.maximum(splits - windows.context, 0)
    stops = np.minimum(splits + windows.horizon, section.end)
    return np.stack([np.full_like(splits, section.index), starts, splits, stops], axis=1)


def draw_splits(
    cuts: np.ndarray, min_steps: MinSteps, generator: np.random.Generator
) -> np.ndarray:
    """Draw where the horizon of each whole row starts; rows too short for that are unchanged."""
    new_cuts = cuts.copy()
    for row in new_cuts:
        last_split = row[3] - min_steps.horizon
        if last_split >= row[1] + min_steps.context:
            row[2] = generator.integers(row[1] + min_steps.context, last_split + 1)
    return new_cuts


def draw_windows(
    cuts: np.ndarray, min_steps: MinSteps, generator: np.random.Generator
) -> np.ndarray:
    """Draw the context and horizon of each window, at most as long as they were."""
    index, starts, splits, stops = cuts.T
    context, horizon = splits - starts, stops - splits
    before, after = (
        generator.integers(np.minimum(minimum, size), size + 1)
        for minimum, size in ((min_steps.context, context), (min_steps.horizon, horizon))
    )
    return np.stack([index, splits - before, splits, splits + after], axis=1)
