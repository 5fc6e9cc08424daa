"""What a source of sequences is, and how one is read from a table without inventing data."""

from __future__ import annotations

import csv
import difflib
import gzip
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragged.errors import DataError, refusal

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Roles:
    """Which columns a model may see, and when.

    Args:
        known: columns known in the context and over the horizon.
        past: columns known in the context only.
        target: columns to forecast; known in the context.

    >>> roles = Roles(known=("rain",), past=("level",), target=("flow",))
    >>> roles.encoder
    ('rain', 'level', 'flow')
    >>> roles.decoder
    ('rain',)
    """

    known: tuple[str, ...]
    past: tuple[str, ...]
    target: tuple[str, ...]

    @property
    def encoder(self) -> tuple[str, ...]:
        """The columns of the context: known, past and target, in this order."""
        return self.known + self.past + self.target

    @property
    def decoder(self) -> tuple[str, ...]:
        """The columns of the horizon: known."""
        return self.known


@dataclass(frozen=True, eq=False)
class Event:
    """One sequence: a storm, a cycle.

    Args:
        name: what the source calls it.
        time: `(steps,)` float64, strictly increasing, in the unit of the source's `time_label`.
        columns: for each column `(steps,)` float64; NaN only in a target that is unknown.

    Raises:
        DataError: a column that has not one value for each step.

    >>> event = Event("7", np.arange(3.0), {"flow": np.array([1.0, 2.0, 4.0])})
    >>> event.steps
    3
    """

    name: str
    time: np.ndarray
    columns: Columns

    def __post_init__(self) -> None:
        for column, values in self.columns.items():
            if values.shape != self.time.shape or values.ndim != 1:
                raise DataError(
                    refusal(
                        "Event",
                        "columns",
                        f"of shape {values.shape} in column '{column}' of event '{self.name}'",
                        f"{self.time.shape}, one value for each step",
                        "Give time and every column one value for each step.",
                    )
                )

    @property
    def steps(self) -> int:
        """The number of steps."""
        return int(self.time.shape[0])


class Source(ABC):
    """Where sequences come from; a subclass names its columns and reads its own format."""

    @property
    @abstractmethod
    def roles(self) -> Roles:
        """Which columns are known, past and target."""

    @property
    @abstractmethod
    def time_label(self) -> str:
        """The axis label of `Event.time`, with its unit."""

    @property
    @abstractmethod
    def units(self) -> dict[str, str]:
        """The unit of each column, for axis labels."""

    @abstractmethod
    def events(self) -> list[Event]:
        """The events to learn from, in time order, no value unknown.

        Raises:
            DataError: data that cannot be used as they are.
        """

    @abstractmethod
    def read(self, path: Path) -> list[Event]:
        """Read a user's CSV in the source's own format; an empty target cell becomes NaN.

        Raises:
            DataError: a table that cannot be used as it is.
        """

    def raw_target(self, name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
        """Return a target column under its name and in its unit in files; here, unchanged.

        Args:
            name: a target column.
            values: its values, any shape.
        """
        return name, values


def read_csv(
    path: Path, required: Sequence[str], group: str, *, may_be_empty: Sequence[str] = ()
) -> dict[str, Columns]:
    """Read the numbers of a CSV (or `.csv.gz`) table, grouped into events.

    Args:
        path: a UTF-8 table with a header. Further columns are ignored.
        required: the columns to read, all numbers.
        group: the column that names the event of a row.
        may_be_empty: columns of `required` whose empty cells become NaN.

    Returns:
        For each event, in order of first appearance, its columns as `(steps,)` float64.

    Raises:
        DataError: a file that is missing, empty or unreadable; a missing column; a row with too
            few or too many cells; a cell that is empty, no number, or not finite.
    """
    lines = _read_lines(Path(path))
    if len(lines) < 2:
        got = "an empty file" if not lines else "a header without rows"
        raise _refuse(path, got, "a table with a header and rows", "Give a table with data.")
    header = lines[0][1]
    places = {column: _find_column(path, header, column) for column in (group, *required)}
    collected: dict[str, dict[str, list[float]]] = {}
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            got = f"a row of {len(cells)} cells at line {line} of {path}"
            raise _refuse(path, got, f"{len(header)} cells, as the header has", "Repair the row.")
        name = cells[places[group]].strip()
        if not name:
            got = f"an empty cell at line {line}, column '{group}'"
            raise _refuse(path, got, "the name of an event", "Name the event on every row.")
        event = collected.setdefault(name, {column: [] for column in required})
        for column in required:
            text = cells[places[column]].strip()
            event[column].append(_number(path, line, column, text, column in may_be_empty))
    return {
        name: {column: np.array(values, dtype=np.float64) for column, values in event.items()}
        for name, event in collected.items()
    }


def _refuse(path: Path, got: str, expected: str, remedy: str) -> DataError:
    place = got if str(path) in got else f"{got} in {path}"
    return DataError(refusal("read_csv", "path", place, expected, remedy))


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    if not path.is_file():
        raise _refuse(path, f"{path}, which is no file", "a CSV table", "Check the path.")
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix == ".gz"
            else open(path, encoding="utf-8-sig", newline="")
        ) as stream:
            reader = csv.reader(stream)
            return [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        got = f"unreadable ({type(error).__name__}: {error})"
        raise _refuse(path, got, "a CSV table in UTF-8", "Write the file again.") from error


def _find_column(path: Path, header: list[str], column: str) -> int:
    names = [name.strip() for name in header]
    if names.count(column) == 1:
        return names.index(column)
    if column in names:
        raise _refuse(path, f"two columns '{column}'", "one", "Rename or drop the other.")
    near = difflib.get_close_matches(column, names, n=1)
    remedy = f"Rename '{near[0]}'." if near else f"It has the columns {names}."
    raise _refuse(path, f"without column '{column}'", f"a column '{column}'", remedy)


def _number(path: Path, line: int, column: str, text: str, may_be_empty: bool) -> float:
    where = f"at line {line}, column '{column}'"
    try:
        value = float(text) if text else math.nan
    except ValueError:
        raise _refuse(path, f"{text!r} {where}", "a number", "Correct the cell.") from None
    if math.isnan(value) and may_be_empty:
        return value
    if not math.isfinite(value):
        got = f"{text!r} {where}" if text else f"an empty cell {where}"
        remedy = "Fill the cell; only targets may be empty, and only when forecasting."
        raise _refuse(path, got, "a finite number", remedy)
    return value


def check_time(name: str, time: np.ndarray, column: str) -> None:
    """Refuse the time of an event that does not increase in even steps.

    Args:
        name: the event's.
        time: `(steps,)` float64.
        column: what the table calls it.

    Raises:
        DataError: time that stands still, goes back, or leaves a gap.

    >>> check_time("7", np.array([0.0, 15.0, 45.0]), "minute")
    Traceback (most recent call last):
    ragged.errors.DataError: read(): `minute` is 45 after 15 (event '7', step 2); ...
    """
    steps = np.diff(time)
    for wrong, expected, remedy in (
        (steps <= 0, "a greater value on each row", "Sort the event and drop repeated rows."),
        (
            ~np.isclose(steps, steps[:1], rtol=1e-6, atol=0.0),
            f"even steps of {steps[0]:g}" if steps.size else "",
            "Fill the gap, or split the event there.",
        ),
    ):
        if wrong.any():
            step = int(np.argmax(wrong)) + 1
            got = f"{time[step]:g} after {time[step - 1]:g} (event '{name}', step {step})"
            raise DataError(refusal("read", column, got, expected, remedy))


def check_positive(name: str, values: np.ndarray, column: str) -> None:
    """Refuse values of which no logarithm can be taken; NaN (unknown) passes.

    Args:
        name: the event's.
        values: `(steps,)` float64.
        column: what the table calls them.

    Raises:
        DataError: a value of 0 or less.
    """
    wrong = values <= 0
    if wrong.any():
        step = int(np.argmax(wrong))
        got = f"{values[step]:g} (event '{name}', step {step})"
        remedy = "Its logarithm is used: correct the value, or drop the event."
        raise DataError(refusal("read", column, got, "a value above 0", remedy))


def check_targets(events: Sequence[Event], roles: Roles) -> None:
    """Refuse training data with an unknown target.

    Raises:
        DataError: the first event and step with NaN in a target column.
    """
    for event in events:
        for column in roles.target:
            unknown = np.isnan(event.columns[column])
            if unknown.any():
                got = f"unknown in event '{event.name}' at step {int(np.argmax(unknown))}"
                remedy = "Fill it, or drop the event; only a forecast may leave targets empty."
                raise DataError(refusal("events", column, got, "a target at every step", remedy))


def backward_rate(values: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The rate of change by backward differences, which look at no later step.

    Args:
        values: `(steps,)` float64.
        time: `(steps,)` float64, strictly increasing.

    Returns:
        `(steps,)` float64 in units of `values` per unit of `time`; 0 at the first step.

    >>> backward_rate(np.array([1.0, 2.0, 6.0]), np.array([0.0, 0.5, 1.0])).tolist()
    [0.0, 2.0, 8.0]
    """
    return np.concatenate([np.zeros(min(1, values.size)), np.diff(values) / np.diff(time)])
