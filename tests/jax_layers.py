"""What the scripts `jax_*.py` share: a layer's arrays, and how they are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ragged
from ragged import Lengths

BATCH, WIDTH, INPUTS, HIDDEN = 4, 5, 2, 3
LENGTHS = np.array([5, 0, 3, 1])
ragged.set_backend("jax")
RNG = np.random.default_rng(0)


def drawn(*shape: int) -> jax.Array:
    """Normal float64."""
    return jnp.asarray(RNG.normal(size=shape))


def like(tree: Any) -> Any:
    """Normal float64 in the shapes of a tree."""
    return jax.tree.map(lambda leaf: drawn(*leaf.shape), tree)


def make_inputs(
    bidirectional: bool = True,
) -> tuple[dict[str, jax.Array], jax.Array, tuple[jax.Array, jax.Array]]:
    """Parameters, x with NaN at padding, and a state."""
    layer = ragged.LSTM(INPUTS, HIDDEN, bidirectional=bidirectional, seed=0)
    shapes = ragged.get_backend().get_parameters(layer)
    x, count = drawn(BATCH, WIDTH, INPUTS), 2 if bidirectional else 1
    x = jnp.where((np.arange(WIDTH) < LENGTHS[:, None])[..., None], x, jnp.nan)
    return like(shapes), x, (drawn(count, BATCH, HIDDEN), drawn(count, BATCH, HIDDEN))


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
    """Compare two trees to the last bits of float64."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11, err_msg=what)
