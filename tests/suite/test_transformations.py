"""JAX's transformations on a user's own module, and the buffers of a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import chex
import jax
import jax.numpy as jnp
import ragged_jax
from flax import nnx

import ragged
from ragged import losses
from ragged.backend import use_backend
from ragged.data import RaggedDataset, batches
from ragged.training.optimizers import SGD, AdamW

TOLERANCE = 1e-4, 1e-5
WIDTH = 6
BATCHES = {  # all of one shape, and so of one program
    "ragged": [6, 0, 1, 4],
    "ties": [3, 3, 2, 2],
    "one long": [6, 1, 1, 1],
    "all empty": [0, 0, 0, 0],
    "all full": [6, 6, 6, 6],
}


@pytest.fixture(autouse=True)
def _on_jax():
    with use_backend("jax"):
        yield


class Tagger(nnx.Module):
    """A user's own module: flax's layers around two of ours."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(3, 4, rngs=rngs)
        self.recurrent = ragged_jax.LSTM(4, 3, bidirectional=True, rngs=rngs)
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.decoder = ragged_jax.LSTM(6, 6, rngs=rngs)
        self.head = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: object) -> jax.Array:
        y, (h, c) = self.recurrent(nnx.relu(self.embed(x)), lengths)
        state = tuple(jnp.concatenate(list(part), -1)[None] for part in (h, c))
        y, _ = self.decoder(self.norm(y), lengths, state)
        return self.head(y)


def loss_of(model: Tagger, x: jax.Array, lengths: object) -> jax.Array:
    return losses.mse(model(x, lengths), jnp.ones((*x.shape[:2], 2)), lengths=lengths)


def arrays_of(name: str) -> tuple[jax.Array, np.ndarray]:
    counts = np.array(BATCHES[name])
    x = np.random.default_rng(0).normal(size=(len(counts), WIDTH, 3)).astype(np.float32)
    x[np.arange(WIDTH) >= counts[:, None]] = np.nan
    return jnp.asarray(x), counts


def lengths_of(form: str, counts: np.ndarray) -> object:
    if form == "Lengths":
        return ragged.Lengths(counts, WIDTH)
    return jnp.asarray(counts)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger(nnx.Rngs(0))


@pytest.fixture(scope="module")
def eager(tagger) -> dict[str, tuple[Any, Any]]:
    """Loss and gradient of each batch where only what the layer itself compiles is compiled."""
    return {
        name: nnx.value_and_grad(loss_of)(tagger, x, counts.tolist())
        for name, (x, counts) in ((name, arrays_of(name)) for name in BATCHES)
    }


def assert_equal(found: Any, expected: Any) -> None:
    chex.assert_trees_all_close(found, expected, rtol=TOLERANCE[0], atol=TOLERANCE[1])


@pytest.mark.parametrize("form", ["Lengths", "traced"])
@pytest.mark.parametrize("transform", [nnx.jit, jax.jit], ids=["nnx.jit", "jax.jit"])
def test_a_module_of_ones_own_compiles_once_and_differentiates_as_eagerly(
    form, transform, tagger, eager
):
    chex.clear_trace_counter()
    definition, params, rest = nnx.split(tagger, nnx.Param, ...)

    def split_loss(params: Any, x: jax.Array, lengths: object) -> jax.Array:
        return loss_of(nnx.merge(definition, params, rest, copy=True), x, lengths)

    if transform is nnx.jit:
        model: Any = tagger
        once = nnx.jit(nnx.value_and_grad(chex.assert_max_traces(loss_of, n=1)))
    else:
        model = params
        once = jax.jit(jax.value_and_grad(chex.assert_max_traces(split_loss, n=1)))
    for name in BATCHES:
        x, counts = arrays_of(name)
        loss, gradient = once(model, x, lengths_of(form, counts))
        assert_equal(loss, eager[name][0])
        assert_equal(nnx.to_pure_dict(gradient), nnx.to_pure_dict(eager[name][1]))
        assert np.isfinite(jax.tree.leaves(gradient)[0][...]).all()


@pytest.mark.parametrize(
    ("optimizer", "options"), [(AdamW(), {"ema_decay": 0.9}), (SGD(momentum=0.9), {})]
)
def test_a_step_takes_every_buffer_over_and_copies_none(optimizer, options):
    rng = np.random.default_rng(0)
    past, future = ([rng.normal(size=(n, size)) for n in (3, 5, 2, 0)] for size in (3, 2))
    rows = RaggedDataset.from_arrays(past, future, target=[each[:, :1] for each in future])
    model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=4, num_layers=1, seed=0)
    step = ragged_jax.TrainingStep(model, losses.mse, optimizer, **options)
    (batch,) = batches(rows, 4)
    real, lowered = step._apply, []

    def apply(*arguments: Any) -> Any:
        lowered.append(real.lower(*arguments).as_text())
        return real(*arguments)

    step._apply = apply
    step.step(batch)
    old = jax.tree.leaves(step._state)
    step._apply = real
    first = step.step(batch)
    assert all(leaf.is_deleted() for leaf in old)
    new = jax.tree.leaves(step._state)
    assert not any(leaf.is_deleted() for leaf in new)
    assert lowered[0].count("tf.aliasing_output") == len(new)  # each is written where it was
    model = step.module()
    kept = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    assert step.step(batch) < first
    for leaf, before in zip(jax.tree.leaves(nnx.state(model, nnx.Param)), kept, strict=True):
        np.testing.assert_array_equal(leaf, before)  # what was handed out is a copy
