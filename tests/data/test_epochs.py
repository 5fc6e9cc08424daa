"""Training epochs: events cut and shifted anew, alike whenever the same epoch is asked for."""

from __future__ import annotations

import numpy as np

from ragged.data import EncoderDecoderDataModule, MagnetHysteresis, Roles, Series, Source
from ragged.data.windows import MinSteps, draw_splits, draw_windows

SOURCE = MagnetHysteresis(cycles=10, min_steps=40, max_steps=50)
USUAL = EncoderDecoderDataModule(SOURCE, batch_size=4)


def test_without_either_an_epoch_is_the_training_rows():
    assert USUAL.train_epoch(0, 1) is USUAL.train


def test_random_lengths_are_drawn_anew_each_epoch_and_alike_each_time():
    data = EncoderDecoderDataModule(
        SOURCE, randomize_lengths=True, min_context=5, min_horizon=30, batch_size=4
    )
    epochs = [data.train_epoch(0, epoch) for epoch in (0, 0, 1)]
    first, again, other = (dataset.lengths for dataset in epochs)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    for lengths in (first, other):
        np.testing.assert_array_equal(lengths.sum(1), USUAL.train.lengths.sum(1))
        assert (lengths >= [5, 30]).all()
    for row, whole in zip(epochs[2], USUAL.train, strict=True):
        joined = np.concatenate([row.past[:, -1:], row.target])
        np.testing.assert_array_equal(joined, np.concatenate([whole.past[:, -1:], whole.target]))
    np.testing.assert_array_equal(data.test.lengths, USUAL.test.lengths)
    np.testing.assert_array_equal(data.validation.lengths, USUAL.validation.lengths)


def test_a_random_cut_reaches_both_ends_of_its_range():
    rows = np.tile([0, 2, 6, 12], (200, 1))  # place, start, split, stop
    drawn = draw_splits(rows, MinSteps(3, 4), np.random.default_rng(0))
    assert set(drawn[:, 2]) == {5, 6, 7, 8}
    np.testing.assert_array_equal(drawn[:, [0, 1, 3]], rows[:, [0, 1, 3]])
    drawn = draw_windows(rows, MinSteps(3, 4), np.random.default_rng(0))
    assert set(drawn[:, 1]) == {2, 3}
    assert set(drawn[:, 3]) == {10, 11, 12}


def test_events_too_short_for_a_random_cut_are_cut_as_usual():
    data = EncoderDecoderDataModule(SOURCE, randomize_lengths=True, min_context=40, min_horizon=40)
    np.testing.assert_array_equal(data.train_epoch(0, 0).lengths, USUAL.train.lengths)


def test_a_level_jitter_moves_past_and_future_targets_together():
    data = EncoderDecoderDataModule(SOURCE, level_jitter=0.5, batch_size=4)
    epochs = [data.train_epoch(seed, epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    shifts = np.array(
        [
            [_shift(row, whole) for row, whole in zip(dataset, USUAL.train, strict=True)]
            for dataset in epochs
        ]
    )
    np.testing.assert_array_equal(shifts[0], shifts[1])
    assert len(np.unique(shifts[[0, 2, 3]])) == 3 * len(USUAL.train)
    assert 0.3 < shifts[[0, 2, 3]].std() < 0.7  # 21 draws of deviation 0.5
    for own, usual in ((data.test, USUAL.test), (data.validation, USUAL.validation)):
        for row, whole in zip(own, usual, strict=True):
            np.testing.assert_array_equal(row.past, whole.past)
            np.testing.assert_array_equal(row.target, whole.target)


class Two(Source):
    """Events of two targets."""

    roles = Roles(known=("k",), past=("p",), target=("a", "b"))
    time_label = "step"
    units: dict[str, str] = {}  # noqa: RUF012

    def events(self) -> list[Series]:
        generator = np.random.default_rng(0)
        return [
            Series(
                str(n),
                np.arange(8.0),
                dict(zip("kpab", generator.normal(size=(4, 8)), strict=True)),
            )
            for n in range(200)
        ]

    def read(self, path) -> list[Series]:
        return self.events()


def test_each_target_of_each_row_is_jittered_by_itself():
    data = EncoderDecoderDataModule(Two(), level_jitter=0.5)
    shifts = []
    for row, whole in zip(data.train_epoch(0, 0), data.train, strict=True):
        np.testing.assert_array_equal(row.past[:, :2], whole.past[:, :2])
        moved = np.concatenate([row.past[:, 2:] - whole.past[:, 2:], row.target - whole.target])
        np.testing.assert_allclose(moved, moved[:1].repeat(8, axis=0), atol=1e-12)
        shifts.append(moved[0])
    first, second = np.array(shifts).T
    assert len({*first, *second}) == 2 * len(data.train) == 280
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.25
    np.testing.assert_allclose([first.std(), second.std()], 0.5, atol=0.1)


def _shift(row, whole) -> float:
    """The one number by which all targets of a row differ, and nothing else."""
    np.testing.assert_array_equal(row.past[:, :-1], whole.past[:, :-1])
    np.testing.assert_array_equal(row.future, whole.future)
    moved = np.concatenate([row.past[:, -1:] - whole.past[:, -1:], row.target - whole.target])
    np.testing.assert_allclose(moved, moved[0, 0], atol=1e-12)
    return float(moved[0, 0])
