"""The LSTM layer on JAX: loops over the tokens, or a masked scan over the whole width."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from ragged import initial
from ragged.alignment import flip, select_valid
from ragged.backend import load_backend
from ragged.lengths import Lengths, Stairs
from ragged.lstm import LSTMShape, run, stack_layers
from ragged.masks import padding_mask
from ragged_jax.arrays import asarray, name, stairs_of
from ragged_jax.blocks import Dropout
from ragged_jax.parameters import draw_seed
from ragged_jax.segments import enter, leave, run_layer

State = tuple[Array, Array]
Weights = dict[str, Array]


class LSTM(nnx.Module):
    """An LSTM over rows of different lengths; see `ragged.LSTM`.

    Arguments and parameter names are those of `torch.nn.LSTM`.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = LSTM(3, 8, bidirectional=True, seed=0)
        >>> y, (h, c) = layer(jnp.ones((2, 5, 3)), lengths=[5, 0])
        >>> y.shape, h.shape, float(abs(y[1]).max())
        ((2, 5, 16), (2, 2, 8), 0.0)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        seed: initial.Seed = None,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        self.shape = LSTMShape(input_size, hidden_size, num_layers, bias, bidirectional, proj_size)
        self.batch_first = batch_first
        rng = initial.generator(draw_seed(seed, rngs))
        for parameter, value in initial.lstm_values(rng, self.shape).items():
            setattr(self, parameter, nnx.Param(asarray(value)))
        self.dropout = Dropout(dropout, rngs=rngs)

    def __call__(
        self, x: Array, lengths: object = None, state: State | None = None
    ) -> tuple[Array, State]:
        """Return the outputs and the state after each row's last valid step."""
        return run(
            "LSTM",
            load_backend(name),
            {p: getattr(self, p)[...] for p in self.shape.parameter_shapes()},
            x,
            lengths,
            state,
            self.batch_first,
            self.dropout,
        )


def lstm(
    parameters: Mapping[str, Array],
    x: Array,
    lengths: Lengths,
    state: State | None,
    between_layers: Callable[[Array], Array] | None,
) -> tuple[Array, State]:
    """Run a checked, batch-first LSTM by the schedule that the policy chooses."""
    shape = LSTMShape.read(parameters)
    if state is None:
        h, c = shape.state_shapes(len(x))
        state = (jnp.zeros(h, x.dtype), jnp.zeros(c, x.dtype))
    stairs = stairs_of(lengths)
    if stairs is None or shape.proj_size or jax.default_backend() != "cpu":
        return scan(parameters, x, lengths, state, between_layers)
    return segments(parameters, x, lengths, state, between_layers, stairs)


def segments(
    parameters: Mapping[str, Array],
    x: Array,
    lengths: Lengths,
    state: State,
    between_layers: Callable[[Array], Array] | None,
    stairs: Stairs,
) -> tuple[Array, State]:
    """Run loops over the pieces of a schedule, on tokens from the first layer to the last."""
    counts = lengths.to(load_backend(name), like=x)
    tokens, at = enter(stairs, x, counts)

    def run(weights: list[Weights], x: Array, state: State) -> tuple[Array, State]:
        return run_layer(stairs, weights, x, state, at, counts)

    own = (state[0][:, at.order], state[1][:, at.order])
    tokens, (h, c) = stack_layers(run, parameters, tokens, own, jnp.concatenate, between_layers)
    return leave(lengths.width, tokens, at), (h[:, at.rank], c[:, at.rank])


def scan(
    parameters: Mapping[str, Array],
    x: Array,
    lengths: Lengths,
    state: State,
    between_layers: Callable[[Array], Array] | None,
) -> tuple[Array, State]:
    """Run one masked scan over the whole width, which all of JAX's transformations take."""

    def run(weights: list[Weights], x: Array, state: State) -> tuple[Array, State]:
        return _layer(weights, x, lengths, state)

    return stack_layers(run, parameters, x, state, jnp.concatenate, between_layers)


@jax.jit
def _layer(weights: list[Weights], x: Array, lengths: Lengths, state: State) -> tuple[Array, State]:
    """Run one layer in all its directions."""
    backend = load_backend(name)
    x = select_valid(backend, x, lengths)  # NaN in padding would poison the weights' gradients
    ys, hs, cs = [], [], []
    for direction, own in enumerate(weights):
        steps = flip(backend, x, lengths) if direction else x
        y, h, c = _scan(own, steps, lengths, state[0][direction], state[1][direction])
        y = select_valid(backend, y, lengths)
        ys.append(flip(backend, y, lengths) if direction else y)
        hs.append(h)
        cs.append(c)
    return jnp.concatenate(ys, -1), (jnp.stack(hs), jnp.stack(cs))


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
