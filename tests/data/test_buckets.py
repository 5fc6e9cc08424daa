"""Buckets of rows of similar lengths: every row once, few shapes, the least padding."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from ragged.data import (
    EncoderDecoderDataModule,
    RaggedDataset,
    Storms,
    batches,
    collate,
)
from ragged.data.batching import batch_order
from ragged.data.buckets import cheapest_cuts, make_buckets, quantise
from ragged.errors import OptionError
from tests.data.samples import refuses, row


def test_quantise_is_the_least_allowed_width():
    allowed = sorted(
        {int(f * 2**k) for k in range(12) for f in (1, 1.25, 1.5, 1.75) if f * 2**k % 1 == 0}
    )
    for width in range(1, 2000):
        assert quantise(width, 4) == min(size for size in allowed if size >= width)
        assert quantise(quantise(width)) == quantise(width)
    assert [quantise(5, 1), quantise(31, 3), quantise(0)] == [8, 32, 0]


def rows_of(lengths, batch_size, most):
    return [bucket.rows for bucket in make_buckets(lengths, batch_size, most)]


@pytest.mark.parametrize("count", [1, 7, 64, 203])
@pytest.mark.parametrize("most", [1, 4, 30])
def test_every_row_comes_exactly_once(count, most):
    lengths = np.random.default_rng(1).integers(1, 50, (count, 2))
    rows = rows_of(lengths, 8, most)
    order = batch_order(rows, 8, seed=5, epoch=3)
    assert len(rows) <= most
    assert sorted(np.concatenate([rows for _, rows in order]).tolist()) == list(range(count))
    assert len(order) == -(-count // 8)
    assert max(len(rows) for _, rows in order) <= 8
    for bucket, places in order:
        assert set(places) <= set(rows[bucket])


def test_order_is_a_function_of_seed_and_epoch():
    rows = rows_of(np.arange(100)[:, None], 8, 4)

    def flat(seed: int, epoch: int) -> list[int]:
        order = batch_order(rows, 8, seed=seed, epoch=epoch)
        return np.concatenate([rows for _, rows in order]).tolist()

    assert flat(1, 2) == flat(1, 2)
    assert len({tuple(flat(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def padded_steps(lengths, rows, batch_size):
    """What the buckets' batches take, side by side, each padded to its bucket's longest row."""
    return sum(
        -(-len(members) // batch_size) * batch_size * int(lengths[members].max(axis=0).sum())
        for members in rows
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_buckets_are_the_best_there_are(seed):
    lengths = np.random.default_rng(seed).integers(1, 60, (26, 2))
    order = np.argsort(lengths.sum(axis=1), kind="stable")
    best = min(
        padded_steps(lengths, np.split(order, [26 - 4 * cut for cut in cuts][::-1]), 4)
        for count in range(3)
        for cuts in combinations(range(1, 7), count)
    )
    assert padded_steps(lengths, rows_of(lengths, 4, 3), 4) == best


def test_buckets_reduce_waste():
    lengths = np.random.default_rng(0).integers(1, 500, (512, 1))
    waste = {n: padded_steps(lengths, rows_of(lengths, 16, n), 16) for n in (1, 4, 8)}
    assert waste[1] == 512 * lengths.max()
    assert waste[4] < 0.65 * waste[1]
    assert waste[8] < 1.15 * lengths.sum()


def test_a_bucket_has_one_shape_and_one_program():
    data = EncoderDecoderDataModule(Storms()).train
    found = list(batches(data, 16, shuffle_seed=0, buckets=3))
    shapes = {(b.past.shape, b.future.shape) for b in found}
    assert len(shapes) == 3
    for batch in found:
        assert batch.decoder_lengths.width == batch.future.shape[1]
        assert len(batch.decoder_lengths) == 16


@pytest.mark.parametrize("seed", [0, None])
def test_batches_of_one_shape_have_the_same_room_for_tokens(seed):
    data, rooms = EncoderDecoderDataModule(Storms(), batch_size=16).train, {}
    for epoch in range(3):
        for batch in batches(data, 16, shuffle_seed=seed, epoch=epoch):
            sides, capacity = (batch.encoder_lengths, batch.decoder_lengths), batch.token_capacity
            rooms.setdefault(tuple(side.width for side in sides), set()).add(capacity)
            for side, most in zip(sides, capacity, strict=True):
                assert side.tokens <= most <= side.batch * side.width
    assert all(len(room) == 1 for room in rooms.values())
    assert sum(sum(*room) for room in rooms.values()) < 16 * sum(map(sum, rooms))


def test_a_batch_of_its_own_has_room_for_its_tokens_in_one_of_eight_sizes():
    sizes = {
        collate([row(24, 8), *[row(n, 1)] * 3], batch_size=4).token_capacity for n in range(1, 25)
    }
    assert len(sizes) <= 8
    assert sizes >= {(36, 12), (96, 32)}
    empty = collate([row(0, 0)], batch_size=2, widths=(8, 4))
    assert empty.token_capacity == (2, 1)
    assert collate([row(0, 0)]).token_capacity == (0, 0)


def test_an_epoch_compiles_a_program_a_bucket(need):
    need("jax")
    from ragged import backend, losses, models
    from ragged.training.optimizers import AdamW

    rng = np.random.default_rng(0)
    rows = [row(int(n), int(n) + 2) for n in rng.integers(1, 40, 48)]
    with backend.use_backend("jax") as jax_backend:
        model = models.EncoderDecoderLSTM(3, 2, hidden_size=4, num_layers=1, seed=0)
        step = jax_backend.TrainingStep(model, losses.mse, AdamW())
        for epoch in range(2):
            for batch in batches(RaggedDataset(rows), 4, shuffle_seed=0, epoch=epoch, buckets=2):
                step.step(batch)
        assert step._differentiate._cache_size() == 2


def test_order_refusals():
    for options, message in (
        ({"batch_size": 0, "seed": 0}, "batches(): `batch_size` is 0; expected 1 or more"),
        ({"batch_size": 1, "seed": -1}, "batches(): `shuffle_seed` is -1; expected 0 or more"),
        ({"batch_size": 1, "seed": 0, "epoch": -1}, "batches(): `epoch` is -1; expected 0 or"),
    ):
        with refuses(OptionError, message):
            batch_order([np.arange(3)], **options)
    with refuses(OptionError, "batches(): `buckets` is 0; expected 1 or more"):
        next(batches(RaggedDataset([]), 1, buckets=0))


def test_cuts_between_buckets_are_the_best_there_are():
    cost = np.triu(np.random.default_rng(0).uniform(1, 9, (12, 12)), 1) ** 2
    cost *= np.subtract.outer(range(12), range(12)) ** 2  # or one step would be the best
    cost = np.where(np.tri(12, dtype=bool), np.inf, cost)
    best = min(
        sum(cost[a, b] for a, b in pairwise((0, *inner, 11)))
        for count in range(4)
        for inner in combinations(range(1, 11), count)
    )
    edges = cheapest_cuts(cost, 4)
    assert (edges[0], edges[-1]) == (0, 11)
    assert sum(cost[a, b] for a, b in pairwise(edges)) == pytest.approx(best)
