"""Rows, splits and batches: every row once, few shapes, no value lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragged.data import (
    EncoderDecoderDataModule,
    Normalization,
    RaggedDataset,
    Roles,
    Series,
    Source,
    StandardScaler,
    Storms,
    Windows,
    batches,
    collate,
)
from ragged.errors import DataError, OptionError
from tests.data.samples import refuses, row


class Counting(Source):
    """Events whose values say where they come from; counts how often it is read."""

    roles = Roles(known=("k",), past=("p",), target=("t",))
    time_label = "step"
    units = {"k": "-", "p": "-", "t": "-"}  # noqa: RUF012

    def __init__(self, *lengths: int) -> None:
        self.lengths, self.reads = lengths, 0

    def events(self) -> list[Series]:
        self.reads += 1
        return [self.event(number, steps) for number, steps in enumerate(self.lengths)]

    def event(self, number: int, steps: int) -> Series:
        time = np.arange(float(steps))
        columns = {"k": 100.0 * number + time, "p": -time, "t": 1000.0 * number + time**2}
        return Series(str(number), time, columns)

    def read(self, path: Path) -> list[Series]:
        return self.events()


def test_collate_pads_with_zeros_and_fills_the_batch():
    rows = [row(2, 9), row(5, 3, 10.0)]
    batch = collate(rows, batch_size=3, dtype=np.float64, indices=[7, 4], shapes=4)
    assert batch.past.shape == (3, 5, 3)
    assert batch.future.shape == (3, 10, 2)
    assert batch.target.shape == (3, 10, 1)
    assert batch.past.dtype == np.float64
    assert batch.encoder_lengths.host.tolist() == [2, 5, 0]
    assert batch.decoder_lengths.host.tolist() == [9, 3, 0]
    assert (batch.encoder_lengths.width, batch.decoder_lengths.width) == (5, 10)
    assert batch.rows.tolist() == [7, 4, -1]
    assert batch.past[:, :, 0].tolist() == [[1, 1, 0, 0, 0], [10] * 5, [0] * 5]
    assert batch.future[1, :, 1].tolist() == [11.0] * 3 + [0.0] * 7
    assert batch.target[0, :, 0].tolist() == [3.0] * 9 + [0.0]


def test_right_alignment_moves_the_context_only():
    left = collate([row(2, 3), row(4, 1)], batch_size=2)
    right = collate([row(2, 3), row(4, 1)], batch_size=2, encoder_alignment="right")
    assert right.past[0, :, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert (left.encoder_alignment, right.encoder_alignment) == ("left", "right")
    np.testing.assert_array_equal(left.future, right.future)
    assert left.encoder_lengths == right.encoder_lengths
    assert left.past.dtype == np.float32


def test_collate_refusals():
    with refuses(OptionError, "collate(): `encoder_alignment` is 'top'; expected 'left' or"):
        collate([row(1, 1)], batch_size=1, encoder_alignment="top")
    with refuses(OptionError, "collate(): `dtype` is int64; expected float32 or float64"):
        collate([row(1, 1)], batch_size=1, dtype=np.int64)
    with refuses(OptionError, "collate(): `rows` is 2 rows; expected 1 to 1. Give fewer"):
        collate([row(1, 1)] * 2, batch_size=1)
    with refuses(OptionError, "collate(): `rows` is 0 rows; expected 1 to 1. Give a row."):
        collate([], batch_size=1)
    with refuses(OptionError, "collate(): `indices` is 2 indices; expected 1."):
        collate([row(1, 1)], batch_size=1, indices=[1, 2])


def test_batches_carry_every_value_of_every_row():
    data = EncoderDecoderDataModule(Storms(), encoder_alignment="right").validation
    seen: list[int] = []
    for batch in batches(data, 5, shuffle_seed=3, epoch=1, dtype=np.float64):
        assert batch.encoder_alignment == "right"
        assert len(batch.rows) == 5
        for place, index in enumerate(batch.rows.tolist()):
            context, horizon = batch.encoder_lengths.host[place], batch.decoder_lengths.host[place]
            if index < 0:
                assert (context, horizon) == (0, 0)
                continue
            seen.append(index)
            width = batch.past.shape[1]
            np.testing.assert_array_equal(batch.past[place, width - context :], data[index].past)
            np.testing.assert_array_equal(batch.future[place, :horizon], data[index].future)
            np.testing.assert_array_equal(batch.target[place, :horizon], data[index].target)
            assert not batch.past[place, : width - context].any()
            assert not batch.target[place, horizon:].any()
    assert sorted(seen) == list(range(len(data)))


def test_batches_keep_the_order_without_a_seed_and_repeat_few_shapes():
    data = EncoderDecoderDataModule(Storms()).train
    plain = [batch.rows for batch in batches(data, 16)]
    assert np.concatenate(plain)[: len(data)].tolist() == list(range(len(data)))
    shapes = {
        (batch.past.shape, batch.future.shape)
        for epoch in range(20)
        for batch in batches(data, 16, shuffle_seed=0, epoch=epoch)
    }
    assert len(shapes) <= 4
    assert list(batches(RaggedDataset([]), 4, shuffle_seed=0)) == []


def test_module_splits_in_time_order_and_cuts_events():
    source = Counting(*range(6, 16))
    data = EncoderDecoderDataModule(source)
    names = [[row.event.name for row in part.rows] for part in (data.train, data.validation)]
    assert names == [["0", "1", "2", "3", "4", "5", "6"], ["7"]]
    assert [row.event.name for row in data.test.rows] == ["8", "9"]
    assert [row.split for row in data.train.rows] == [2, 2, 2, 3, 3, 3, 4]
    assert data.train.lengths.tolist() == [[2, 4], [2, 5], [2, 6], [3, 6], [3, 7], [3, 8], [4, 8]]
    assert data.train.tokens == sum(range(6, 13))
    assert (data.past_features, data.future_features, data.target_features) == (3, 1, 1)


def test_module_rows_hold_the_normalised_event():
    data = EncoderDecoderDataModule(Counting(6, 9, 12, 30), validation=0.25, test=0.25)
    first = data.test[0]
    (known,), (past,), (target,) = (data.normalization.chains[name] for name in "kpt")
    parts = [known.inverse(part) for part in (first.past[:, 0], first.future[:, 0])]
    np.testing.assert_allclose(np.concatenate(parts), 300.0 + np.arange(30.0))
    np.testing.assert_allclose(past.inverse(first.past[:, 1]), -np.arange(10.0))
    parts = [target.inverse(part) for part in (first.past[:, 2], first.target[:, 0])]
    np.testing.assert_allclose(np.concatenate(parts), 3000.0 + np.arange(30.0) ** 2)
    whole = data.normalization.inverse("t", first.target[:, 0], first)
    np.testing.assert_allclose(whole, first.truth("t"))


def test_normalisation_sees_training_events_only():
    data = EncoderDecoderDataModule(Counting(6, 9, 500, 500), validation=0.25, test=0.25)
    expected = np.concatenate([np.arange(6.0), 100 + np.arange(9.0)])
    (found,) = data.normalization.chains["k"]
    assert found.center == pytest.approx(expected.mean())
    assert found.scale == pytest.approx(expected.std())


def test_module_reads_late_and_once():
    source = Counting(5, 5, 5)
    data = EncoderDecoderDataModule(source, validation=0.0)
    assert (source.reads, data.past_features) == (0, 3)
    data.setup()
    assert len(data.train) + len(data.validation) + len(data.test) == 3
    assert (source.reads, len(data.validation)) == (1, 0)


def test_rows_for_forecasts_from_the_first_unknown_target():
    source = Counting(4, 4)
    data = EncoderDecoderDataModule(source, validation=0.0, test=0.0)
    event = source.event(0, 10)
    assert data.rows_for([event])[0].split == 3
    event.columns["t"][7:9] = np.nan
    found = data.rows_for([event])[0]
    assert (found.split, len(found.past), len(found.future)) == (7, 7, 3)
    assert np.isfinite(found.past).all()
    assert np.isnan(found.target[:, 0]).tolist() == [True, True, False]
    event.columns["t"][0] = np.nan
    with refuses(DataError, "`target` is unknown at the first step of event '0'; expected a t"):
        data.rows_for([event])


def test_past_columns_must_be_known_over_the_context_only():
    source = Counting(4, 4)
    data = EncoderDecoderDataModule(source, validation=0.0, test=0.0)
    whole, future = source.event(0, 10), source.event(1, 10)
    future.columns["t"][7:] = np.nan
    expected = [row.past for row in data.rows_for([whole, future])]
    for event, split in ((whole, 3), (future, 7)):
        event.columns["p"][split:] = np.nan
    found = data.rows_for([whole, future])
    for sample, past in zip(found, expected, strict=True):
        np.testing.assert_array_equal(sample.past, past)
    future.columns["p"][6] = np.nan
    with refuses(DataError, "rows_for(): `p` is unknown in event '1' at step 6; expected a value"):
        data.rows_for([whole, future])
    source.missing = "ffill"
    assert np.isfinite(data.rows_for([future])[0].past).all()


def test_a_saved_normalisation_needs_no_training_data():
    source = Counting()
    data = EncoderDecoderDataModule(source, windows="whole", split="events")
    halved = dict.fromkeys("kpt", (StandardScaler(0.0, 2.0),))
    data.normalization = Normalization(halved, dict.fromkeys("kpt", 0.0))
    assert data.rows_for([source.event(1, 4)])[0].future[:, 0].tolist() == [50.5, 51.0, 51.5]
    assert source.reads == 0


def test_short_contexts_and_fractions_that_floats_miss():
    source = Counting(2)
    data = EncoderDecoderDataModule(source, 0.29, validation=0.0, test=0.0)
    assert data.train[0].split == 1
    assert data.rows_for([source.event(0, 100)])[0].split == 29


def test_module_refusals():
    name = "EncoderDecoderDataModule()"
    for options, message in (
        ({"context_fraction": 1.0}, "`context_fraction` is 1.0; expected between 0 and 1"),
        ({"validation": -0.1}, "`validation` is -0.1; expected 0 or more and below 1"),
        ({"test": float("nan")}, "`test` is nan; expected 0 or more and below 1"),
        ({"validation": 0.5, "test": 0.5}, "`test` is 0.5; expected below 1 together with"),
        ({"batch_size": 0}, "`batch_size` is 0; expected 1 or more"),
        ({"level_jitter": -0.1}, "`level_jitter` is -0.1; expected 0 or more"),
        ({"min_context": 0}, "`min_context` is 0; expected 1 or more"),
        ({"min_horizon": -3}, "`min_horizon` is -3; expected 1 or more"),
        ({"encoder_alignment": "top"}, "`encoder_alignment` is 'top'; expected 'left', 'right'"),
        ({"decoder_alignment": "up"}, "`decoder_alignment` is 'up'; expected 'left', 'right' or"),
        ({"split": "rows"}, "`split` is 'rows'; expected 'events', 'time' or None"),
        ({"short_events": "pad"}, "`short_events` is 'pad'; expected 'error' or 'drop'"),
        ({"windows": Windows(4, 2), "min_context": 5}, "`min_context` is 5; expected at most 4"),
    ):
        with refuses(OptionError, f"{name}: {message}"):
            EncoderDecoderDataModule(Counting(4), **options)
    with refuses(DataError, "`source` is 2 events, of which 1 validate and 1 test; expected one"):
        EncoderDecoderDataModule(Counting(4, 4)).setup()
    with refuses(DataError, "`event` is 1 steps long in event '0'; expected 2 steps or"):
        EncoderDecoderDataModule(Counting(1, 4, 4)).setup()


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_known_is_counted_on_either_side(side):
    rows = [row(1, 1), row(1, 3)]
    rows[0] = replace(rows[0], target=np.full((1, 1), np.nan))
    assert collate(rows, batch_size=3, decoder_alignment=side).count == 3
