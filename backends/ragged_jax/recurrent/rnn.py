"""`flax.nnx`'s RNN and Bidirectional by changing a name: flax's cells run by our operator.

A cell's parameters are read at each call and put into torch's layout. Cells with options that our
operator does not support are run by flax.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import canonicalize_dtype
from jax import Array

from ragged.backend import check_frameworks, load_backend
from ragged.checks import as_array, shown
from ragged.errors import ArgumentError, ShapeError
from ragged.kernels import available
from ragged.lengths import Lengths
from ragged.recurrent.cells import CELLS
from ragged.recurrent.dispatch import LayerCall
from ragged_jax.arrays import FLOATING, name, promote_arrays
from ragged_jax.recurrent import custom_op, scan
from ragged_jax.recurrent.dispatch import takes_operator
from ragged_jax.recurrent.flax_cells import (
    Linears,
    mode_of,
    named_parameters,
    read_linears,
    reason_of,
    torch_weights,
)
from ragged_jax.recurrent.layers import as_int32

States = tuple[Array, ...]  # h, and c of an LSTM: torch's order, where flax's carry is (c, h)
OPTIONS = (
    "time_major",
    "return_carry",
    "reverse",
    "keep_order",
    "unroll",
    "state_axes",
    "broadcast_rngs",
)


class Order(NamedTuple):
    """The order of steps in the inputs, in reading and in the outputs; see `RNN`."""

    time_major: bool
    reverse: bool
    keep_order: bool


class RNN(nnx.RNN):
    """`flax.nnx.RNN` over rows of any length, by changing its name.

    `layer(inputs, *, initial_carry=None, seq_lengths=None, return_carry=None, time_major=None,
    reverse=None, keep_order=None, rngs=None)`, as flax's, which it is an instance of. Inputs are
    `(*batch, time, features)` or, time major, `(time, *batch, features)`; `seq_lengths (*batch)`
    may be traced. Outputs and carries are flax's, with three differences where flax's are wrong or
    undefined: outputs at padding are exactly 0 and NaN there has no effect; a row of
    length 0 keeps its initial carry; and with lengths, carries are right for two and more batch
    axes too. In float16 and bfloat16 sums are in float32, so results are closer to exact.

    flax's own implementation runs where `reason` is not None, and where flax would compute in
    another dtype than the carry's.

    Args:
        cell: `nnx.LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `SimpleCell`; flax runs any other.
        time_major: whether time is the first axis.
        return_carry: also return the carry after each row's last step, before the outputs.
        reverse: read each row from its last step back; outputs come in the order read.
        keep_order: with `reverse`, give outputs in the order of the inputs.
        unroll: of flax's scan.
        state_axes: of flax's scan.
        broadcast_rngs: of flax's scan.
        rngs: draws initial carries; True for a stream of its own, False for none.

    Raises:
        ShapeError, LengthsError, ArgumentError, DeviceError: at a call, before any work.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = RNN(nnx.LSTMCell(3, 8, rngs=nnx.Rngs(0)), return_carry=True)
        >>> (c, h), y = layer(jnp.ones((2, 5, 3)), seq_lengths=jnp.array([5, 0]))
        >>> y.shape, h.shape, float(abs(y[1]).max()), layer.reason
        ((2, 5, 8), (2, 8), 0.0, None)

    Source: flax.nnx.RNN, whose arguments, attributes and cells these are.
    """

    @property
    def reason(self) -> str | None:
        """Return why flax's implementation runs the cell; None = ours does."""
        if self.broadcast_rngs is not None:
            return "broadcast_rngs is given"
        if self.state_axes != nnx.StateAxes({...: nnx.Carry}):
            return "state_axes is given"
        return reason_of(self.cell)

    def __call__(
        self,
        inputs: Any,
        *,
        initial_carry: Any = None,
        seq_lengths: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: Any = None,
    ) -> Any:
        """Return the outputs, or the carry and the outputs, of each row."""
        return_carry = self.return_carry if return_carry is None else return_carry
        order = Order(
            bool(self.time_major if time_major is None else time_major),
            bool(self.reverse if reverse is None else reverse),
            bool(self.keep_order if keep_order is None else keep_order),
        )
        options = {"return_carry": return_carry, "rngs": rngs, **order._asdict()}
        options["seq_lengths"] = seq_lengths
        if self.reason is not None:
            return self._run_by_flax(inputs, initial_carry, options)
        backend, mode = load_backend(name), mode_of(self.cell)
        check_frameworks("RNN", backend, inputs=inputs, seq_lengths=seq_lengths)
        inputs = as_array(backend, "RNN", "inputs", inputs)
        batch, width = _read_sizes(inputs, self.cell.in_features, time_major=order.time_major)
        lengths = _read_lengths(seq_lengths, batch, width)
        if initial_carry is None:
            initial_carry = self._start((*batch, self.cell.in_features), rngs)
        states = _read_carry(mode, initial_carry, (*batch, self.cell.hidden_features))
        linears = read_linears(self.cell)
        dtype = _shared_dtype(self.cell.dtype, inputs, linears, states)
        if dtype is None:
            return self._run_by_flax(inputs, initial_carry, options)
        named = {
            "inputs": inputs.astype(dtype),
            **_named_states(mode, states),
            **named_parameters(linears),
        }
        inputs = promote_arrays("RNN", named)["inputs"]  # for its check of devices
        sizes = self.cell.hidden_features, 0
        call = LayerCall("any", dtype, lengths.policy, *sizes, compiler=available(), mode=mode)
        counts = None if seq_lengths is None else as_int32(lengths.to(backend), width)
        carry, y = _run(linears, inputs, counts, states, call=call, order=order)
        return (carry, y) if return_carry else y

    def _run_by_flax(self, inputs: Any, carry: Any, options: dict[str, Any]) -> Any:
        lengths = options["seq_lengths"]
        if isinstance(lengths, Lengths):
            options["seq_lengths"] = lengths.to(load_backend(name))
        elif lengths is not None:
            options["seq_lengths"] = jnp.asarray(lengths)
        return super().__call__(inputs, initial_carry=carry, **options)

    def _start(self, shape: tuple[int, ...], rngs: Any) -> Any:
        """Let the cell draw its carry, as flax does."""
        rngs = self.rngs if rngs is None else rngs
        return self.cell.initialize_carry(
            shape, rngs.carry.fork() if isinstance(rngs, nnx.Rngs) else rngs
        )


class Bidirectional(nnx.Bidirectional):
    """`flax.nnx.Bidirectional` over rows of any length, by changing its name.

    `layer(inputs, *, initial_carry=None, rngs=None, seq_lengths=None, return_carry=None,
    time_major=None)`, as flax's, which it is an instance of: the backward layer reads each row from
    its last step back. Outputs at padding are `merge_fn` of zeros: by default zeros.

    Args:
        forward_rnn: an `RNN`; one of flax's own is run as `RNN` runs it, with the same cell.
        backward_rnn: the same.
        merge_fn: joins the outputs of both; one after the other along the features unless given.
        time_major: whether time is the first axis.
        return_carry: also return the carries of both, before the outputs.
        rngs: draws initial carries; True for a stream of its own, False for none.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> there, back = (RNN(nnx.GRUCell(3, 8, rngs=nnx.Rngs(seed))) for seed in (0, 1))
        >>> y = Bidirectional(there, back)(jnp.ones((2, 5, 3)), seq_lengths=jnp.array([5, 0]))
        >>> y.shape, float(abs(y[1]).max())
        ((2, 5, 16), 0.0)

    Source: flax.nnx.Bidirectional, whose arguments and attributes these are.
    """

    def __init__(self, forward_rnn: Any, backward_rnn: Any, **options: Any) -> None:
        forward = _ours(forward_rnn)
        backward = forward if backward_rnn is forward_rnn else _ours(backward_rnn)
        super().__init__(forward, backward, **options)

    @property
    def reason(self) -> str | None:
        """Return why flax's implementation runs a direction; None = ours runs both."""
        reasons = [getattr(rnn, "reason", None) for rnn in (self.forward_rnn, self.backward_rnn)]
        return next((reason for reason in reasons if reason is not None), None)


@partial(jax.jit, static_argnames=("call", "order"))
def _run(
    linears: Linears,
    inputs: Array,
    counts: Array | None,
    states: States,
    *,
    call: LayerCall,
    order: Order,
) -> tuple[Any, Array]:
    """Run a cell over the rows of all batch axes; return flax's carry and outputs."""
    x = jnp.moveaxis(inputs, 0, -2) if order.time_major else inputs
    *batch, width, features = x.shape
    rows, hidden = math.prod(batch), call.hidden_size
    h, *c = (state.astype(x.dtype).reshape(rows, hidden)[None] for state in states)
    pair = h, c[0] if c else jnp.zeros((1, rows, 0), x.dtype)
    weights = {key: weight.astype(x.dtype) for key, weight in torch_weights(linears).items()}
    lengths = jnp.full(rows, width, jnp.int32) if counts is None else counts
    one_pass: Any = partial(custom_op.run_direction, call=call, start="zeros")
    if not takes_operator(call):
        one_pass = partial(scan.run_direction, mode=call.mode)

    def run(*operands: Any, reverse: bool) -> Any:  # its only direction may be the reverse one
        return one_pass(*operands, reverse=order.reverse)

    x = x.reshape(rows, width, features)
    resets = jnp.zeros((rows, 0), bool)
    y, final = scan.run_directions(run, [weights], x, lengths, resets, pair)
    if order.reverse and not order.keep_order:
        y = jnp.flip(y, 1) if counts is None else _flip_rows(y, lengths)
    y = y.reshape(*batch, width, hidden)
    h, *c = (part.reshape(*batch, hidden) for part in final[: len(states)])
    return (c[0], h) if c else h, jnp.moveaxis(y, -2, 0) if order.time_major else y


def _flip_rows(y: Array, lengths: Array) -> Array:
    """Reverse the valid steps of each row; padding stays behind them."""
    width = y.shape[1]
    steps = (lengths[:, None] - 1 - jnp.arange(width, dtype=lengths.dtype)) % width
    return jnp.take_along_axis(y, steps[..., None], axis=1, mode="promise_in_bounds")


def _shared_dtype(requested: Any, inputs: Array, linears: Linears, states: States) -> str | None:
    """Return the dtype that flax computes in; None where its carry has another."""
    dtype = jnp.dtype(canonicalize_dtype(inputs, *jax.tree.leaves(linears), dtype=requested))
    return str(dtype) if {dtype} == {state.dtype for state in states} <= {*FLOATING} else None


def _read_sizes(inputs: Array, features: int, *, time_major: bool) -> tuple[tuple[int, ...], int]:
    """Return the batch axes and the number of steps of inputs."""
    if inputs.ndim < 2 or inputs.shape[-1] != features:
        axes = "time, *batch" if time_major else "*batch, time"
        got, expected = f"of shape {tuple(inputs.shape)}", f"({axes}, {features})"
        raise ShapeError.of("RNN", "inputs", got, expected, "Build the cell for these features.")
    sizes = list(inputs.shape[:-1])
    width = sizes.pop(0 if time_major else -1)
    return tuple(sizes), width


def _read_lengths(seq_lengths: Any, batch: tuple[int, ...], width: int) -> Lengths:
    """Return a length for each row of all batch axes."""
    backend = load_backend(name)
    if seq_lengths is not None and not isinstance(seq_lengths, Lengths):
        seq_lengths = as_array(backend, "RNN", "seq_lengths", seq_lengths)
        if seq_lengths.shape != batch:
            got, remedy = f"of shape {seq_lengths.shape}", "Give one length for each row."
            raise ShapeError.of("RNN", "seq_lengths", got, f"shape {batch}, the batch", remedy)
        seq_lengths = seq_lengths.reshape(-1)
    return Lengths.of(
        seq_lengths, width, backend, function="RNN", batch=math.prod(batch), argument="seq_lengths"
    )


def _read_carry(mode: str, carry: Any, shape: tuple[int, ...]) -> States:
    """Return the states of a carry in torch's order."""
    count = len(CELLS[mode].states)
    parts = carry if isinstance(carry, (tuple, list)) else (carry,)
    if len(parts) != count or (count == 1 and parts is carry):
        expected = "the pair (c, h)" if count > 1 else "an array h"
        remedy = "Take it from initialize_carry, or from a call before."
        raise ArgumentError.of("RNN", "initial_carry", shown(carry), expected, remedy)
    backend, states = load_backend(name), []
    for argument, part in _named_states(mode, parts[::-1]).items():
        check_frameworks("RNN", backend, **{argument: part})
        states.append(as_array(backend, "RNN", argument, part))
        if states[-1].shape != shape:
            got, expected = f"of shape {states[-1].shape}", f"(*batch, hidden) = {shape}"
            remedy = "Give the carry of this cell and batch, or None for a new one."
            raise ShapeError.of("RNN", argument, got, expected, remedy)
    return tuple(states)


def _named_states(mode: str, states: Any) -> dict[str, Any]:
    """Name the states for an error."""
    names = (f"initial_carry ({state})" for state in CELLS[mode].states)
    return dict(zip(names if len(states) > 1 else ["initial_carry"], states, strict=True))


def _ours(rnn: Any) -> Any:
    """Convert flax's RNN to ours, around the same cell and stream; return others unchanged."""
    if type(rnn) is not nnx.RNN:
        return rnn
    ours = RNN(rnn.cell, **{option: getattr(rnn, option) for option in OPTIONS})
    ours.rngs = nnx.data(rnn.rngs)
    return ours
