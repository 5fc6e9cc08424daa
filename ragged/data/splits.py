"""Splits into training, validation and test: by series, or each series by its steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from ragged.data.sources import Series
from ragged.data.windows import MinSteps, Section
from ragged.errors import DataError


def split(
    events: Sequence[Series], shares: tuple[float, float], min_steps: MinSteps, *, by_time: bool
) -> tuple[list[Section], ...]:
    """Split events into training, validation and test; parts of a series stay one series.

    Args:
        events: in the order of time.
        shares: that validate and test; see `split_sizes`.
        min_steps: of a row.
        by_time: whether each series is split by its steps, or the series are told apart.

    Raises:
        DataError: nothing is left to train on.
    """
    steps, series = [event.steps for event in events], parts_of_series(events)
    if by_time:
        sections = split_time(steps, shares, series, min_steps)
        got = f"{sum(steps)} steps in {len(events)} parts, none of them long enough to train on"
        expected = f"{min_steps.steps} steps or more in a row"
        remedy = "Give longer series, or lower windows, validation or test."
    else:
        train, validation, test = split_sizes(len(series), shares)
        sections = split_events(steps, shares, series) if train > 0 else ([], [], [])
        got = f"{len(series)} events, of which {validation} validate and {test} test"
        expected = "one event or more to train on"
        remedy = "Give more events, set validation or test to 0, or split to time."
    if not sections[0]:
        raise DataError.of("EncoderDecoderDataModule", "source", got, expected, remedy)
    return sections


def parts_of_series(events: Sequence[Series]) -> list[list[int]]:
    """Return the indices of the events of each series; most series are one event."""
    series: dict[object, list[int]] = {}
    for index, event in enumerate(events):
        series.setdefault(index if event.part_of is None else event.part_of, []).append(index)
    return list(series.values())


def split_sizes(count: int, shares: tuple[float, float]) -> tuple[int, int, int]:
    """Divide `count` among training, validation and test; training gets the remainder.

    >>> split_sizes(10, (0.1, 0.2)), split_sizes(2, (0.1, 0.2))
    ((7, 1, 2), (0, 1, 1))
    """
    validation, test = (max(1, round(count * share)) if share > 0 else 0 for share in shares)
    return count - validation - test, validation, test


def split_events(
    steps: Sequence[int], shares: tuple[float, float], series: Sequence[Sequence[int]] | None = None
) -> tuple[list[Section], ...]:
    """Split events into training, validation and test: the first ones, the next, the last.

    Args:
        steps: of each event.
        shares: of the series that validate and test; training must be left some, see `split_sizes`.
        series: the indices of the events that are parts of one series, which stay together; by
            default each event is a series.

    >>> [[section.index for section in split] for split in split_events([5, 6, 7, 8], (0.25, 0.25))]
    [[0, 1], [2], [3]]
    """
    whole = [[index] for index in range(len(steps))] if series is None else series
    edges = accumulate(split_sizes(len(whole), shares), initial=0)
    return tuple(
        [Section(i, 0, steps[i]) for indices in whole[begin:end] for i in indices]
        for begin, end in pairwise(edges)
    )


def split_time(
    steps: Sequence[int],
    shares: tuple[float, float],
    series: Sequence[Sequence[int]] | None = None,
    min_steps: MinSteps | None = None,
) -> tuple[list[Section], ...]:
    """Split each series into training, validation and test: its first steps, the next, the last.

    Args:
        steps: of each event.
        shares: of a series' steps that validate and test; see `split_sizes`.
        series: the indices of the events that are parts of one series, in the order of time; by
            default each event is a series.
        min_steps: of a row; a section without room for it is left out.

    >>> [[(s.begin, s.end) for s in sections] for sections in split_time([10], (0.1, 0.2))]
    [[(0, 7)], [(7, 8)], [(8, 10)]]
    >>> split_time([6, 4], (0.1, 0.2), series=[[0, 1]])[0]
    [Section(index=0, begin=0, end=6)]
    """
    shortest = min_steps or MinSteps(1, 1)
    splits: tuple[list[Section], ...] = ([], [], [])
    for indices in [[index] for index in range(len(steps))] if series is None else series:
        sizes = split_sizes(sum(steps[index] for index in indices), shares)
        for sections, (begin, end) in zip(
            splits, pairwise(accumulate(sizes, initial=0)), strict=True
        ):
            sections += _sections(indices, steps, begin, end, shortest)
    return splits


def _sections(
    indices: Sequence[int], steps: Sequence[int], begin: int, end: int, min_steps: MinSteps
) -> list[Section]:
    """Return the steps from `begin` to `end` of a series, by its parts."""
    sections, offset = [], 0
    for index in indices:
        first, last = max(begin - offset, 0), min(end - offset, steps[index])
        offset += steps[index]
        if first > 0:  # the context is before, as far as there is enough of it
            first = max(first, min_steps.context)
            has_room = last > first
        else:
            has_room = last >= min_steps.steps
        if has_room:
            sections.append(Section(index, first, last))
    return sections
