"""The data module: a source split by time, normalised, and cut into context and horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from ragged.data.dataset import Dataset, Row
from ragged.data.normalization import Standardizer
from ragged.data.sources import Event, Source
from ragged.errors import DataError, OptionError, refusal
from ragged.masks import ALIGNMENTS

MOST_ROWS = 2**16  # of a batch, which is filled up to its size

__all__ = ["Dataset", "EncoderDecoderDataModule", "Row"]


class EncoderDecoderDataModule:
    """Whole events as rows: the first part of an event is the context, the rest the horizon.

    The events are split in time order: the first ones train, the next ones validate, the last ones
    test. Normalisation is learned from the training events only. The constructor reads nothing;
    the data are read when first asked for, or by `setup()`.

    Args:
        source: where the events come from.
        context_fraction: the share of an event's steps that is context, rounded down, at least 1
            step.
        validation: the share of the events that validates, rounded, at least 1 event unless 0.
        test: the share of the events that tests, rounded, at least 1 event unless 0.
        batch_size: rows of a batch.
        encoder_alignment: "left" or "right", where a row's context goes when it is padded. By
            default what the model takes.
        randomize_lengths: cut the training events anew in every epoch, anywhere that leaves
            `min_context` and `min_horizon` steps; events too short for that are cut as usual.
            Few events then teach more. Validation and test rows stay as they are.
        min_context: the least context of a random cut, in steps.
        min_horizon: the least horizon of a random cut, in steps.
        level_jitter: standard deviation, in normalised units, of a number drawn for each training
            event and epoch and added to its targets, observed and to be forecast alike. The model
            then learns how a target changes from where it was seen, whatever its level.

    Raises:
        OptionError: a fraction or jitter outside its range, a batch size or minimum below 1, an
            unknown alignment.

    Example:
        >>> from ragged.data import Storms
        >>> data = EncoderDecoderDataModule(Storms())
        >>> len(data.train), len(data.validation), len(data.test)
        (221, 32, 63)
        >>> data.past_features, data.future_features, data.target_features
        (3, 2, 1)
    """

    def __init__(
        self,
        source: Source,
        context_fraction: float = 1 / 3,
        validation: float = 0.1,
        test: float = 0.2,
        batch_size: int = 16,
        encoder_alignment: str | None = None,
        randomize_lengths: bool = False,
        min_context: int = 16,
        min_horizon: int = 16,
        level_jitter: float = 0.0,
    ) -> None:
        _check("context_fraction", context_fraction, 0 < context_fraction < 1, "between 0 and 1")
        _check("validation", validation, 0 <= validation < 1, "0 or more and below 1")
        _check("test", test, 0 <= test < 1, "0 or more and below 1")
        _check("test", test, validation + test < 1, "below 1 together with `validation`")
        _check("batch_size", batch_size, batch_size >= 1, "1 or more")
        _check("batch_size", batch_size, batch_size <= MOST_ROWS, f"at most {MOST_ROWS}")
        _check("min_context", min_context, min_context >= 1, "1 or more")
        _check("min_horizon", min_horizon, min_horizon >= 1, "1 or more")
        _check("level_jitter", level_jitter, level_jitter >= 0, "0 or more")
        known = encoder_alignment is None or encoder_alignment in ALIGNMENTS
        _check("encoder_alignment", repr(encoder_alignment), known, "'left', 'right' or None")
        self.source = source
        self.context_fraction = context_fraction
        self.validation_fraction = validation
        self.test_fraction = test
        self.batch_size = batch_size
        self.encoder_alignment = encoder_alignment
        self.randomize_lengths = randomize_lengths
        self.min_context = min_context
        self.min_horizon = min_horizon
        self.level_jitter = level_jitter

    @property
    def past_features(self) -> int:
        """How many columns the encoder reads: known, past and target."""
        return len(self.source.roles.encoder)

    @property
    def future_features(self) -> int:
        """How many columns the decoder reads: known."""
        return len(self.source.roles.decoder)

    @property
    def target_features(self) -> int:
        """How many columns are forecast."""
        return len(self.source.roles.target)

    @property
    def longest_context(self) -> int:
        """The most context steps of a row to train on, as the rows are cut without chance."""
        return max(self._split(event) for event in self.events[0])

    def setup(self) -> None:
        """Read, split and normalise now rather than when first asked for.

        Raises:
            DataError: data that the source refuses, too few events, or an event too short.
        """
        _ = self.train, self.validation, self.test

    @cached_property
    def events(self) -> tuple[list[Event], list[Event], list[Event]]:
        """The events that train, validate and test, unnormalised, in time order.

        Raises:
            DataError: data that the source refuses, or no event left to train on.
        """
        events = self.source.events()
        validation = _share(len(events), self.validation_fraction)
        test = _share(len(events), self.test_fraction)
        train = len(events) - validation - test
        if train < 1:
            got = f"{len(events)} events, of which {validation} validate and {test} test"
            remedy = "Give more events, or set validation or test to 0."
            raise DataError(refusal(_NAME, "source", got, "one event or more to train on", remedy))
        return events[:train], events[train : train + validation], events[train + validation :]

    @cached_property
    def standardizer(self) -> Standardizer:
        """The normalisation, fitted on the training events.

        Set it (to one from a checkpoint) before anything is read to forecast without the training
        data.
        """
        return Standardizer.fit(self.events[0], self.source.roles.encoder)

    @cached_property
    def train(self) -> Dataset:
        """The rows to train on."""
        return self._dataset(self.events[0])

    @cached_property
    def validation(self) -> Dataset:
        """The rows to validate on."""
        return self._dataset(self.events[1])

    @cached_property
    def test(self) -> Dataset:
        """The rows to test on: the last ones in time."""
        return self._dataset(self.events[2])

    def train_epoch(self, seed: int, epoch: int) -> Dataset:
        """The rows of one training epoch: `train`, cut and shifted anew where that is asked for.

        Args:
            seed: 0 or more.
            epoch: 0 or more; with the seed it decides what is drawn, so that a resumed run sees
                the same rows.
        """
        generator = np.random.default_rng([seed, epoch, 1])  # batch_order draws from [seed, epoch]
        rows: Sequence[Row] = self.train.rows
        if self.randomize_lengths:
            rows = [self._row(e, self._random_split(e, generator)) for e in self.events[0]]
        if self.level_jitter:
            shifts = generator.normal(0.0, self.level_jitter, (len(rows), self.target_features))
            rows = [_shifted(row, shift) for row, shift in zip(rows, shifts, strict=True)]
        return Dataset(rows, self.encoder_alignment)

    def rows_for(self, events: Sequence[Event]) -> Dataset:
        """Turn events into rows to forecast.

        The context is the leading steps where every target is known. If the targets are known
        everywhere, it is the `context_fraction` of the event.

        Args:
            events: as the source's `read` gives them.

        Returns:
            A dataset in the order of the events; its targets are NaN where they are unknown.

        Raises:
            DataError: an event whose first target is unknown, or with fewer than 2 steps.
        """
        return self._dataset(events)

    def _dataset(self, events: Sequence[Event]) -> Dataset:
        rows = [self._row(event, self._split(event)) for event in events]
        return Dataset(rows, self.encoder_alignment)

    def _random_split(self, event: Event, generator: np.random.Generator) -> int:
        last = event.steps - self.min_horizon
        if last < self.min_context:
            return self._split(event)
        return int(generator.integers(self.min_context, last + 1))

    def _row(self, event: Event, split: int) -> Row:
        roles = self.source.roles
        return Row(
            past=self._matrix(event, roles.encoder, slice(0, split)),
            future=self._matrix(event, roles.decoder, slice(split, None)),
            target=self._matrix(event, roles.target, slice(split, None)),
            event=event,
            split=split,
        )

    def _matrix(self, event: Event, columns: Sequence[str], steps: slice) -> np.ndarray:
        parts = [self.standardizer.transform(name, event.columns[name][steps]) for name in columns]
        count = len(event.time[steps])
        return np.stack(parts, axis=-1) if parts else np.zeros((count, 0))

    def _split(self, event: Event) -> int:
        if event.steps < 2:
            got = f"{event.steps} steps long in event '{event.name}'"
            remedy = "Drop the event."
            raise DataError(
                refusal(_NAME, "event", got, "2 steps or more, a context and a horizon", remedy)
            )
        targets = np.stack([event.columns[name] for name in self.source.roles.target])
        unknown = np.isnan(targets).any(axis=0)
        if not unknown.any():
            context = int(event.steps * self.context_fraction + 1e-9)  # 0.29 * 100 is below 29
            return min(max(1, context), event.steps - 1)
        split = int(np.argmax(unknown))
        if split == 0:
            got = f"unknown at the first step of event '{event.name}'"
            remedy = "Fill the target of the steps that were observed."
            raise DataError(
                refusal(_NAME, "target", got, "a target that is known at first", remedy)
            )
        return split


_NAME = EncoderDecoderDataModule.__name__


def _shifted(row: Row, shift: np.ndarray) -> Row:
    """Add `shift (targets,)` to the targets; they stand last in the past."""
    past = row.past.copy()
    past[:, -len(shift) :] += shift
    return replace(row, past=past, target=row.target + shift)


def _share(count: int, fraction: float) -> int:
    return max(1, round(count * fraction)) if fraction > 0 else 0


def _check(argument: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise OptionError(
            refusal("EncoderDecoderDataModule", argument, str(value), expected, "Change it.")
        )
