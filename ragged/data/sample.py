"""Rows ready for a model: the context and the horizon of a normalised event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragged.data.normalization import Normalization
from ragged.data.sources import Columns, Roles, Series

POSITION = "step from the start of the horizon"  # the known column where there is no other
POSITION_FORMULA = "sign(step) * log(1 + abs(step)), step 0 is the first one of the horizon"


@dataclass(frozen=True, eq=False)
class Sample:
    """One sequence: its context and its horizon, normalised float64, unpadded.

    Args:
        past: `(context, past_features)`.
        future: `(horizon, future_features)`.
        target: `(horizon, targets)`; NaN where it is unknown.
        event: of the row.
        split: the step of the event at which the horizon starts.
        static: `(static_features,)`, or None without any.

    Example:
        >>> event = Series("0", np.arange(4.0), {"flow": np.array([1.0, 2.0, 4.0, 8.0])})
        >>> row = Sample(np.ones((1, 2)), np.ones((2, 1)), np.ones((2, 1)), event, split=1)
        >>> row.start, row.stop, row.truth("flow").tolist()
        (0, 3, [2.0, 4.0])
    """

    past: np.ndarray
    future: np.ndarray
    target: np.ndarray
    event: Series
    split: int
    static: np.ndarray | None = None

    @property
    def start(self) -> int:
        """The step of the event at which the context starts."""
        return self.split - len(self.past)

    @property
    def stop(self) -> int:
        """The step of the event after the last one of the horizon."""
        return self.split + len(self.future)

    @property
    def horizon_time(self) -> np.ndarray:
        """The time of the horizon, `(horizon,)`, as in `Series.time`."""
        return self.event.time[self.split : self.stop]

    def truth(self, column: str) -> np.ndarray:
        """A column over the horizon, `(horizon,)`, in the units of the source."""
        return self.event.columns[column][self.split : self.stop]


@dataclass(frozen=True, eq=False)
class NormalizedSeries:
    """A whole, normalised event.

    Args:
        event: the event.
        inputs: `(steps, past_features)`, none of them NaN: known, past and target columns.
        targets: `(steps, targets)`; NaN where they are unknown.
        known: how many of the inputs are known over the horizon; they are first.
        static: `(static_features,)`, or None without any.
        has_position: whether the first input, zeros here, becomes the position in each row.
    """

    event: Series
    inputs: np.ndarray
    targets: np.ndarray
    known: int
    static: np.ndarray | None = None
    has_position: bool = False

    @classmethod
    def of(cls, event: Series, roles: Roles, normalization: Normalization) -> NormalizedSeries:
        """Normalise an event.

        Args:
            event: the event.
            roles: of its columns; `POSITION` among the known ones is no column of it.
            normalization: learned before.

        Raises:
            DataError: as `Normalization.transform`.
        """
        has_position = POSITION in roles.known
        inputs = normalization.inputs(event)
        if has_position:
            inputs[POSITION] = np.zeros(event.steps)
        past = _matrix(inputs, roles.encoder, event.steps)
        targets = past[:, -len(roles.target) :]
        if any(np.isnan(event.columns[name]).any() for name in roles.target):
            targets = _matrix(normalization.transform(event), roles.target, event.steps)
        static = np.array([inputs[name][0] for name in roles.static]) if roles.static else None
        return cls(event, past, targets, len(roles.known), static, has_position)

    def row(self, start: int, split: int, stop: int) -> Sample:
        """Slice out a row, as views."""
        past, future = self.inputs[start:split], self.inputs[split:stop, : self.known]
        if self.has_position:
            past, future = past.copy(), future.copy()
            past[:, 0], future[:, 0] = position(start - split, 0), position(0, stop - split)
        targets = self.targets[split:stop]
        return Sample(past, future, targets, self.event, split, self.static)


def position(begin: int, end: int) -> np.ndarray:
    """Return the signed logarithm of steps from the start of the horizon: of a few units always.

    Args:
        begin: the first step, below 0 in the context.
        end: the step after the last one.

    >>> position(-2, 2).round(2).tolist()
    [-1.1, -0.69, 0.0, 0.69]
    """
    steps = np.arange(begin, end, dtype=np.float64)
    return np.sign(steps) * np.log1p(np.abs(steps))


def _matrix(columns: Columns, names: Sequence[str], steps: int) -> np.ndarray:
    return np.stack([columns[name] for name in names], axis=-1) if names else np.zeros((steps, 0))
