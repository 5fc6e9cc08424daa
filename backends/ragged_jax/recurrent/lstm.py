"""The LSTM layer on JAX: an operator of its own, or a masked scan over the whole width."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ragged.backend import load_backend
from ragged.kernels import available
from ragged.lengths import Lengths
from ragged.recurrent import init as initial
from ragged.recurrent.dispatch import LayerCall
from ragged.recurrent.lstm import LSTMShape, run, stack_layers
from ragged_jax.arrays import asarray, name
from ragged_jax.layers import Dropout
from ragged_jax.parameters import Streams
from ragged_jax.recurrent import custom_op as operator
from ragged_jax.recurrent import scan as scans
from ragged_jax.recurrent.dispatch import takes_operator

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
    """Run a checked, batch-first LSTM, as an operator where it is still open what runs it."""
    shape = LSTMShape.read(parameters)
    if state is None:
        h, c = shape.state_shapes(x.shape[0])
        state = (jnp.zeros(h, x.dtype), jnp.zeros(c, x.dtype))
    counts = _as_int32(lengths.to(load_backend(name)), x.shape[1])
    compiler = available()
    call = LayerCall("any", str(x.dtype), lengths.policy, compiler=compiler)
    call = call._replace(hidden_size=shape.hidden_size, proj_size=shape.proj_size)
    is_operator = takes_operator(call)

    def run_layer(weights: list[Weights], x: Array, state: State) -> tuple[Array, State]:
        if is_operator:
            return operator.run_layer(weights, x, counts, state, call=call)
        return scans.run_layer(weights, x, counts, state)

    return stack_layers(run_layer, parameters, x, state, jnp.concatenate, between_layers)


def _as_int32(lengths: Array, width: int) -> Array:
    """Convert lengths, checked or traced; what lies outside of the width stays outside."""
    if lengths.dtype.itemsize > 4:
        least = 0 if lengths.dtype.kind == "u" else -1
        lengths = jnp.clip(lengths, least, width + 1)
    return lengths.astype(jnp.int32)
