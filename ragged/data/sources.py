"""Sources of sequences: their interface, and the checks of their events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ragged.errors import DataError

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Roles:
    """Which columns a model may see, and when.

    Args:
        known: columns known in the context and over the horizon.
        past: columns known in the context only.
        target: columns to forecast; known in the context.
        static: columns with one value an event, the same at every step.

    >>> roles = Roles(known=("rain",), past=("level",), target=("flow",))
    >>> roles.encoder
    ('rain', 'level', 'flow')
    >>> roles.decoder
    ('rain',)
    """

    known: tuple[str, ...]
    past: tuple[str, ...]
    target: tuple[str, ...]
    static: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns: those of the context, then the static ones."""
        return self.encoder + self.static

    @property
    def encoder(self) -> tuple[str, ...]:
        """The columns of the context: known, past and target, in this order."""
        return self.known + self.past + self.target

    @property
    def decoder(self) -> tuple[str, ...]:
        """The columns of the horizon: known."""
        return self.known


@dataclass(frozen=True, eq=False)
class Series:
    """One sequence: a storm, a cycle.

    Args:
        name: its name in the source.
        time: `(steps,)` float64, strictly increasing, in the unit of the source's `time_label`.
        columns: for each column `(steps,)` float64; NaN where the value is unknown, which only a
            target or past column over a horizon to be forecast may be, unless the source says
            that values may be missing.
        start: the time of its first step, if the source has it.
        part_of: the name of the series of which this is a part between two gaps in time.
        labels: its values in the source's `label_columns`; by default its name.
        dates: the date of each step as a pandas DatetimeIndex, if the source has dates.

    Raises:
        DataError: a column that has not one value for each step.

    >>> event = Series("7", np.arange(3.0), {"flow": np.array([1.0, 2.0, 4.0])})
    >>> event.steps
    3
    """

    name: str
    time: np.ndarray
    columns: Columns
    start: datetime | None = None
    part_of: str | None = None
    labels: tuple[Any, ...] | None = None
    dates: Any = None

    def __post_init__(self) -> None:
        for column, values in self.columns.items():
            if values.shape != self.time.shape or values.ndim != 1:
                got = f"of shape {values.shape} in column '{column}' of event '{self.name}'"
                expected = f"{self.time.shape}, one value for each step"
                remedy = "Give time and every column one value for each step."
                raise DataError.of("Series", "columns", got, expected, remedy)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return int(self.time.shape[0])

    @property
    def stamps(self) -> Any:
        """When each step is: the dates, or without dates the time."""
        return self.time if self.dates is None else self.dates

    def until(self, stop: int) -> Series:
        """The event up to a step, as a view."""
        columns = {column: values[:stop] for column, values in self.columns.items()}
        dates = None if self.dates is None else self.dates[:stop]
        return replace(self, time=self.time[:stop], columns=columns, dates=dates)


class Source(ABC):
    """Where sequences come from; a subclass names its columns and reads its own format.

    `missing` says how an unknown value (NaN) is treated: "error" refuses it; "ffill" forward-fills
    inputs, and an unknown target counts neither in a loss nor in a score.

    Example:
        >>> class Ramp(Source):
        ...     roles, time_label = Roles(known=("t",), past=(), target=("x",)), "step"
        ...     units = {"t": "", "x": "m"}
        ...
        ...     def events(self):
        ...         step = np.arange(9.0)
        ...         return [Series("0", step, {"t": step, "x": 2 * step})]
        ...
        ...     def read(self, path):
        ...         raise DataError("Ramp reads no tables")
        >>> Ramp().events()[0].steps
        9
    """

    missing: str = "error"

    @property
    @abstractmethod
    def roles(self) -> Roles:
        """Which columns are known, past, target and static."""

    @property
    @abstractmethod
    def time_label(self) -> str:
        """The axis label of `Series.time`, with its unit."""

    @property
    def time_column(self) -> str:
        """The name of `Series.stamps` in tables; by default that of the axis."""
        return self.time_label

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of `Series.labels`, which tell series apart in tables."""
        return ("event",)

    @property
    @abstractmethod
    def units(self) -> dict[str, str]:
        """The unit of each column, for axis labels."""

    @property
    def season(self) -> int:
        """The steps after which a pattern repeats, 12 of months; 1 by default, without a season."""
        return 1

    @property
    def driver(self) -> str | None:
        """The known column that drives the targets; none by default.

        Baselines then fit the targets to it, and figures draw the loop that the two go through.
        """
        return None

    @property
    def categories(self) -> dict[str, list[str]]:
        """The known, past and static columns of labels, with the labels that are told apart.

        In `Series.columns` 1 is the first label, and 0 every one that is not among them. Models
        embed them. None by default.
        """
        return {}

    @property
    def notes(self) -> list[str]:
        """Remarks on the events that were read, for the user; none by default."""
        return []

    @property
    def resolved(self) -> dict[str, Any]:
        """Arguments of the source that its data decide on where they are left open.

        A run's configuration keeps them, so that a table to forecast is read like the one that was
        trained on. None by default.
        """
        return {}

    @abstractmethod
    def events(self) -> list[Series]:
        """The events to learn from, in time order.

        Raises:
            DataError: data that cannot be used as they are.
        """

    @abstractmethod
    def read(self, path: Path) -> list[Series]:
        """Read a user's table in the source's own format; empty target and past cells become NaN.

        Raises:
            DataError: a table that cannot be used as it is.
        """

    def raw_target(self, name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
        """Return a target column with its name and unit in files; unchanged by default.

        Args:
            name: a target column.
            values: its values, any shape.
        """
        return name, values

    def raw_unit(self, name: str) -> str:
        """Return the unit to write behind the name of a target in files; "" where it says it."""
        return ""


def check_increasing(name: str, time: np.ndarray, column: str) -> None:
    """Refuse the time of an event that does not increase.

    Args:
        name: the event's.
        time: `(steps,)` float64.
        column: its name in the table.

    Raises:
        DataError: the first step that is not later than the one before.

    >>> check_increasing("7", np.array([0.0, 15.0, 15.0]), "minute")
    Traceback (most recent call last):
    ragged.errors.DataError: read(): `minute` is 15 after 15 (event '7', step 2); ...
    """
    wrong = np.diff(time) <= 0
    if wrong.any():
        expected = "a greater value on each row"
        remedy = "Sort the event and drop repeated rows."
        raise _refuse_first(name, time, column, wrong, expected, remedy)


def check_time(name: str, time: np.ndarray, column: str) -> None:
    """Refuse the time of an event that does not increase in even steps.

    Args:
        name: the event's.
        time: `(steps,)` float64.
        column: its name in the table.

    Raises:
        DataError: time that does not increase, or has a gap.

    >>> check_time("7", np.array([0.0, 15.0, 45.0]), "minute")
    Traceback (most recent call last):
    ragged.errors.DataError: read(): `minute` is 45 after 15 (event '7', step 2); ...
    """
    check_increasing(name, time, column)
    steps = np.diff(time)
    wrong = ~np.isclose(steps, steps[:1], rtol=1e-6, atol=0.0)
    if wrong.any():
        remedy = "Fill the gap, or split the event there."
        raise _refuse_first(name, time, column, wrong, f"even steps of {steps[0]:.15g}", remedy)


def _refuse_first(
    name: str, time: np.ndarray, column: str, wrong: np.ndarray, expected: str, remedy: str
) -> DataError:
    step = int(np.argmax(wrong)) + 1
    before, after = (f"{time[i]:.15g}" for i in (step - 1, step))
    got = f"{after} after {before} (event '{name}', step {step})"
    return DataError.of("read", column, got, expected, remedy)


def check_positive(name: str, values: np.ndarray, column: str) -> None:
    """Refuse values of which no logarithm can be taken; NaN (unknown) passes.

    Args:
        name: the event's.
        values: `(steps,)` float64.
        column: their name in the table.

    Raises:
        DataError: a value of 0 or less.
    """
    wrong = values <= 0
    if wrong.any():
        step = int(np.argmax(wrong))
        got = f"{values[step]:.15g} (event '{name}', step {step})"
        remedy = "Its logarithm is used: correct the value, or drop the event."
        raise DataError.of("read", column, got, "a value above 0", remedy)


def check_targets(events: Sequence[Series], roles: Roles) -> None:
    """Refuse training data with an unknown target.

    Raises:
        DataError: the first event and step with NaN in a target column.
    """
    remedy = "Fill it, or drop the event; only a forecast may leave targets empty."
    check_known(events, roles.target, "a target at every step", remedy)


def check_known(
    events: Sequence[Series],
    columns: Iterable[str],
    expected: str,
    remedy: str,
    function: str = "events",
) -> None:
    """Refuse events with an unknown value in one of the columns.

    Args:
        events: the events to check.
        columns: those that have to be known.
        expected: what each step should have.
        remedy: for the error.
        function: its name, for the error.

    Raises:
        DataError: the first event, column and step with NaN.
    """
    names = tuple(columns)
    for event in events:
        for column in names:
            unknown = np.isnan(event.columns[column])
            if unknown.any():
                got = f"unknown in event '{event.name}' at step {int(np.argmax(unknown))}"
                raise DataError.of(function, column, got, expected, remedy)


def constant_notes(events: Sequence[Series], roles: Roles) -> list[str]:
    """Tell which columns never change, and in which events a target does not.

    Args:
        events: the training events.
        roles: of their columns.

    >>> flat = Series("a", np.arange(2.0), {"flow": np.array([3.0, 3.0])})
    >>> constant_notes([flat], Roles((), (), ("flow",)))
    ["target 'flow' never changes in training: there is nothing to learn"]
    """
    notes = []
    for column in roles.columns:
        ranges = [_range(event.columns[column]) for event in events]
        lows, highs = zip(*ranges, strict=True)
        if np.nanmin(lows) == np.nanmax(highs):
            notes.append(
                f"target '{column}' never changes in training: there is nothing to learn"
                if column in roles.target
                else f"column '{column}' never changes in training: it tells nothing"
            )
        elif column in roles.target:
            flat = [e.name for e, (low, high) in zip(events, ranges, strict=True) if low == high]
            if flat:
                names = ", ".join(flat[:5]) + (", ..." if len(flat) > 5 else "")
                where = f"{len(flat)} of {len(events)} events: {names}"
                notes.append(f"target '{column}' never changes in {where}")
    return notes


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return the least and the greatest known value; NaN without any."""
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if known.size else (np.nan, np.nan)


def backward_rate(values: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The rate of change by backward differences.

    Args:
        values: `(steps,)` float64.
        time: `(steps,)` float64, strictly increasing.

    Returns:
        `(steps,)` float64 in units of `values` per unit of `time`; 0 at the first step.

    >>> backward_rate(np.array([1.0, 2.0, 6.0]), np.array([0.0, 0.5, 1.0])).tolist()
    [0.0, 2.0, 8.0]
    """
    return np.concatenate([np.zeros(min(1, values.size)), np.diff(values) / np.diff(time)])
