"""Rows and batches in a loop of one's own, with torch and with JAX, and batches made ahead."""

from __future__ import annotations

import pickle
import re
import threading
import time
from functools import partial

import numpy as np
import pytest

import ragged
from ragged.data import RaggedDataset, batches, collate, prefetch
from ragged.errors import OptionError, ShapeError

LENGTHS = ((3, 2), (1, 4), (5, 1), (2, 2), (4, 3))


def arrays(seed: int = 0):
    """Rows of unequal lengths whose target is twice the first future feature."""
    generator = np.random.default_rng(seed)
    past = [generator.normal(size=(n, 3)) for n, _ in LENGTHS]
    future = [generator.normal(size=(n, 2)) for _, n in LENGTHS]
    return past, future, [2 * each[:, :1] for each in future]


def dataset(**options) -> RaggedDataset:
    return RaggedDataset.from_arrays(*arrays(), **options)


def refuses(error: type[Exception], message: str):
    return pytest.raises(error, match=re.escape(message))


def test_arrays_become_rows_as_they_are():
    past, future, target = arrays()
    target[1][2] = np.nan
    found = RaggedDataset.from_arrays(past, future, target, [np.full(1, n) for n in range(5)])
    assert found.lengths.tolist() == [list(pair) for pair in LENGTHS]
    for place, row in enumerate(found):
        assert row.past is past[place]
        assert row.future is future[place]
        assert (row.start, row.split, row.stop) == (0, LENGTHS[place][0], sum(LENGTHS[place]))
    batch = collate(found[:])
    assert batch.count == sum(n for _, n in LENGTHS) - 1
    assert batch.static.tolist() == [[0], [1], [2], [3], [4]]


def test_arrays_that_do_not_fit_are_refused():
    past, future, target = arrays()
    name = "RaggedDataset.from_arrays()"
    for given, message in (
        ((past, future[:4], target), "`future` is 4 arrays; expected 5, as `past` has."),
        ((past, future, [t[:, 0] for t in target]), "`target` is of shape (2,) in row 0; expected"),
        (
            (past, future, [t[1:] for t in target]),
            "`target` is of shape (1, 1) in row 0; expe",
        ),
        (([*past[:4], past[4][:, :2]], future, target), "`past` is of shape (4, 2) in row 4; exp"),
        ((past, future, target, [np.zeros((1, 1))] * 5), "`static` is of shape (1, 1) in row 0"),
    ):
        with refuses(ShapeError, f"{name}: {message}"):
            RaggedDataset.from_arrays(*given)
    with refuses(OptionError, "collate(): `rows` is with statics in some rows only"):
        collate([dataset()[0], dataset(static=[np.zeros(1)] * 5)[0]])


def test_the_horizon_goes_to_the_right_where_asked():
    left, right = (collate(dataset()[:], decoder_alignment=side) for side in ("left", "right"))
    assert (left.decoder_alignment, right.decoder_alignment) == ("left", "right")
    width = left.decoder_lengths.width
    for name in ("future", "target"):
        one, other = getattr(left, name), getattr(right, name)
        for row, length in enumerate(left.decoder_lengths.host):
            np.testing.assert_array_equal(one[row, :length], other[row, width - length :])
            assert not other[row, : width - length].any()
    np.testing.assert_array_equal(left.past, right.past)
    aligned = RaggedDataset(dataset().rows, decoder_alignment="right")
    np.testing.assert_array_equal(next(batches(aligned, 5)).target, right.target)
    with refuses(OptionError, "collate(): `decoder_alignment` is 'up'; expected 'left' or 'right'"):
        collate(dataset()[:], decoder_alignment="up")


def test_batches_survive_being_sent_between_processes():
    batch = pickle.loads(pickle.dumps(collate(dataset()[:])))
    assert batch.encoder_lengths.host.tolist() == [n for n, _ in LENGTHS]


def test_a_loop_of_ones_own_in_torch(need):
    need("torch")
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        dataset(), batch_size=2, shuffle=False, collate_fn=partial(collate, batch_size=2)
    )
    seen = [batch.encoder_lengths.host.tolist() for batch in loader]
    assert seen == [[3, 1], [5, 2], [4, 0]]
    with ragged.use_backend("torch"):
        model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=8, num_layers=1, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    losses = []
    for _ in range(20):
        for batch in loader:
            past, future, target = map(torch.as_tensor, (batch.past, batch.future, batch.target))
            output = model(past, future, batch.encoder_lengths, batch.decoder_lengths).output
            loss = ragged.losses.mse(output, target, lengths=batch.decoder_lengths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.3 * np.mean(losses[:3])


def test_a_loop_of_ones_own_in_jax(need):
    need("jax")
    import jax.numpy as jnp
    import optax
    from flax import nnx

    with ragged.use_backend("jax"):
        model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=8, num_layers=1, seed=0)
    optimizer = nnx.Optimizer(model, optax.adam(0.03), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, past, future, target, encoder_lengths, decoder_lengths):
        def objective(model):
            output = model(past, future, encoder_lengths, decoder_lengths).output
            return ragged.losses.mse(output, target, lengths=decoder_lengths)

        loss, gradients = nnx.value_and_grad(objective)(model)
        optimizer.update(model, gradients)
        return loss

    losses = []
    for epoch in range(20):
        for batch in batches(dataset(), 5, shuffle_seed=0, epoch=epoch, buckets=1):
            given = map(jnp.asarray, (batch.past, batch.future, batch.target))
            lengths = (batch.encoder_lengths, batch.decoder_lengths)
            losses.append(float(step(model, optimizer, *given, *lengths)))
    assert losses[-1] < 0.3 * losses[0]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


class Source:
    """Numbers; counts how many were made, and says when it is closed."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.made, self.closed, self.count, self.error = 0, False, count, error

    def __iter__(self):
        try:
            for number in range(self.count):
                self.made += 1
                yield number
            if self.error:
                raise self.error
        finally:
            self.closed = True


def wait_until(holds) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.005)
    raise AssertionError("it never came")


def test_prefetch_keeps_the_order_and_ends():
    assert list(prefetch(range(100), depth=3)) == list(range(100))
    assert list(prefetch([])) == []
    assert threads() == []


def test_prefetch_gives_the_same_batches():
    plain = list(batches(dataset(), 2, shuffle_seed=1))
    for one, other in zip(prefetch(batches(dataset(), 2, shuffle_seed=1)), plain, strict=True):
        np.testing.assert_array_equal(one.past, other.past)


@pytest.mark.parametrize("depth", [1, 3])
def test_prefetch_is_ahead_by_its_depth_and_no_more(depth):
    source = Source(50)
    ahead = prefetch(source, depth)
    for number in range(4):
        assert next(ahead) == number
        wait_until(lambda: source.made == number + 1 + depth)  # noqa: B023
    time.sleep(0.02)
    assert source.made == 4 + depth
    ahead.close()


def test_prefetch_raises_what_the_source_raises_in_its_place():
    source = Source(2, ValueError("no third"))
    ahead = prefetch(source)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="no third"):
        next(ahead)
    assert source.closed
    assert threads() == []


def test_prefetch_closes_when_the_consumer_stops():
    source = Source(50)
    for number in prefetch(source):
        if number == 3:
            break
    wait_until(lambda: source.closed and threads() == [])
    assert source.made < 8


def test_prefetch_runs_with_the_backend_that_was_chosen(need):
    need("torch")
    with ragged.use_backend("torch"):
        found = prefetch(ragged.get_backend().name for _ in range(2))
        assert list(found) == ["torch", "torch"]


def test_prefetch_refuses_no_depth():
    with refuses(OptionError, "prefetch(): `depth` is 0; expected 1 or more. Raise it."):
        prefetch([1], depth=0)
