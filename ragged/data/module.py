"""The data module: a source split in time, normalised, and cut into context and horizon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ragged.data.dataset import RaggedDataset, SeriesRows
from ragged.data.horizons import NO_CUTS, check_horizons, cut_to_forecast
from ragged.data.layout import WHOLE, Layout, Options
from ragged.data.normalization import Normalization, cardinalities, unseen_notes
from ragged.data.sample import POSITION, NormalizedSeries
from ragged.data.seasons import season_that_shows
from ragged.data.sources import Roles, Series, Source, check_known, constant_notes
from ragged.data.splits import split, split_sizes
from ragged.data.transforms import Transform
from ragged.data.windows import Section, Windows, cut_whole, cut_windows, draw_splits, draw_windows
from ragged.errors import DataError, OptionError
from ragged.ops.masks import ALIGNMENTS

MAX_BATCH_SIZE = 2**16  # a batch is filled up to it
SHORT = ("error", "drop")


class EncoderDecoderDataModule:
    """Rows of context and horizon: one of each event, or windows.

    The events are split in the source's order: the first ones train, the next ones validate, the
    last ones test. A single event, or with `split: time` each one, is cut in time instead: a
    context may then reach back into earlier steps, a horizon never does. Normalisation is learned
    from the training steps only. The data are read at the first access, or by `setup()`.

    Args:
        source: where the events come from.
        context_fraction: without windows, the share of an event's steps that is context, rounded
            down, at least 1 step.
        validation: the share of the events (or steps) that validates, rounded, at least 1 unless 0.
        test: the share of the events (or steps) that tests, rounded, at least 1 unless 0.
        batch_size: rows of a batch.
        encoder_alignment: "left" or "right", where a row's context goes when it is padded. By
            default as the model requires.
        randomize_lengths: in every epoch cut the training events at random, with at least
            `min_context` and `min_horizon` steps, or shorten the context and horizon of each
            training window at random, to no less. Rows too short for that, and validation
            and test rows, are cut as usual.
        min_context: the shortest context of a random cut or of a window of a short event, in steps.
            By default 16, or the windows' context where that is less.
        min_horizon: the same for the horizon.
        level_jitter: standard deviation, in normalised units, of a number drawn for each training
            row and epoch and added to its targets, both observed and to be forecast.
        decoder_alignment: the same for a row's horizon; by default left, as all models take it.
        windows: cut windows of these sizes; "whole" makes an event one row. By default, "auto",
            events that are split in time, or have more than 1024 steps, are cut into windows, which
            `layout` tells; see `ragged.data.layout.choose_windows`.
        split: "events" or "time"; by default events, if there are several, unless they have dates
            and run at the same time. Parts of a series between gaps stay one event here.
        short_events: "error" refuses an event too short to be cut, "drop" leaves it out, and
            `notes` says so. Without windows 2 steps are enough, with them `min_context` and
            `min_horizon` together. Parts of a series between gaps are left out in either case.
        transforms: for each column the transforms that normalise it, in order; for a column
            not named here [StandardScaler]. Classes of ragged.data.transforms.
        repeat_static: give the model static columns as known ones, repeated at every step. By
            default yes, unless the model takes statics.

    Raises:
        OptionError: a fraction or jitter outside its range, a batch size or minimum below 1, a
            minimum above the windows', an unknown alignment, split or treatment of short events.

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
        min_context: int | None = None,
        min_horizon: int | None = None,
        level_jitter: float = 0.0,
        decoder_alignment: str | None = None,
        windows: Windows | Literal["auto", "whole"] = "auto",
        split: Literal["events", "time"] | None = None,
        short_events: Literal["error", "drop"] = "error",
        transforms: dict[str, list[Transform]] | None = None,
        repeat_static: bool | None = None,
    ) -> None:
        _check("context_fraction", context_fraction, 0 < context_fraction < 1, "between 0 and 1")
        _check("validation", validation, 0 <= validation < 1, "0 or more and below 1")
        _check("test", test, 0 <= test < 1, "0 or more and below 1")
        _check("test", test, validation + test < 1, "below 1 together with `validation`")
        _check("batch_size", batch_size, batch_size >= 1, "1 or more")
        _check("batch_size", batch_size, batch_size <= MAX_BATCH_SIZE, f"at most {MAX_BATCH_SIZE}")
        _check("level_jitter", level_jitter, level_jitter >= 0, "0 or more")
        for side, alignment in (("encoder", encoder_alignment), ("decoder", decoder_alignment)):
            is_known = alignment in (None, *ALIGNMENTS)
            _check(f"{side}_alignment", repr(alignment), is_known, "'left', 'right' or None")
        _check("split", repr(split), split in (None, "events", "time"), "'events', 'time' or None")
        _check("short_events", repr(short_events), short_events in SHORT, "'error' or 'drop'")
        self.source, self.batch_size = source, batch_size
        self.context_fraction, self.shares = context_fraction, (validation, test)
        self.encoder_alignment, self.decoder_alignment = encoder_alignment, decoder_alignment
        is_known = isinstance(windows, Windows) or windows in ("auto", WHOLE)
        _check("windows", repr(windows), is_known, "'auto', 'whole' or a context and a horizon")
        _check_min_steps("min_context", min_context, getattr(windows, "context", None))
        _check_min_steps("min_horizon", min_horizon, getattr(windows, "horizon", None))
        self._options = Options(windows, split, min_context, min_horizon, self.shares)
        self.randomize_lengths, self.level_jitter = randomize_lengths, level_jitter
        self.short_events, self.transforms = short_events, transforms
        self.repeat_static = repeat_static

    @property
    def roles(self) -> Roles:
        """The source's roles, with repeated static columns among the known ones.

        Without any known column the position in a row is one: every model takes it.
        """
        roles = self.source.roles
        if self.repeat_static is not False:
            roles = Roles(roles.known + roles.static, roles.past, roles.target)
        return roles if roles.known else replace(roles, known=(POSITION,))

    @property
    def past_features(self) -> int:
        """The number of columns of the encoder: known, past and target."""
        return len(self.roles.encoder)

    @property
    def future_features(self) -> int:
        """The number of columns of the decoder: known."""
        return len(self.roles.decoder)

    @property
    def static_features(self) -> int:
        """How many static columns a row has; 0 if they are repeated at every step."""
        return len(self.roles.static)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """How many labels each encoder column has, as `cardinalities` counts them."""
        return cardinalities(self.roles.encoder, self.source.categories)

    @property
    def static_cardinalities(self) -> tuple[int, ...]:
        """The same for the static columns of a row."""
        return cardinalities(self.roles.static, self.source.categories)

    @property
    def target_features(self) -> int:
        """The number of columns to forecast."""
        return len(self.roles.target)

    @cached_property
    def season(self) -> int:
        """The steps of a season; 1 without one that shows in training."""
        events, season = self._training_events, self.source.season
        return season_that_shows(events, self.roles.target, season, self.trained_horizon)

    @property
    def longest_context(self) -> int:
        """The longest context of a training row, without random lengths."""
        cuts = self._cuts(self.splits[0], train=True)
        return int((cuts[:, 2] - cuts[:, 1]).max())

    def setup(self) -> None:
        """Read, split and normalise now, not at the first access.

        Raises:
            DataError: data that the source refuses, too few events, or an event too short.
        """
        _ = self.train, self.validation, self.test

    @cached_property
    def events(self) -> list[Series]:
        """All events that are long enough, unnormalised, in the source's order.

        Raises:
            DataError: data that the source refuses, an event too short.
        """
        events = self._all_events
        if self.source.missing == "error":
            remedy = "Fill it, or read it with a source that holds missing values."
            check_known(events, self.source.roles.columns, "a value at every step", remedy)
        return [event for event in events if self._is_long_enough(event)]

    @cached_property
    def layout(self) -> Layout:
        """How the events are split and cut; they are read where that is left open."""
        return Layout.of(self._options, lambda: self._all_events, self.source.season)

    @property
    def resolved(self) -> dict[str, Any]:
        """The arguments that the data decided on, which a run's configuration keeps."""
        is_open = self._options.windows == "auto" or self._options.split is None
        return self.layout.arguments if is_open else {}

    @cached_property
    def splits(self) -> tuple[list[Section], ...]:
        """The sections of events that train, validate and test.

        Raises:
            DataError: no event left to train on.
        """
        if not self.events:
            got = f"{len(self._all_events)} events, all too short"
            expected = f"one of {self.layout.shortest.steps} steps or more, a context and a horizon"
            raise DataError.of(_NAME, "source", got, expected, self.layout.remedy_for_all_short)
        by_time = self.layout.by_time
        return split(self.events, self.shares, self.layout.shortest, by_time=by_time)

    @cached_property
    def normalization(self) -> Normalization:
        """The normalisation, fitted on the training steps.

        To forecast without the training data, set it before the first access, and give windows.
        """
        events, source = self._training_events, self.source
        return Normalization.fit(events, source.roles, self.transforms, source.categories)

    @cached_property
    def train(self) -> RaggedDataset:
        """The rows to train on."""
        return self._dataset(self._train_rows)

    @cached_property
    def validation(self) -> RaggedDataset:
        """The rows to validate on."""
        return self._dataset(SeriesRows(self._series, self._cuts(self.splits[1])))

    @cached_property
    def test(self) -> RaggedDataset:
        """The rows to test on: the last ones."""
        return self._dataset(SeriesRows(self._series, self._cuts(self.splits[2])))

    @property
    def notes(self) -> list[str]:
        """Remarks on the data for the user: gaps, dropped events, constant columns.

        Raises:
            DataError: as `setup`.
        """
        count, kept = len(self._all_events), len(self.events)
        dropped = f"{count - kept} of {count} events were dropped: too short"
        return [
            *self.source.notes,
            *([dropped] if kept < count else []),
            *constant_notes(self._training_events, self.source.roles),
            *unseen_notes(self.normalization, self.source.categories),
        ]

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """How many rows and steps train, validate and test; a context before them is not counted.

        Raises:
            DataError: as `setup`.
        """
        datasets = {"training": self.train, "validation": self.validation, "test": self.test}
        steps = [sum(s.end - s.begin for s in sections) for sections in self.splits]
        return {n: (len(d), s) for (n, d), s in zip(datasets.items(), steps, strict=True)}

    def train_epoch(self, seed: int, epoch: int) -> RaggedDataset:
        """Return the rows of a training epoch: `train`, with the random cuts and shifts configured.

        Args:
            seed: 0 or more.
            epoch: 0 or more; the rows are a pure function of both.
        """
        if not self.randomize_lengths and not self.level_jitter:
            return self.train
        generator = np.random.default_rng([seed, epoch, 1])  # batch_order draws from [seed, epoch]
        cuts, shifts = self._train_rows.cuts, None
        if self.randomize_lengths:
            draw = draw_windows if self.layout.windows else draw_splits
            cuts = draw(cuts, self.layout.min_steps, generator)
        if self.level_jitter:
            shifts = generator.normal(0.0, self.level_jitter, (len(cuts), self.target_features))
        return self._dataset(SeriesRows(self._series, cuts, shifts))

    def rows_for(self, events: Sequence[Series]) -> RaggedDataset:
        """Turn events into rows to forecast.

        The context is the leading steps where every target is known, with windows the last ones of
        them, and the horizon all steps after. If values may be missing, the context ends after the
        last known value of the target that ends first. An event whose targets are known to the end
        is cut as in a test.

        Args:
            events: as the source's `read` gives them.

        Returns:
            A dataset in the order of the events; its targets are NaN where they are unknown.

        Raises:
            DataError: an event whose first target is unknown, or too short to be cut; a past
                column that is unknown in the context; a horizon longer than the windows'.
        """
        cuts = cut_to_forecast(self, events)
        check_horizons(self, events, cuts)
        return self.rows_at(events, cuts)

    @property
    def trained_horizon(self) -> int | None:
        """The steps of the horizon of a window; None without windows."""
        return None if self.layout.windows is None else self.layout.windows.horizon

    @property
    def shortest_context(self) -> int:
        """The least steps of a context to forecast from."""
        return self.layout.shortest.context

    def context_start(self, split: int) -> int:
        """Return the step at which the context before a step starts."""
        windows = self.layout.windows
        return 0 if windows is None else max(0, split - windows.context)

    def rows_at(self, events: Sequence[Series], cuts: np.ndarray) -> RaggedDataset:
        """Return rows of events, `cuts (rows, 4)` int64: index of the event, start, split, stop."""
        return self._dataset(SeriesRows(self._normalised(events), cuts))

    @cached_property
    def _all_events(self) -> list[Series]:
        return self.source.events()

    def _is_long_enough(self, event: Series) -> bool:
        if event.part_of is not None:  # how long parts are is no choice of the user
            return event.steps >= self.layout.shortest.steps
        steps = split_sizes(event.steps, self.shares)[0] if self.layout.by_time else event.steps
        if self.short_events == "error":
            self.check_steps(event, steps)
        return steps >= self.layout.shortest.steps

    def check_steps(self, event: Series, steps: int) -> None:
        """Refuse an event with too few steps for a row by a `DataError`."""
        if steps < self.layout.shortest.steps:
            is_cut, remedy = steps < event.steps, self.layout.remedy_for_short
            where = f"{'in training' if is_cut else 'long'} in event '{event.name}'"
            expected = f"{self.layout.shortest.steps} steps or more, a context and a horizon"
            remedy = f"Lower validation or test. Or: {remedy}" if is_cut else remedy
            raise DataError.of(_NAME, "event", f"{max(steps, 0)} steps {where}", expected, remedy)

    @cached_property
    def _training_events(self) -> list[Series]:
        return [self.events[section.index].until(section.end) for section in self.splits[0]]

    @cached_property
    def _series(self) -> list[NormalizedSeries]:
        return self._normalised(self.events)

    def _normalised(self, events: Sequence[Series]) -> list[NormalizedSeries]:
        roles, normalization = self.roles, self.normalization
        return [NormalizedSeries.of(event, roles, normalization) for event in events]

    @cached_property
    def _train_rows(self) -> SeriesRows:
        return SeriesRows(self._series, self._cuts(self.splits[0], train=True))

    def _dataset(self, rows: SeriesRows) -> RaggedDataset:
        return RaggedDataset(rows, self.encoder_alignment, self.decoder_alignment)

    def _cuts(self, sections: Iterable[Section], *, train: bool = False) -> np.ndarray:
        """Cut sections into rows, `(rows, 4)`: index of the event, start, split, stop."""
        return np.concatenate([NO_CUTS, *(self.cuts_of(section, train) for section in sections)])

    def cuts_of(self, section: Section, train: bool = False) -> np.ndarray:
        """Cut a section into the rows of training, or of a test."""
        if (windows := self.layout.windows) is None:
            return cut_whole(section, self.context_fraction)
        stride = windows.stride if train else windows.horizon
        return cut_windows(section, windows, self.layout.min_steps, stride)


_NAME = EncoderDecoderDataModule.__name__


def _check_min_steps(argument: str, value: int | None, maximum: int | None) -> None:
    number = 1 if value is None else value
    _check(argument, value, number >= 1, "1 or more")
    _check(argument, value, number <= (maximum or number), f"at most {maximum}, as in `windows`")


def _check(argument: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise OptionError.of(_NAME, argument, value, expected, "Change it.")
