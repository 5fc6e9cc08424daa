"""How series are split and cut into rows: as configured, and otherwise as suits the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, Literal, cast

import numpy as np

from ragged.data.sources import Series
from ragged.data.splits import parts_of_series, split_sizes
from ragged.data.windows import MinSteps, Windows

WHOLE = "whole"
DEFAULT_MIN_STEPS = 16  # steps of a random context or horizon, unless said otherwise
FEWEST_STEPS = 16  # of training in a series that is cut into windows without being asked
MOST_STEPS = 1024  # of a series that is one row without being asked
MOST_WINDOWS = 4096  # of an epoch, about
SHORTEST_HORIZON = 8  # steps; a season is repeated until it is reached
PARALLEL = 1.5  # series that run at the same time, on average


@dataclass(frozen=True)
class Options:
    """What a user says of the layout.

    Args:
        windows: "auto", "whole" or the windows.
        split: "events", "time" or None.
        min_context: the shortest context, or None.
        min_horizon: the shortest horizon, or None.
        shares: that validate and test.
    """

    windows: Windows | Literal["auto", "whole"]
    split: Literal["events", "time"] | None
    min_context: int | None
    min_horizon: int | None
    shares: tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """How series are split and cut.

    Args:
        windows: of which a series gives many rows; None where it is one row.
        by_time: whether each series is split by its steps, or the series are told apart.
        min_steps: of a random row, and of a window of a short series.
    """

    windows: Windows | None
    by_time: bool
    min_steps: MinSteps

    @classmethod
    def of(cls, options: Options, read: Callable[[], Sequence[Series]], season: int) -> Layout:
        """Return what options say; where they leave it open, `read` gives the series to look at.

        Args:
            options: of the user.
            read: called only where it is needed.
            season: steps of a season, 1 without.
        """
        by_time = options.split == "time"
        if options.split is None:
            by_time = len(parts_of_series(read())) == 1 or run_in_parallel(read())
        windows, shortest = None, None
        if isinstance(options.windows, Windows):
            windows = options.windows
        elif options.windows == "auto":
            steps = training_steps(read(), options.shares if by_time else (0.0, 0.0))
            is_long = np.median(steps) >= (FEWEST_STEPS if by_time else MOST_STEPS)
            windows = choose_windows(steps, season) if is_long else None
            shortest = min(*steps, max(event.steps for event in read()))
        sizes = (windows.context, windows.horizon) if windows else (None, None)
        context, horizon = (min(DEFAULT_MIN_STEPS, n or DEFAULT_MIN_STEPS) for n in sizes)
        if shortest is not None:  # no series is too short for windows that nobody asked for
            horizon = max(1, min(horizon, shortest) // 4)
            context = max(1, min(context // 4, shortest - horizon))
        minimum = MinSteps(options.min_context or context, options.min_horizon or horizon)
        return cls(windows, by_time, minimum)

    @property
    def shortest(self) -> MinSteps:
        """The shortest row."""
        return self.min_steps if self.windows else MinSteps(1, 1)

    @property
    def remedy_for_short(self) -> str:
        """What a user can do about a series that is too short."""
        if self.windows:
            return "Lower windows, min_context or min_horizon, or set short_events to drop."
        return "Drop the event, or set short_events to drop."

    @property
    def remedy_for_all_short(self) -> str:
        """The same where all are."""
        lower = ", or lower windows, min_context or min_horizon" if self.windows else ""
        return f"Give longer events{lower}."

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the data module that give this layout whatever the data."""
        windows = self.windows
        if windows is None:
            return {"windows": WHOLE, "split": self._split}
        minimum = {"min_context": self.min_steps.context, "min_horizon": self.min_steps.horizon}
        return {"windows": asdict(windows), "split": self._split, **minimum}

    @property
    def description(self) -> str:
        """A line for the user."""
        if self.windows is None:
            return "an event is a row"
        context, horizon, stride = (f"{n} step{'s' * (n > 1)}" for n in astuple(self.windows))
        return f"windows: context {context}, horizon {horizon}, in training one every {stride}"

    @property
    def _split(self) -> str:
        return "time" if self.by_time else "events"


def training_steps(events: Sequence[Series], shares: tuple[float, float]) -> list[int]:
    """Return the training steps of each series, the parts of one together."""
    series = parts_of_series(events)
    return [split_sizes(sum(events[i].steps for i in parts), shares)[0] for parts in series]


def run_in_parallel(events: Sequence[Series]) -> bool:
    """Whether series with dates run at the same time, as stocks do and storms do not.

    Only then, and if most of them are long enough, is each split by its own steps.
    """
    if not events or any(event.start is None for event in events):
        return False
    if np.median(training_steps(events, (0.0, 0.0))) < 2 * FEWEST_STEPS:
        return False
    first = cast(Any, events[0].start)
    begins = [(cast(Any, event.start) - first).total_seconds() / 3600 for event in events]
    spans = [float(event.time[-1] - event.time[0]) for event in events]
    ends = [begin + span for begin, span in zip(begins, spans, strict=True)]
    return sum(spans) > PARALLEL * (max(ends) - min(begins))


def choose_windows(steps: Sequence[int], season: int) -> Windows:
    """Choose windows for long series: seasons to forecast, three times as much before them.

    The horizon is as many seasons as make 8 steps, or one, where that is a quarter of a series at
    most, and else an eighth of a series; the context three horizons, and with its horizon at most
    half a series. An epoch has about 4096 windows at most.

    Args:
        steps: of each series in training.
        season: steps of a season, 1 without.

    >>> choose_windows([101], season=12)
    Windows(context=36, horizon=12, stride=1)
    >>> choose_windows([20_000], season=24), choose_windows([18], season=1)
    (Windows(context=72, horizon=24, stride=5), Windows(context=6, horizon=2, stride=1))
    """
    usual = int(np.median(steps))
    seasons = (season * -(-SHORTEST_HORIZON // season), season)
    horizon = next((n for n in seasons if 1 < n <= usual // 4), max(1, usual // 8))
    context = max(1, min(3 * horizon, usual // 2 - horizon))
    return Windows(context, horizon, stride=-(-sum(steps) // MOST_WINDOWS))
