"""Normalisation: mean and spread of each column, learned from training events only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ragged.data.sources import Event
from ragged.errors import DataError, refusal


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale that give each column mean 0 and standard deviation 1 over all its steps.

    A column that never changes gets scale 1: it becomes 0 and stays finite.

    Args:
        mean: of each column, in its unit.
        scale: the standard deviation of each column (of the population), in its unit.

    >>> events = [Event("0", np.arange(2.0), {"flow": np.array([1.0, 3.0])})]
    >>> standardizer = Standardizer.fit(events, ["flow"])
    >>> standardizer.transform("flow", np.array([1.0, 3.0, 5.0])).tolist()
    [-1.0, 1.0, 3.0]
    >>> standardizer.inverse("flow", np.array([3.0])).tolist()
    [5.0]
    """

    mean: dict[str, float]
    scale: dict[str, float]

    @classmethod
    def fit(cls, events: Sequence[Event], columns: Iterable[str]) -> Standardizer:
        """Learn from every step of the events; each step counts the same.

        Args:
            events: the training events, unpadded.
            columns: which columns.

        Raises:
            DataError: no steps at all, or a value that is not finite.
        """
        mean: dict[str, float] = {}
        scale: dict[str, float] = {}
        for column in columns:
            values = np.concatenate([np.empty(0), *(event.columns[column] for event in events)])
            if values.size == 0 or not np.isfinite(values).all():
                got = f"{values.size} steps, not all finite" if values.size else "without a step"
                remedy = "Fit on training events whose values are all known."
                raise DataError(refusal("Standardizer.fit", column, got, "finite values", remedy))
            is_constant = bool(values.min() == values.max())
            mean[column] = float(values[0] if is_constant else values.mean())
            scale[column] = 1.0 if is_constant else float(values.std())
        return cls(mean, scale)

    def transform(self, column: str, values: np.ndarray) -> np.ndarray:
        """Normalise values of a column.

        Args:
            column: its name.
            values: any shape, in the column's unit; NaN stays NaN.

        Raises:
            DataError: a column it was not fitted on.
        """
        self._check("transform", column)
        return (values - self.mean[column]) / self.scale[column]

    def inverse(self, column: str, values: np.ndarray) -> np.ndarray:
        """Give normalised values of a column their unit back.

        Args:
            column: its name.
            values: any shape.

        Raises:
            DataError: a column it was not fitted on.
        """
        self._check("inverse", column)
        return values * self.scale[column] + self.mean[column]

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Plain floats, ready for JSON.

        >>> Standardizer({"flow": 2.0}, {"flow": 1.0}).to_dict()
        {'mean': {'flow': 2.0}, 'scale': {'flow': 1.0}}
        """
        return {"mean": dict(self.mean), "scale": dict(self.scale)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Mapping[str, float]]) -> Standardizer:
        """Rebuild from what `to_dict` gave.

        Raises:
            DataError: something else, or a scale that is not above 0.
        """
        try:
            mean = {str(column): float(value) for column, value in saved["mean"].items()}
            scale = {str(column): float(value) for column, value in saved["scale"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _refuse_saved(f"unreadable ({type(error).__name__}: {error})") from error
        finite = all(map(np.isfinite, [*mean.values(), *scale.values()]))
        if mean.keys() != scale.keys() or not finite or min(scale.values(), default=1.0) <= 0:
            raise _refuse_saved(f"{{'mean': {mean}, 'scale': {scale}}}")
        return cls(mean, scale)

    def _check(self, function: str, column: str) -> None:
        if column not in self.mean:
            raise DataError(
                refusal(
                    f"Standardizer.{function}",
                    "column",
                    repr(column),
                    f"one of {sorted(self.mean)}",
                    "Fit it on this column too.",
                )
            )


def _refuse_saved(got: str) -> DataError:
    expected = "a finite mean and a scale above 0 for the same columns"
    remedy = "Give what Standardizer.to_dict() returned."
    return DataError(refusal("Standardizer.from_dict", "saved", got, expected, remedy))
