"""The LSTM layer on JAX: kernels, or a scan over the whole width."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ragged import initial
from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.lstm import LSTMShape, run, stack_layers
from ragged.schedule import is_native
from ragged_jax import kernels, scans
from ragged_jax.arrays import asarray, name
from ragged_jax.blocks import Dropout
from ragged_jax.parameters import Streams

State = tuple[Array, Array]
Weights = dict[str, Array]


class LSTM(nnx.Module):
    """An LSTM over rows of different lengths; see `ragged.LSTM`.

    Arguments and parameter names are those of `torch.nn.LSTM`. Initial values come from `seed`, the
    same on every backend, or else from the stream `params` of `rngs`, as those of flax's layers do;
    so `rngs` may be traced. Dropout at a rate above 0 takes the stream `dropout` of `rngs`.

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
        rng = initial.generator(seed)
        source = Streams(rngs) if seed is None and rngs is not None else rng
        for parameter, value in initial.lstm_values(source, self.shape).items():
            setattr(self, parameter, nnx.Param(asarray(value)))
        self.dropout = Dropout(dropout, rng=rng, rngs=rngs)

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
        h, c = shape.state_shapes(x.shape[0])
        state = (jnp.zeros(h, x.dtype), jnp.zeros(c, x.dtype))
    own = is_native(lengths) and kernels.has_kernels(x.dtype)
    if own and jax.default_backend() == "cpu" and not shape.proj_size:
        return native(parameters, x, lengths, state, between_layers)
    return scan(parameters, x, lengths, state, between_layers)


def native(
    parameters: Mapping[str, Array],
    x: Array,
    lengths: Lengths,
    state: State,
    between_layers: Callable[[Array], Array] | None,
) -> tuple[Array, State]:
    """Run kernels of our own over exactly the valid steps, whether lengths are traced or not."""
    counts = lengths.to(load_backend(name), like=x)

    def run(weights: list[Weights], x: Array, state: State) -> tuple[Array, State]:
        return kernels.run_layer(weights, x, counts, state)

    return stack_layers(run, parameters, x, state, jnp.concatenate, between_layers)


def scan(
    parameters: Mapping[str, Array],
    x: Array,
    lengths: Lengths,
    state: State,
    between_layers: Callable[[Array], Array] | None,
) -> tuple[Array, State]:
    """Run one masked scan over the whole width, which all of JAX's transformations take."""

    def run(weights: list[Weights], x: Array, state: State) -> tuple[Array, State]:
        return scans.run_layer(weights, x, lengths, state)

    return stack_layers(run, parameters, x, state, jnp.concatenate, between_layers)
