"""How series are split and cut where a user leaves it open."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from ragged.data import EncoderDecoderDataModule, Roles, Series, Source, Storms, Windows, seasons
from ragged.data.layout import choose_windows, run_in_parallel
from ragged.data.seasons import season_that_shows
from ragged.errors import OptionError

START = datetime(2020, 1, 1)


class Days(Source):
    """Daily series with dates, of given lengths and first days."""

    roles = Roles(known=(), past=(), target=("y",))
    time_label, units = "h", {}
    season = 7

    def __init__(self, *sizes: tuple[int, int]) -> None:
        self.sizes = sizes

    def events(self) -> list[Series]:
        return [
            Series(
                str(number),
                24.0 * np.arange(steps),
                {"y": np.sin(np.arange(float(steps)))},
                START + timedelta(days=first),
            )
            for number, (first, steps) in enumerate(self.sizes)
        ]

    def read(self, path):
        raise NotImplementedError


def test_a_long_series_is_cut_into_windows_of_its_season():
    data = EncoderDecoderDataModule(Days((0, 200)))
    assert data.layout.windows == Windows(42, 14)
    assert data.layout.by_time
    assert data.train.lengths[0].tolist() == [42, 14]
    assert data.layout.description == (
        "windows: context 42 steps, horizon 14 steps, in training one every 1 step"
    )
    assert data.resolved == {
        "windows": {"context": 42, "horizon": 14, "stride": 1},
        "split": "time",
        "min_context": 4,
        "min_horizon": 3,
    }
    again = EncoderDecoderDataModule(
        Days((0, 200)), **{**data.resolved, "windows": Windows(**data.resolved["windows"])}
    )
    assert again.layout == data.layout
    assert again.resolved == {}


def test_short_series_and_storms_stay_whole():
    for source in (Days((0, 15)), Storms()):
        data = EncoderDecoderDataModule(source)
        assert data.layout.windows is None
        assert data.layout.description == "an event is a row"
        assert data.resolved["windows"] == "whole"
    long = EncoderDecoderDataModule(Days(*((2000 * i, 1500) for i in range(5))))
    assert (long.layout.by_time, long.layout.windows) == (False, Windows(42, 14, stride=2))


def test_series_that_run_at_the_same_time_are_split_in_time():
    parallel = EncoderDecoderDataModule(Days((0, 100), (3, 100), (0, 90)))
    assert parallel.layout.by_time
    assert [len(sections) for sections in parallel.splits] == [3, 3, 3]
    one_after_another = EncoderDecoderDataModule(Days((0, 100), (100, 100), (200, 100)))
    assert not one_after_another.layout.by_time
    assert [len(sections) for sections in one_after_another.splits] == [1, 1, 1]
    chosen = EncoderDecoderDataModule(Days((0, 100), (3, 100), (0, 90)), split="events")
    assert not chosen.layout.by_time
    events = Days((0, 100), (3, 100)).events()
    assert run_in_parallel(events)
    assert not run_in_parallel([replace(event, start=None) for event in events])
    assert not run_in_parallel(Days((0, 20), (3, 20)).events())  # too short to be split
    assert not run_in_parallel([])


def test_a_series_shorter_than_the_chosen_windows_is_kept():
    data = EncoderDecoderDataModule(Days((0, 200), (0, 180), (150, 12)))
    assert data.layout.windows is not None
    assert {row.event.name for row in data.train.rows} == {"0", "1", "2"}


@pytest.mark.parametrize("season", [1, 4, 7, 12, 24, 52, 96])
@pytest.mark.parametrize("steps", [1, 2, 15, 16, 17, 40, 100, 1000, 100_000])
def test_chosen_windows_fit_the_series(steps, season):
    windows = choose_windows([steps, steps], season)
    assert windows.context >= 1
    assert windows.horizon >= 1
    assert windows.context + windows.horizon <= max(2, steps // 2)
    assert -(-2 * steps // windows.stride) <= 4096
    if windows.horizon > steps // 8:
        assert windows.horizon % season == 0 or windows.horizon == 1


def test_other_layouts_are_refused():
    with pytest.raises(OptionError, match=r"`windows` is 'wide'; expected 'auto', 'whole' or a"):
        EncoderDecoderDataModule(Days((0, 9)), windows="wide")
    with pytest.raises(OptionError, match=r"`min_horizon` is 5; expected at most 4, as in `wind"):
        EncoderDecoderDataModule(Days((0, 9)), windows=Windows(9, 4), min_horizon=5)


def test_a_season_has_to_show_in_training():
    week = np.tile([1.0, 5, 2, 6, 3, 7, 4], 30)
    line, noise = np.arange(210.0), np.random.default_rng(0).normal(size=210)
    for values, expected in ((week, 7), (week + line / 50, 7), (line, 1), (noise.cumsum(), 1)):
        source = Days((0, 210))
        source.events = lambda values=values: [  # type: ignore[method-assign]
            Series("0", 24.0 * np.arange(210), {"y": values}, START)
        ]
        assert EncoderDecoderDataModule(source).season == expected
    assert season_that_shows([], ["y"], 7) == 1
    huge = Series("0", np.arange(9.0), {"y": 1e300 * np.arange(9.0)})
    assert season_that_shows([huge], ["y"], 3) == 1  # without a warning
    short = Series("0", np.arange(3.0), {"y": np.arange(3.0)})
    assert season_that_shows([short], ["y"], 7) == 1


def test_errors_of_a_season_are_those_of_its_forecast():
    values = np.random.default_rng(1).normal(size=20)
    values[[4, 11]] = np.nan
    event, season, horizon = Series("0", np.arange(20.0), {"y": values}), 3, 5
    by_season = by_last = 0.0
    for split in range(season, 20):
        for step in range(min(horizon, 20 - split)):
            truth, last = values[split + step], values[split - 1]
            before = values[split - season + step % season]
            if not np.isnan(truth + last + before):
                by_season += (truth - before) ** 2
                by_last += (truth - last) ** 2
    found = season_that_shows([event], ["y"], season, horizon)
    assert found == (season if by_season < by_last else 1)
    assert seasons._errors(values, season, horizon) == pytest.approx((by_season, by_last))
