"""Where events to forecast are cut: after the last known target, or as in a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ragged.data.sources import Columns, Roles, Series, check_known
from ragged.data.windows import Section
from ragged.errors import DataError

if TYPE_CHECKING:
    from ragged.data.module import EncoderDecoderDataModule

NO_CUTS = np.zeros((0, 4), dtype=np.int64)


class HasColumns(Protocol):
    """What has a name and columns: a series, or the rows of one."""

    @property
    def name(self) -> str:
        """Of the series."""

    @property
    def columns(self) -> Columns:
        """For each column `(steps,)`."""


def first_unknown_target(event: HasColumns, roles: Roles, *, fills: bool) -> int | None:
    """Return the step at which the horizon of an event to forecast starts; None if all is known.

    Args:
        event: the event.
        roles: of its columns.
        fills: whether targets are forward-filled, up to the last known value.

    Raises:
        DataError: a target that is unknown from the first step on.
    """
    unknown = np.stack([np.isnan(event.columns[name]) for name in roles.target])
    if fills:
        unknown = np.logical_and.accumulate(unknown[:, ::-1], axis=1)[:, ::-1]
    steps = unknown.any(axis=0)
    if not steps.any():
        return None
    split = int(np.argmax(steps))
    if split == 0:
        got = f"unknown at the first step of event '{event.name}'"
        remedy = "Fill the target of the steps that were observed."
        expected = "a target that is known at first"
        raise DataError.of("EncoderDecoderDataModule", "target", got, expected, remedy)
    return split


def cut_to_forecast(data: EncoderDecoderDataModule, events: Sequence[Series]) -> np.ndarray:
    """Return where `data.rows_for` cuts events, whose horizons may be longer than the windows'.

    Args:
        data: with the windows, or without.
        events: as the source's `read` gives them.

    Returns:
        `(rows, 4)` int64: the index of a row's event, and its start, split and stop there. Events
        that are too short have no row where the data module leaves them out, unless all are so.

    Raises:
        DataError: an event whose first target is unknown, or too short to be cut; a past column
            that is unknown in the context.
    """
    kept = [i for i, e in enumerate(events) if not _is_left_out(data, e)] or range(len(events))
    cuts = [_cuts_of(data, index, events[index]) for index in kept]
    if data.source.missing == "error":
        expected = "a value at every step of the context"
        remedy = "Fill it; over the horizon it may stay empty."
        for index, event_cuts in zip(kept, cuts, strict=True):
            context = events[index].until(event_cuts[:, 2].max())
            check_known([context], data.source.roles.past, expected, remedy, "rows_for")
    return np.concatenate([NO_CUTS, *cuts])


def check_horizons(
    data: EncoderDecoderDataModule, events: Sequence[Series], cuts: np.ndarray
) -> None:
    """Refuse rows whose horizon is longer than the windows'.

    Raises:
        DataError: such a row.
    """
    for index, _, split, stop in cuts.tolist():
        if data.trained_horizon is not None and stop - split > data.trained_horizon:
            raise _refuse(data, events[index], split, stop)


def _is_left_out(data: EncoderDecoderDataModule, event: Series) -> bool:
    """Whether an event is too short, and not refused for it: parts of series never are."""
    may_be = event.part_of is not None or data.short_events == "drop"
    return may_be and _is_too_short(data, event, _split_of(data, event))


def _is_too_short(data: EncoderDecoderDataModule, event: Series, split: int | None) -> bool:
    if split is None:
        return event.steps < data.layout.shortest.steps
    return data.trained_horizon is not None and split < data.shortest_context


def _split_of(data: EncoderDecoderDataModule, event: Series) -> int | None:
    return first_unknown_target(event, data.source.roles, fills=data.source.missing == "ffill")


def _cuts_of(data: EncoderDecoderDataModule, index: int, event: Series) -> np.ndarray:
    split = _split_of(data, event)
    if split is None:
        data.check_steps(event, event.steps)
        return data.cuts_of(Section(index, 0, event.steps))
    if _is_too_short(data, event, split):
        raise _refuse(data, event, split, event.steps)
    return np.array([[index, data.context_start(split), split, event.steps]])


def _refuse(data: EncoderDecoderDataModule, event: Series, split: int, stop: int) -> DataError:
    got = f"of {split} known and {stop - split} further steps in '{event.name}'"
    expected = f"{data.shortest_context} or more, then at most {data.trained_horizon}"
    drop = "Set short_events to drop. " if split < data.shortest_context else ""
    remedy = f"{drop}Give what the windows are made for, or train with others."
    return DataError.of(type(data).__name__, "event", got, expected, remedy)
