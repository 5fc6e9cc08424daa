"""Windows and splits in time: which steps a row sees, and which it forecasts."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ragged.data import EncoderDecoderDataModule, Roles, Series, Source, Windows, batches
from ragged.errors import DataError, OptionError


class Counting(Source):
    """Events of the lengths given, whose target is the step's number, from 0 in each."""

    roles = Roles(known=("k",), past=(), target=("t",), static=("s",))
    time_label = "step"
    units = {"k": "-", "t": "-", "s": "-"}  # noqa: RUF012

    def __init__(self, *lengths: int, missing: str = "error") -> None:
        self.lengths, self.missing = lengths, missing

    def events(self) -> list[Series]:
        return [self.event(place, steps) for place, steps in enumerate(self.lengths)]

    def event(self, place: int, steps: int) -> Series:
        time = np.arange(float(steps))
        columns = {"k": time**2, "t": time.copy(), "s": np.full(steps, float(place))}
        return Series(f"e{place}", time, columns)

    def read(self, path: Path) -> list[Series]:
        return self.events()


def refuses(message: str, error: type[Exception] = DataError):
    return pytest.raises(error, match=re.escape(message))


def module(*lengths: int, context: int = 4, horizon: int = 3, stride: int = 1, **options):
    source = options.pop("source", None) or Counting(*lengths)
    given = {"validation": 0.0, "test": 0.0, "min_context": 2, "min_horizon": 2}
    windows = Windows(context, horizon, stride)
    return EncoderDecoderDataModule(source, windows=windows, **given | options)


def cuts(dataset) -> list[tuple[str, int, int, int]]:
    return [(row.event.name, row.start, row.split, row.stop) for row in dataset]


def by_hand(steps: int, context: int, horizon: int, stride: int) -> list[tuple[int, int, int]]:
    """Slide a window until one reaches the end."""
    found = [(0, context, min(context + horizon, steps))]
    while found[-1][2] < steps and found[-1][1] + stride < steps:
        split = found[-1][1] + stride
        found.append((split - context, split, min(split + horizon, steps)))
    return found


@pytest.mark.parametrize("steps", range(6, 16))
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_training_windows_slide_by_their_stride(steps, stride):
    data = module(steps, stride=stride)
    assert [cut[1:] for cut in cuts(data.train)] == by_hand(steps, 4, 3, stride)


def test_validation_and_test_forecast_each_step_once():
    data = module(20, 12, 15, validation=0.3, test=0.3)
    assert cuts(data.train)[:2] == [("e0", 0, 4, 7), ("e0", 1, 5, 8)]
    assert cuts(data.validation) == [("e1", 0, 4, 7), ("e1", 3, 7, 10), ("e1", 6, 10, 12)]
    steps = np.concatenate([np.arange(row.split, row.stop) for row in data.test])
    assert steps.tolist() == list(range(4, 15))


def test_rows_are_the_steps_that_they_say():
    data = module(9, 12)
    for row in data.train:
        np.testing.assert_array_equal(row.horizon_time, np.arange(row.split, row.stop))
        np.testing.assert_array_equal(row.truth("t"), np.arange(row.split, row.stop))
        for values, steps in (
            (row.past, (row.start, row.split)),
            (row.future, (row.split, row.stop)),
        ):
            (chain,) = data.normalization.chains["k"]
            np.testing.assert_allclose(chain.inverse(values[:, 0]), np.arange(*steps) ** 2.0)
        back = data.normalization.inverse("t", row.target[:, 0], row)
        np.testing.assert_allclose(back, row.truth("t"), atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "expected"), [(4, (0, 2, 4)), (5, (0, 3, 5)), (6, (0, 4, 6)), (7, (0, 4, 7))]
)
def test_short_events_give_a_shorter_context(steps, expected):
    assert [cut[1:] for cut in cuts(module(steps).train)] == [expected]


def test_events_too_short_are_refused_or_dropped_and_told():
    with refuses("`event` is 3 steps long in event 'e1'; expected 4 steps or more, a context and"):
        module(9, 3, 9).setup()
    data = module(9, 3, 9, short_events="drop")
    assert {cut[0] for cut in cuts(data.train)} == {"e0", "e2"}
    assert data.notes[0] == "1 of 3 events were dropped: too short"
    assert EncoderDecoderDataModule(
        Counting(9, 1, 9), validation=0, test=0, short_events="drop"
    ).train.lengths.tolist() == [[3, 6], [3, 6]]


def test_a_single_event_is_cut_in_time():
    data = module(20, validation=0.25, test=0.25)
    assert data.train[len(data.train) - 1].stop == 10
    assert cuts(data.validation) == [("e0", 6, 10, 13), ("e0", 9, 13, 15)]
    assert cuts(data.test) == [("e0", 11, 15, 18), ("e0", 14, 18, 20)]
    (chain,) = data.normalization.chains["t"]
    assert chain.center == np.arange(10).mean()  # of the training steps alone


def test_several_events_are_cut_in_time_where_asked():
    data = module(20, 8, split="time", validation=0.25, test=0.25)
    assert max(row.stop for row in data.train if row.event.name == "e1") == 4
    assert cuts(data.validation)[-1] == ("e1", 0, 4, 6)
    assert cuts(data.test)[-1] == ("e1", 2, 6, 8)
    with refuses("`event` is 2 steps in training in event 'e1'; expected 4 steps or more"):
        module(20, 6, split="time", validation=0.25, test=0.25).setup()


def test_whole_events_are_cut_in_time_too():
    data = EncoderDecoderDataModule(Counting(20), validation=0.25, test=0.25)
    assert cuts(data.train) == [("e0", 0, 3, 10)]
    assert cuts(data.validation) == [("e0", 0, 10, 15)]
    assert cuts(data.test) == [("e0", 0, 15, 20)]


def test_drawn_windows_stay_within_theirs():
    data = module(60, 40, context=12, horizon=9, min_context=3, randomize_lengths=True)
    first, again, other = (data.train_epoch(0, epoch) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first.lengths, again.lengths)
    assert (first.lengths != other.lengths).any()
    for drawn, row in zip(first, data.train, strict=True):
        assert drawn.split == row.split
        assert row.start <= drawn.start <= row.split - 3
        assert min(row.stop, row.split + 2) <= drawn.stop <= row.stop
    assert {
        (low, high) for low, high in zip(first.lengths.min(0), first.lengths.max(0), strict=True)
    }
    assert first.lengths.min(0).tolist() == [3, 2]
    assert first.lengths.max(0).tolist() == [12, 9]
    np.testing.assert_array_equal(
        data.test.lengths, module(60, 40, context=12, horizon=9).test.lengths
    )


def test_defaults_of_the_least_follow_the_windows():
    small = EncoderDecoderDataModule(Counting(9), windows=Windows(4, 3), validation=0, test=0)
    assert (small.layout.min_steps.context, small.layout.min_steps.horizon) == (4, 3)
    large = EncoderDecoderDataModule(Counting(9), windows=Windows(40, 30))
    assert (large.layout.min_steps.context, large.layout.min_steps.horizon) == (16, 16)


def test_many_windows_cost_no_memory_before_they_are_batched():
    data = module(30_000, context=200, horizon=100)
    data.normalization  # noqa: B018  fits, which copies the steps
    tracemalloc.start()
    dataset = data.train
    assert dataset.lengths.sum() == len(dataset) * 300
    made = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made < 10e6  # the rows would take 214 MB
    assert dataset[5].past.base is dataset[6].past.base is not None


def test_forecasts_take_the_last_context_and_no_longer_horizon():
    data = module(30)
    event = data.source.event(0, 12)
    assert cuts(data.rows_for([event])) == [("e0", 0, 4, 7), ("e0", 3, 7, 10), ("e0", 6, 10, 12)]
    event.columns["t"][10:] = np.nan
    assert cuts(data.rows_for([event])) == [("e0", 6, 10, 12)]
    event.columns["t"][8:] = np.nan
    with refuses("of 8 known and 4 further steps in 'e0'; expected 2 or more, then at most 3"):
        data.rows_for([event])
    short = data.source.event(0, 2)
    short.columns["t"][1:] = np.nan
    with refuses("Set short_events to drop"):
        data.rows_for([short])


def test_held_values_and_unknown_targets():
    source = Counting(12, missing="ffill")
    event = source.event(0, 12)
    event.columns["k"][[0, 1, 5]] = np.nan
    event.columns["t"][[2, 6, 9]] = np.nan
    source.events = lambda: [event]
    data = module(source=source, context=4, horizon=8)
    row, (k,), (t,) = data.train[0], *(data.normalization.chains[name] for name in "kt")
    seen = np.array([2, 3, 4, 6, 7, 8, 9, 10, 11.0]) ** 2
    assert k.center == pytest.approx(seen.mean())
    np.testing.assert_allclose(k.inverse(row.past[:, 0]), [k.center, k.center, 4, 9], atol=1e-9)
    np.testing.assert_allclose(k.inverse(row.future[:2, 0]), [16, 16])
    np.testing.assert_allclose(t.inverse(row.past[:, -1]), [0, 1, 1, 3])
    np.testing.assert_array_equal(np.isnan(row.target[:, 0]), np.isin(np.arange(4, 12), [6, 9]))
    (batch,) = batches(data.train, 2)
    assert (batch.count, int(batch.decoder_lengths.tokens)) == (6, 8)
    assert np.isnan(batch.target[0]).sum() == 2
    assert np.isfinite(batch.past).all()
    assert not batch.target[1].any()


def test_held_targets_are_forecast_after_their_last_known_value():
    source = Counting(12, missing="ffill")
    data = module(source=source, context=4, horizon=8)
    event = source.event(0, 12)
    event.columns["t"][[5, 10, 11]] = np.nan
    assert cuts(data.rows_for([event])) == [("e0", 6, 10, 12)]


def test_values_must_be_known_unless_the_source_holds_them():
    source = Counting(12)
    event = source.event(0, 12)
    event.columns["k"][3] = np.nan
    source.events = lambda: [event]
    with refuses("events(): `k` is unknown in event 'e0' at step 3; expected a value at every"):
        module(source=source).setup()


def test_statics_are_repeated_or_given():
    options = {"validation": 0.25, "test": 0.25}
    data = module(9, 9, 9, 9, **options)
    assert (data.static_features, data.past_features, data.future_features) == (0, 3, 2)
    row = data.test[0]
    assert row.static is None
    np.testing.assert_allclose(row.past[:, 1], 5.0)  # 0 and 1 in training: mean and deviation 0.5
    np.testing.assert_allclose(row.future[:, 1], 5.0)
    data = module(9, 9, 9, 9, repeat_static=False, **options)
    assert (data.static_features, data.past_features, data.future_features) == (1, 2, 1)
    np.testing.assert_allclose(data.test[0].static, [5.0])
    (batch,) = batches(data.train, 16)
    np.testing.assert_allclose(batch.static[:, 0], [-1] * 3 + [1] * 3 + [0] * 10)


def test_constant_columns_are_told():
    data = module(9, repeat_static=False)
    assert data.notes == ["column 's' never changes in training: it tells nothing"]
    assert data.train[0].static.tolist() == [0.0]


def test_windows_refuse_numbers_below_one():
    for options, message in (
        ((0, 1), "`context` is 0"),
        ((1, 0), "`horizon` is 0"),
        ((1, 1, 0), "`stride` is 0"),
    ):
        with refuses(f"Windows(): {message}; expected 1 or more. Raise it.", OptionError):
            Windows(*options)
