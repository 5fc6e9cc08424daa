"""A layer's arrays on JAX, and how they are compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ragged
from ragged import Lengths
from ragged.recurrent.shape import RecurrentShape

BATCH, WIDTH, INPUTS, HIDDEN = 4, 5, 2, 3
LENGTHS = np.array([5, 0, 3, 1])
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "LSTM": ragged.lstm,
    "GRU": ragged.gru,
    "RNN_TANH": ragged.rnn,
    "RNN_RELU": partial(ragged.rnn, nonlinearity="relu"),
}


def drawn(*shape: int, xp: Any = jnp) -> Any:
    """Normal numbers, float64 where JAX has it."""
    return xp.asarray(np.random.default_rng(sum(shape)).normal(size=shape))


def native(tree: Any) -> Any:
    """In NumPy, which compiles nothing for an operation of its own."""
    return jax.tree.map(np.asarray, tree)


def like(tree: Any) -> Any:
    """Normal numbers in the shapes of a tree."""
    return jax.tree.map(lambda leaf: drawn(*leaf.shape), tree)


def make_inputs(mode: str = "LSTM", **options: Any) -> tuple[dict[str, jax.Array], jax.Array, Any]:
    """Parameters, no two alike, x with NaN at padding, and a state."""
    shape, rng = RecurrentShape(INPUTS, HIDDEN, mode=mode, **options), np.random.default_rng(0)
    parameters = {
        name: jnp.asarray(rng.normal(size=size) / 2)
        for name, size in shape.parameter_shapes().items()
    }
    x = drawn(BATCH, WIDTH, INPUTS)
    x = jnp.where((np.arange(WIDTH) < LENGTHS[:, None])[..., None], x, jnp.nan)
    state = tuple(jnp.asarray(rng.normal(size=size)) for size in shape.state_shapes(BATCH))
    return parameters, x, state if len(state) > 1 else state[0]


def total(policy: str, mode: str = "LSTM") -> Callable[..., jax.Array]:
    """A scalar function of parameters, x, state and lengths; nothing in it is linear."""

    def run(parameters: Any, x: Any, state: Any, lengths: Any = LENGTHS) -> jax.Array:
        lengths = Lengths.unchecked(lengths, WIDTH, policy)
        return loss_of(FUNCTIONS[mode](parameters, x, lengths, state))

    return run


def loss_of(outputs: tuple[Any, Any], xp: Any = jnp) -> Any:
    """A number from what a layer returns, the sum of those of its rows."""
    y, state = outputs
    parts = enumerate(jax.tree.leaves(state))
    return xp.sum(xp.sin(y) * drawn(*y.shape[1:], xp=xp)) + sum(
        xp.sum(part ** (3 + k)) for k, part in parts
    )


def squares(tree: Any) -> jax.Array:
    """The sum of all squares in a tree."""
    return sum(((leaf**2).sum() for leaf in jax.tree.leaves(tree)), jnp.zeros(()))


def assert_equal(found: Any, expected: Any, what: str) -> None:
    """Compare two trees by the maximum norm, in NumPy, which compiles nothing for it."""
    trees = (map(np.asarray, jax.tree.leaves(tree)) for tree in (found, expected))
    for a, b in zip(*trees, strict=True):
        tolerance = 1e-10 if a.dtype == "float64" else 1e-4
        assert float(abs(a - b).max()) <= tolerance * (1 + float(abs(b).max())), what
