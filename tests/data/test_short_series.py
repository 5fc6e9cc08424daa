"""Series that are too short to be cut: refused with what helps, or left out and told."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ragged.data import EncoderDecoderDataModule, Tables, Windows
from ragged.data.horizons import cut_to_forecast
from ragged.data.tables.future import Future
from ragged.errors import DataError
from ragged.forecasting.rolling import left_out_note

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def refuses(message: str):
    return pytest.raises(DataError, match=re.escape(message))


def tables(columns: dict, **options: object) -> Tables:
    given: dict = {"target": ["y"], "time": "t"}
    return Tables.from_frame(pandas.DataFrame(columns), **given | options)


def module(
    columns: dict, source: dict | None = None, **options: object
) -> EncoderDecoderDataModule:
    return EncoderDecoderDataModule(tables(columns, **source or {}), **options)


def test_events_that_are_all_too_short_name_the_settings():
    data = module({"t": [0.0, 1, 2], "y": [1.0, 2, 3]}, windows=Windows(9, 9), short_events="drop")
    with refuses("is 1 events, all too short; expected one of 18 steps or more, a context and a"):
        data.setup()
    with refuses("Give longer events, or lower windows, min_context or min_horizon."):
        data.setup()
    single = module({"t": [0.0, 1], "y": [1.0, 2]})
    with refuses("`event` is 0 steps in training in event '0'; expected 2 steps or more"):
        single.setup()
    with refuses("Lower validation or test. Or: Drop the event"):
        single.setup()


def test_parts_that_are_too_short_are_left_out_of_forecasts_too():
    times = np.concatenate([np.arange(30.0), np.arange(40, 42), np.arange(50, 60)])
    data = module({"t": times, "y": np.sin(times)}, {"gaps": "split"}, windows=Windows(4, 2))
    cuts = cut_to_forecast(data, data.source.events())
    assert set(cuts[:, 0]) == {0, 2}
    assert left_out_note(data.source.events(), cuts) == "left out, too short to forecast: 0 (2)"
    assert left_out_note(data.source.events()[:1], cuts) is None
    with refuses("`event` is 2 steps long in event '0 (2)'"):
        cut_to_forecast(data, data.source.events()[1:2])


def test_windows_that_nobody_asked_for_fit_the_longest_part():
    times = np.concatenate([np.arange(6.0) + 10 * part for part in range(12)])
    data = module({"t": times, "y": np.sin(times)}, {"gaps": "split"})
    data.setup()
    assert len(data.train) > 0


def test_a_series_of_one_row_goes_on_as_the_others_do():
    days = pandas.DataFrame({"g": list("aab"), "t": ["2024-01-01", "2024-01-02", "2024-01-01"]})
    source = tables({**days, "y": [1.0, 2, 3]}, group="g")
    source.events()
    events = source.read(days.assign(y=[1.0, 2, 3]), Future(1))
    assert [event.steps for event in events] == [3, 2]
