"""A masked scan over the whole width: for every dtype and device, and all that JAX transforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from ragged.alignment import flip, select_valid
from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.masks import padding_mask
from ragged_jax.arrays import name

State = tuple[Array, Array]
Weights = dict[str, Array]


@jax.jit
def run_layer(
    weights: list[Weights], x: Array, lengths: Lengths, state: State
) -> tuple[Array, State]:
    """Run one layer in all its directions."""
    ys, hs, cs = [], [], []
    for direction, own in enumerate(weights):
        h0, c0 = state[0][direction], state[1][direction]
        y, h, c = run_direction(own, x, lengths, h0, c0, reverse=direction == 1)
        ys.append(y)
        hs.append(h)
        cs.append(c)
    return jnp.concatenate(ys, -1), (jnp.stack(hs), jnp.stack(cs))


def run_direction(
    weights: Weights, x: Array, lengths: Lengths, h0: Array, c0: Array, *, reverse: bool
) -> tuple[Array, Array, Array]:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads."""
    backend = load_backend(name)
    x = select_valid(backend, x, lengths)  # NaN in padding would poison the weights' gradients
    y, h, c = _scan(weights, flip(backend, x, lengths) if reverse else x, lengths, h0, c0)
    y = select_valid(backend, y, lengths)
    return (flip(backend, y, lengths) if reverse else y), h, c


def _scan(
    weights: Weights, x: Array, lengths: Lengths, h0: Array, c0: Array
) -> tuple[Array, Array, Array]:
    """Run one layer in one direction: y, and h and c after each row's last valid step."""
    gates = x @ weights["weight_ih"].T  # hoisted: all steps in one product
    if "bias_ih" in weights:
        gates = gates + weights["bias_ih"] + weights["bias_hh"]

    def step(carry: State, inputs: tuple[Array, Array]) -> tuple[State, Array]:
        h, c = carry
        gates, valid = inputs
        i, f, g, o = jnp.split(gates + h @ weights["weight_hh"].T, 4, axis=-1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
        if "weight_hr" in weights:
            new_h = new_h @ weights["weight_hr"].T
        held = (jnp.where(valid, new_h, h), jnp.where(valid, new_c, c))
        return held, new_h

    mask = padding_mask(load_backend(name), lengths, like=x)
    dtype = gates.dtype
    inputs = (jnp.swapaxes(gates, 0, 1), mask.T[..., None])
    (h, c), y = lax.scan(step, (h0.astype(dtype), c0.astype(dtype)), inputs)
    return jnp.swapaxes(y, 0, 1), h, c
