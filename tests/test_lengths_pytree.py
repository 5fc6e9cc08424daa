"""`Lengths` as a pytree like any other: nothing static follows from the lengths."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp
import ragged_jax  # noqa: F401 - which makes `Lengths` a pytree
from ragged_conformance import oracle

import ragged
from ragged import losses
from ragged.backend import use_backend
from ragged.errors import LengthsError

WIDTH = 5
COUNTS = np.array([5, 2, 0, 3])
X = np.random.default_rng(0).normal(size=(4, WIDTH, 2)).astype(np.float32)
X[np.arange(WIDTH) >= COUNTS[:, None]] = np.nan
FULL = ragged.Lengths([WIDTH] * 4, WIDTH)
LENGTHS = ragged.Lengths(COUNTS, WIDTH)
STRUCTURE = jax.tree.structure(LENGTHS)


@pytest.fixture(autouse=True)
def _on_jax():
    with use_backend("jax"):
        yield


@pytest.fixture(scope="module")
def layer() -> Any:
    with use_backend("jax"):
        return ragged.LSTM(2, 3, bidirectional=True, seed=0)


@pytest.mark.parametrize("policy", ["auto", "never"])
@pytest.mark.parametrize("kernels", ["", "0"])
def test_what_tree_map_makes_is_run_as_it_says(monkeypatch, layer, kernels, policy):
    """From full lengths to padded ones, and to another number of rows."""
    monkeypatch.setenv("RAGGED_KERNELS", kernels or "1")
    parameters = ragged.get_backend().get_parameters(layer)
    own = ragged.Lengths([WIDTH] * 4, WIDTH, policy)
    made = jax.tree.map(lambda leaf: jnp.minimum(leaf, COUNTS), own)
    x, made = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=0), (jnp.asarray(X), made))
    y, (h, c) = oracle.lstm(parameters, np.repeat(X, 2, axis=0), np.repeat(COUNTS, 2))
    for run in (layer, jax.jit(layer)):
        found, state = run(x, made)
        np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state, (h, c), rtol=1e-5, atol=1e-6)


def test_microbatches_are_scanned_and_mapped_over(layer):
    cut = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), (X, LENGTHS))
    assert cut[1].host.tolist() == [[5, 2], [0, 3]]
    assert (cut[1].tokens, len(cut[1])) == (10, 2)
    assert cut[1].padding_fraction == LENGTHS.padding_fraction == 0.5
    whole = oracle.flip(X, COUNTS)

    def step(carry: Any, part: Any) -> Any:
        _, own = carry
        return part, (ragged.flip_sequences(*part), own.to(ragged.get_backend()))

    first = jax.tree.map(lambda leaf: leaf[0], cut)
    (_, last), (found, before) = jax.lax.scan(step, first, cut)
    np.testing.assert_array_equal(found.reshape(X.shape), whole)
    assert (last.host.tolist(), before.tolist()) == ([0, 3], [[5, 2], [5, 2]])
    y, lengths = jax.vmap(lambda x, n: (ragged.flip_sequences(x, n), n))(*cut)
    np.testing.assert_array_equal(y.reshape(X.shape), whole)
    assert lengths == cut[1]
    one, two = jax.tree.map(lambda leaf: leaf[0], cut), jax.tree.map(lambda leaf: leaf[1], cut)
    again = jax.tree.map(lambda *leaves: np.concatenate(leaves), one, two)
    assert again[1] == LENGTHS
    np.testing.assert_array_equal(ragged.flip_sequences(*again), whole)


def test_structures_are_equal_whatever_the_values():
    assert jax.tree.structure(FULL) == STRUCTURE
    assert jax.tree.structure(ragged.Lengths(COUNTS, WIDTH + 1)) != STRUCTURE
    assert jax.tree.structure(ragged.Lengths(COUNTS, WIDTH, "never")) != STRUCTURE
    total = jax.tree.map(np.add, LENGTHS, FULL)
    assert jax.tree.leaves(total)[0].tolist() == (COUNTS + WIDTH).tolist()
    with pytest.raises(LengthsError, match="10 at row 0; expected at most the width 5"):
        ragged.flip_sequences(X, total)
    traces = []

    @jax.jit
    def loss(x: Any, lengths: Any) -> Any:
        traces.append(lengths)
        return losses.mse(x, jnp.zeros_like(x), lengths=lengths)

    loss(X, FULL)
    valid = np.arange(WIDTH) < COUNTS[:, None]
    np.testing.assert_allclose(loss(X, LENGTHS), (X[valid] ** 2).mean(), rtol=1e-5)
    assert len(traces) == 1
    assert traces[0].is_traced
    assert not traces[0].is_full


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (None, "is None; expected integers"),
        (object(), "is an object; expected integers"),
        ("three", "is 'three'; expected integers"),
        (True, "of dtype bool; expected integers"),
        (jax.ShapeDtypeStruct((4,), np.int32), "is a ShapeDtypeStruct; expected"),
        (COUNTS / 2, "of dtype float64; expected integers"),
        (jnp.asarray(COUNTS - 1), "is -1 at row 2; expected lengths of 0 or more"),
        (np.stack([COUNTS, 2 * COUNTS]), "is 10 at row 1, 0; expected at most the width 5"),
        (np.zeros(4, jax.dtypes.float0), "; expected integers"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_whatever_takes_the_leafs_place_is_refused_in_use_alone(leaf, message):
    made = jax.tree.unflatten(STRUCTURE, [leaf])
    assert repr(made).endswith("width=5)")
    assert made == made
    assert made != LENGTHS
    assert not made.is_traced
    with pytest.raises(LengthsError, match=message):
        _ = made.host
    for call in (ragged.flip_sequences, lambda x, n: losses.mae(x, x, lengths=n)):
        with pytest.raises(LengthsError):
            call(X, made)


def test_gradients_pass_lengths_by():
    _, pull = jax.vjp(lambda x, n: ragged.flip_sequences(x, n).sum(), X, LENGTHS)
    gradient, none = pull(np.float32(1))
    np.testing.assert_array_equal(gradient[..., 0], np.arange(WIDTH) < COUNTS[:, None])
    assert none.leaf.dtype == jax.dtypes.float0

    def loss(arguments: Any) -> Any:
        return losses.mse(*arguments[:2], lengths=arguments[2])

    found = jax.grad(loss, allow_int=True)((X, np.zeros_like(X), LENGTHS))
    assert isinstance(found[2], ragged.Lengths)


def test_a_leaf_stays_where_it_is_and_copies_are_whole():
    placed = jax.device_put(LENGTHS)
    (leaf,) = jax.tree.leaves(placed)
    assert isinstance(leaf, jax.Array)
    np.testing.assert_array_equal(placed.host, COUNTS)
    assert jax.tree.leaves(placed)[0] is leaf  # also after a look at the host
    assert not placed.host.flags.writeable
    assert jax.tree.leaves(LENGTHS)[0].dtype == np.int32
    assert jax.eval_shape(lambda n: n, LENGTHS).leaf.shape == (4,)
    for whole in (LENGTHS, placed):
        for again in (copy.deepcopy(whole), copy.copy(whole), pickle.loads(pickle.dumps(whole))):
            assert again == whole
            assert hash(again) == hash(whole)
            assert (again.width, again.policy) == (whole.width, whole.policy)
            assert not again.host.flags.writeable


def test_traced_lengths_say_so():
    def read(lengths: ragged.Lengths) -> Any:
        assert repr(lengths) == "Lengths(traced, width=5)"
        with pytest.raises(LengthsError, match="are traced and have no values"):
            _ = lengths.host
        with pytest.raises(LengthsError, match="3 with traced lengths; expected at least the"):
            ragged.create_padding_mask(lengths, 3)
        return ragged.create_padding_mask(lengths, 6, alignment="right")

    expected = np.arange(6) >= 6 - COUNTS[:, None]
    np.testing.assert_array_equal(jax.jit(read)(LENGTHS), expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32"])
def test_narrow_and_unsigned_lengths_do_not_wrap(dtype):
    width, counts = 200, np.array([100, 0, 127])
    x = np.random.default_rng(0).normal(size=(3, width, 1)).astype(np.float32)

    def moved(x: Any, n: Any) -> Any:
        right = ragged.align_sequences(x, n, source="left", target="right", max_length=300)
        loss = losses.mse(x, jnp.zeros_like(x), lengths=n, alignment="right")
        mask = ragged.create_padding_mask(n, width, alignment="right")
        return right, loss, mask, ragged.flip_sequences(x, n, alignment="right")

    expected = moved(x, counts.tolist())
    for run in (moved, jax.jit(moved)):
        for found, each in zip(run(x, jnp.asarray(counts, dtype)), expected, strict=True):
            np.testing.assert_allclose(found, each, rtol=1e-6)


def test_a_traced_mask_with_holes_is_refused_as_the_program_runs(layer):
    holes = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 0]], bool)
    for alignment, expected in (("left", [2, -1, -1, 0]), ("right", [-1, -1, 2, 0])):
        count = jax.jit(partial(ragged.lengths_from_mask, alignment=alignment))
        assert count(holes).tolist() == expected
    run = jax.jit(lambda x, mask: layer(x, ragged.lengths_from_mask(mask))[0])
    whole = [0, 3]
    x = np.nan_to_num(X[:, :3])
    np.testing.assert_allclose(
        run(x[whole], holes[whole]), layer(x[whole], [2, 0])[0], rtol=1e-5, atol=1e-6
    )
    if ragged.kernels.available():
        with pytest.raises(jax.errors.JaxRuntimeError, match="not all between 0 and the width"):
            jax.block_until_ready(run(x, holes))
