"""Recurrent layers on JAX, run by a custom operator or a masked scan over the whole width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ragged.backend import load_backend
from ragged.kernels import available
from ragged.lengths import Lengths
from ragged.recurrent import init
from ragged.recurrent.call import stack_layers, validate_and_call
from ragged.recurrent.dispatch import LayerCall
from ragged.recurrent.shape import RecurrentShape
from ragged_jax.arrays import asarray, name
from ragged_jax.layers import Dropout
from ragged_jax.parameters import Streams
from ragged_jax.recurrent import custom_op, scan
from ragged_jax.recurrent.dispatch import takes_operator
from ragged_jax.recurrent.scan import Weights


class Recurrent(nnx.Module):
    """A recurrent layer over rows of different lengths; see `ragged.LSTM`, `GRU` and `RNN`.

    Arguments and parameter names are those of `torch.nn`. Initial values come from `seed`, the same
    on every backend, or else from the stream `params` of `rngs`, as those of flax's layers do; so
    `rngs` may be traced. Dropout at a rate above 0 takes the stream `dropout` of `rngs`.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        seed: init.Seed = None,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        sizes = input_size, hidden_size, num_layers, bias, bidirectional, proj_size
        self.shape = RecurrentShape(*sizes, mode)
        self.batch_first = batch_first
        rng = init.generator(seed)
        from_streams = seed is None and rngs is not None
        source = Streams(rngs, self.shape.cell.name) if from_streams else rng
        for parameter, value in init.recurrent_values(source, self.shape).items():
            setattr(self, parameter, nnx.Param(asarray(value)))
        self.dropout = Dropout(dropout, rng=rng, rngs=rngs)

    def __call__(
        self,
        x: Array,
        lengths: object = None,
        state: object = None,
        *,
        resets: object = None,
        start: str = "zeros",
        offsets: object = None,
        max_length: int | None = None,
    ) -> tuple[Array, Any]:
        """Return the outputs and the state after each row's last valid step.

        With `offsets (batch + 1,)` the rows are concatenated in x `(tokens, features)`. Tokens
        beyond the last row are never read, and 0 in the outputs. Offsets may be traced; no row is
        longer than `max_length`, by default the number of tokens.
        """
        parameters = {p: _value(getattr(self, p)) for p in self.shape.parameter_shapes()}
        self.shape.check_parameters(self.shape.cell.name, parameters)
        return validate_and_call(
            self.shape.cell.name,
            load_backend(name),
            self.shape,
            parameters,
            x,
            lengths,
            state,
            self.batch_first,
            self.dropout,
            resets,
            start,
            offsets,
            max_length,
        )


class LSTM(Recurrent):
    """An LSTM over rows of different lengths: `Recurrent` with `ragged.LSTM`'s arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = LSTM(3, 8, bidirectional=True, seed=0)
        >>> y, (h, c) = layer(jnp.ones((2, 5, 3)), lengths=[5, 0])
        >>> y.shape, h.shape, float(abs(y[1]).max())
        ((2, 5, 16), (2, 2, 8), 0.0)
    """

    def __init__(self, input_size: int, hidden_size: int, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", input_size, hidden_size, *args, **kwargs)


class GRU(Recurrent):
    """A GRU over rows of different lengths: `Recurrent` with `ragged.GRU`'s arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = GRU(3, 8, bidirectional=True, seed=0)
        >>> y, h = layer(jnp.ones((2, 5, 3)), lengths=[5, 0])
        >>> y.shape, h.shape, float(abs(y[1]).max())
        ((2, 5, 16), (2, 2, 8), 0.0)
    """

    def __init__(self, input_size: int, hidden_size: int, *args: Any, **kwargs: Any) -> None:
        super().__init__("GRU", input_size, hidden_size, *args, **kwargs)


def run_recurrent(
    shape: RecurrentShape,
    parameters: Mapping[str, Array],
    x: Array,
    lengths: Lengths,
    state: tuple[Array, ...] | None,
    between_layers: Callable[[Array], Array] | None,
    resets: Array | None = None,
    start: str = "zeros",
    *,
    layout: str = "padded",
) -> tuple[Array, tuple[Array, ...]]:
    """Run a checked layer, as an operator where the implementation is chosen at lowering.

    See `ragged.protocol.Backend.run_recurrent`.
    """
    if state is None:
        state = tuple(jnp.zeros(size, x.dtype) for size in shape.state_shapes(lengths.batch))
    h, *c = state
    pair = (h, c[0] if c else jnp.zeros((*h.shape[:2], 0), x.dtype))
    counts = as_int32(lengths.to(load_backend(name)), lengths.width)
    call = LayerCall(
        "any",
        str(x.dtype),
        lengths.policy,
        shape.hidden_size,
        shape.proj_size,
        compiler=available(),
        mode=shape.mode,
        layout=layout,
        width=lengths.width if layout == "jagged" else 1,
    )
    run: Any = partial(custom_op.run_layer, call=call)
    if not takes_operator(call):  # without the policy: one program serves all
        run = partial(scan.run_layer, mode=call.mode, layout=layout, width=call.width)
    marks = jnp.zeros((*x.shape[:-2], 0), bool) if resets is None else resets

    def run_layer(weights: list[Weights], x: Array, state: tuple[Array, ...]) -> Any:
        return run(weights, x, counts, marks, state, start=start)

    y, final = stack_layers(run_layer, shape, parameters, x, pair, jnp.concatenate, between_layers)
    return y, final[: len(state)]


def _value(parameter: Any) -> Any:
    """Return what a parameter holds, or what a user has put in its place."""
    return parameter.get_value() if isinstance(parameter, nnx.Variable) else parameter


def as_int32(lengths: Array, width: int) -> Array:
    """Convert lengths, checked or traced; those outside 0..width stay outside."""
    if lengths.dtype.itemsize > 4:
        lowest = 0 if lengths.dtype.kind == "u" else -1
        lengths = jnp.clip(lengths, lowest, width + 1)
    return lengths.astype(jnp.int32)
