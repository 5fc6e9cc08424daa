"""A layer's arrays on JAX, and how they are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ragged
from ragged import Lengths
from ragged.recurrent.lstm import LSTMShape

BATCH, WIDTH, INPUTS, HIDDEN = 4, 5, 2, 3
LENGTHS = np.array([5, 0, 3, 1])


def drawn(*shape: int) -> jax.Array:
    """Normal numbers, float64 where JAX has it."""
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape))


def like(tree: Any) -> Any:
    """Normal numbers in the shapes of a tree."""
    return jax.tree.map(lambda leaf: drawn(*leaf.shape), tree)


def make_inputs(
    bidirectional: bool = True,
) -> tuple[dict[str, jax.Array], jax.Array, tuple[jax.Array, jax.Array]]:
    """Parameters, x with NaN at padding, and a state."""
    shapes = LSTMShape(INPUTS, HIDDEN, bidirectional=bidirectional).parameter_shapes()
    x, count = drawn(BATCH, WIDTH, INPUTS), 2 if bidirectional else 1
    x = jnp.where((np.arange(WIDTH) < LENGTHS[:, None])[..., None], x, jnp.nan)
    return (
        {name: drawn(*shape) / 2 for name, shape in shapes.items()},
        x,
        (drawn(count, BATCH, HIDDEN), drawn(count, BATCH, HIDDEN)),
    )


def total(policy: str) -> Callable[..., jax.Array]:
    """A scalar function of parameters, x, state and lengths; nothing in it is linear."""

    def run(parameters: Any, x: Any, state: Any, lengths: Any = LENGTHS) -> jax.Array:
        lengths = Lengths.unchecked(lengths, WIDTH, policy)
        y, (h, c) = ragged.lstm(parameters, x, lengths, state)
        return jnp.sum(jnp.sin(y)) + jnp.sum(h**3) + jnp.sum(jnp.cos(c))

    return run


def squares(tree: Any) -> jax.Array:
    """The sum of all squares in a tree."""
    return sum(((leaf**2).sum() for leaf in jax.tree.leaves(tree)), jnp.zeros(()))


def assert_equal(found: Any, expected: Any, what: str) -> None:
    """Compare two trees by the maximum norm."""
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        tolerance = 1e-10 if a.dtype == "float64" else 1e-4
        assert float(abs(a - b).max()) <= tolerance * (1 + float(abs(b).max())), what
