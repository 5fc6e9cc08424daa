"""Normalisation: a chain of transforms for each column, learned from training events only."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ragged.data.sources import Columns, Roles, Series
from ragged.data.transforms import RobustScaler, SeenLabels, StandardScaler, Transform
from ragged.errors import DataError, OptionError, RaggedError

if TYPE_CHECKING:
    from ragged.data.sample import Sample

Chain = tuple[Transform, ...]


@dataclass(frozen=True)
class Normalization:
    """The transforms between a source's columns and a model's inputs and outputs.

    Args:
        chains: for each column its transforms, in the order in which they are applied.
        means: for each column the mean of its normalised training steps, which replaces values
            before the first known one.

    >>> events = [Series("0", np.arange(2.0), {"flow": np.array([1.0, 3.0])})]
    >>> roles = Roles(known=(), past=(), target=("flow",))
    >>> normalization = Normalization.fit(events, roles)
    >>> normalization.transform(events[0])
    {'flow': array([-1.,  1.])}
    """

    chains: dict[str, Chain]
    means: dict[str, float]

    @classmethod
    def fit(
        cls,
        events: Sequence[Series],
        roles: Roles,
        transforms: Mapping[str, Sequence[Transform]] | None = None,
        categories: Collection[str] = (),
    ) -> Normalization:
        """Learn from every known step of the events; each step counts the same.

        Args:
            events: the training events, unpadded; NaN is unknown and ignored.
            roles: which columns.
            transforms: for each column its transforms; `[StandardScaler()]` for those not named.
            categories: columns of labels, which get `[SeenLabels()]`, and 0 for the unknown one.

        Raises:
            DataError: a column without a known step, or with values that a transform refuses.
            OptionError: transforms of a column in no role or of labels, or reading one that is not
                known.
        """
        _check_transforms(transforms or {}, roles, categories)
        labels = {column: (SeenLabels(),) for column in categories}
        chains: dict[str, Chain] = {}
        means: dict[str, float] = {}
        for column in roles.columns:
            chain: list[Transform] = []
            sequences = [event.columns[column] for event in events]
            chosen = {**labels, **(transforms or {})}.get(column, (StandardScaler(),))
            for transform in chosen:
                fitted = transform.fit(*_known_values(column, sequences, events, transform.reads))
                chain.append(fitted)
                sequences = [
                    _apply(fitted, column, sequence, event)
                    for sequence, event in zip(sequences, events, strict=True)
                ]
            values, _ = _known_values(column, sequences, events)
            mean = 0.0 if column in categories else float(values.mean())
            chains[column], means[column] = tuple(chain), mean
        return cls(chains, means)

    def transform(self, event: Series) -> Columns:
        """Normalise the columns of an event; NaN, unknown, stays NaN.

        Raises:
            DataError: an event without one of the columns, or a value that a transform refuses.
        """
        return {column: self._transform_column(column, event) for column in self._columns_of(event)}

    def inputs(self, event: Series) -> Columns:
        """Normalise the columns of an event as model inputs, without NaN.

        Unknown values are forward-filled; those before the first known one are the mean of the
        training steps.

        Raises:
            DataError: as `transform`.
        """
        inputs = {}
        for column in self._columns_of(event):
            values = self._transform_column(column, event, fill=True)
            inputs[column] = np.where(np.isnan(values), self.means[column], values)
        return inputs

    def inverse(self, column: str, values: np.ndarray, row: Sample) -> np.ndarray:
        """Convert normalised values over the horizon of a row to the units of the source.

        Args:
            column: of the values.
            values: `(steps, ...)`, from the first step of the horizon on; points or quantiles.
            row: the row that they forecast.

        Raises:
            DataError: a column it was not fitted on; changes to be added up from a value that was
                never seen.
        """
        chain, event, split = self._chain(column), row.event, row.split
        steps = slice(split, split + len(values))
        for transform, last in zip(chain[::-1], self._last_values(column, row), strict=True):
            values = transform.inverse(values, _driver(transform, event, steps), last)
        return values

    @property
    def formulas(self) -> dict[str, str]:
        """The formula of each transform in use, for programs that normalise without ragged.

        >>> Normalization({"flow": (StandardScaler(2.0, 1.0),)}, {"flow": 0.0}).formulas
        {'StandardScaler': '(x - center) / scale'}
        """
        return {type(t).__name__: t.formula for chain in self.chains.values() for t in chain}

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values, as JSON gives them back: lists for tuples.

        >>> Normalization({"flow": (StandardScaler(2.0, 1.0),)}, {"flow": 0.0}).to_dict()
        {'flow': {'mean': 0.0, 'transforms': [{'StandardScaler': {'center': 2.0, 'scale': 1.0}}]}}
        """
        return {
            column: {
                "mean": self.means[column],
                "transforms": [
                    {type(t).__name__: json.loads(json.dumps(asdict(t)))}  # type: ignore[call-overload]
                    for t in chain
                ],
            }
            for column, chain in self.chains.items()
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Normalization:
        """Rebuild from the result of `to_dict`.

        Raises:
            DataError: other values, a transform that was never learned, or one whose class is not
                imported.
        """
        classes = {subclass.__name__: subclass for subclass in _subclasses(Transform)}
        classes |= {
            "Standard": StandardScaler,
            "Robust": RobustScaler,
        }  # names of the previous release
        try:
            chains = {
                column: tuple(
                    classes[name](**constants)
                    for transform in entry["transforms"]
                    for name, constants in transform.items()
                )
                for column, entry in saved.items()
            }
            means = {column: float(entry["mean"]) for column, entry in saved.items()}
            for chain in chains.values():
                for constant in (c for t in chain for c in asdict(t).values()):  # type: ignore[call-overload]
                    if constant is None:
                        raise ValueError(f"a constant missing in {chain}")
        except (KeyError, TypeError, ValueError, AttributeError, RaggedError) as error:
            raise _refuse_saved(f"unreadable ({type(error).__name__}: {error})") from error
        if not all(map(np.isfinite, means.values())):
            raise _refuse_saved(f"with the means {means}")
        return cls(chains, means)

    def _transform_column(self, column: str, event: Series, *, fill: bool = False) -> np.ndarray:
        values = event.columns[column]
        values = forward_fill(values) if fill else values
        for transform in self.chains[column]:
            values = _apply(transform, column, values, event)
        return values

    def _last_values(self, column: str, row: Sample) -> Iterator[float]:
        """Return the value before the horizon at each transform of a chain, the last one first."""
        chain = self._chain(column)
        if not any(transform.needs_last for transform in chain):
            return iter([np.nan] * len(chain))
        first = max(0, row.split - 1 - len(chain))  # each difference needs one step more
        values = forward_fill(row.event.columns[column])[first : row.split]
        if np.isnan(values[-1:]).any() or not row.split:
            got = f"never known before step {row.split} of event '{row.event.name}'"
            remedy = "Give an earlier value, or leave Difference out of its transforms."
            expected = "a value from which changes can be added up"
            raise DataError.of("Normalization.inverse", column, got, expected, remedy)
        lasts = []
        for transform in chain:
            lasts.append(float(values[-1]))
            values = _apply(transform, column, values, row.event, first)
        return reversed(lasts)

    def _columns_of(self, event: Series) -> Iterator[str]:
        for column in self.chains:
            if column not in event.columns:
                got = f"event '{event.name}' without column '{column}'"
                expected = f"the columns {sorted(self.chains)}"
                remedy = "Read it with the source it was fitted on."
                raise DataError.of("Normalization", "event", got, expected, remedy)
            yield column

    def _chain(self, column: str) -> Chain:
        if column not in self.chains:
            expected, remedy = f"one of {sorted(self.chains)}", "Fit it on this column too."
            raise DataError.of("Normalization.inverse", "column", repr(column), expected, remedy)
        return self.chains[column]


def cardinalities(
    columns: Sequence[str], categories: Mapping[str, Sequence[str]]
) -> tuple[int, ...]:
    """Return how many numbers the labels of each column have, with 0, the unknown one.

    A column of numbers has 0, and columns of numbers alone give nothing.

    >>> cardinalities(["rain", "kind"], {"kind": ["a", "b"]}), cardinalities(["rain"], {})
    ((0, 3), ())
    """
    counts = tuple(len(categories[c]) + 1 if c in categories else 0 for c in columns)
    return counts if any(counts) else ()


def unseen_notes(
    normalization: Normalization, categories: Mapping[str, Sequence[str]]
) -> list[str]:
    """Tell which labels training lacks.

    >>> unseen_notes(Normalization({"kind": (SeenLabels([1]),)}, {}), {"kind": ["a", "b"]})
    ["labels of 'kind' that training lacks, taken as unknown: b"]
    """
    notes = []
    for column, labels in categories.items():
        numbers = np.arange(1.0, len(labels) + 1)
        for transform in normalization.chains[column]:
            numbers = transform.transform(numbers)
        unseen = [label for label, number in zip(labels, numbers, strict=True) if not number]
        if unseen:
            names = ", ".join(unseen[:5]) + (", ..." if len(unseen) > 5 else "")
            notes.append(f"labels of '{column}' that training lacks, taken as unknown: {names}")
    return notes


def forward_fill(values: np.ndarray) -> np.ndarray:
    """Replace NaN by the last value seen before it; NaN at the start stays.

    Args:
        values: `(steps,)`.

    >>> forward_fill(np.array([np.nan, 1.0, np.nan, 3.0]))
    array([nan,  1.,  1.,  3.])
    """
    known = ~np.isnan(values)
    if known.all():
        return values
    last_known = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return np.where(last_known < 0, np.nan, values[last_known])


def _known_values(
    column: str,
    sequences: Sequence[np.ndarray],
    events: Sequence[Series],
    driver: str | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the known steps of all events, concatenated, and the driver at the same steps."""
    values = np.concatenate([np.empty(0), *sequences])
    known = ~np.isnan(values)
    driver_values = None
    if driver is not None:
        driver_values = np.concatenate(
            [np.empty(0), *(forward_fill(event.columns[driver]) for event in events)]
        )
        known &= ~np.isnan(driver_values)
        driver_values = driver_values[known]
    values = values[known]
    if not values.size or not np.isfinite(values).all():
        got = "not finite" if values.size else "without a known step in training"
        remedy = "Leave the column out, or give training steps where it is known."
        raise DataError.of("Normalization.fit", column, got, "finite values", remedy)
    return values, driver_values


def _apply(
    transform: Transform, column: str, values: np.ndarray, event: Series, first: int = 0
) -> np.ndarray:
    """Transform steps of an event; errors name the column and the event."""
    driver = _driver(transform, event, slice(first, first + len(values)))
    try:
        return transform.transform(values, driver)
    except DataError as error:
        raise DataError(f"column '{column}' of event '{event.name}': {error}") from error


def _driver(transform: Transform, event: Series, steps: slice) -> np.ndarray | None:
    """Return the column that a transform reads, forward-filled, at steps of an event."""
    return None if transform.reads is None else forward_fill(event.columns[transform.reads])[steps]


def _check_transforms(
    transforms: Mapping[str, Sequence[Transform]], roles: Roles, categories: Collection[str]
) -> None:
    for column, chain in transforms.items():
        if column in categories:
            got, expected = f"of '{column}', whose labels are embedded", "a column of numbers"
            remedy = "Leave it out, or name its columns of 0 and 1 with labels."
            raise OptionError.of("Normalization", "transforms", got, expected, remedy)
        if column not in roles.columns:
            near = difflib.get_close_matches(column, roles.columns, n=1)
            remedy = f"Write '{near[0]}'." if near else "Name a column that has a role."
            expected = f"one of {list(roles.columns)}"
            raise OptionError.of("Normalization", "transforms", column, expected, remedy)
        for driver in (transform.reads for transform in chain):
            if driver is not None and (driver not in roles.known or driver == column):
                got = f"of '{column}' reading '{driver}'"
                expected = f"another, known column of {list(roles.known)}"
                remedy = "Only known columns reach over the horizon."
                raise OptionError.of("Normalization", "transforms", got, expected, remedy)


def _subclasses(base: type[Any]) -> Iterator[type[Any]]:
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _refuse_saved(got: str) -> DataError:
    expected = "for each column its mean and its learned transforms"
    remedy = "Give what Normalization.to_dict() returned."
    return DataError.of("Normalization.from_dict", "saved", got, expected, remedy)
