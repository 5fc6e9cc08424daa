"""Kernels of our own on a CPU: one call a layer and direction, forward and backward.

The first derivative is a kernel too; all further ones are those of plain operations.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ragged import kernels
from ragged.backend import load_backend
from ragged.errors import ShapeError
from ragged.kernels.recipe import FUNCTIONS, SOURCES
from ragged.lengths import Lengths
from ragged.recurrent.cells import CELLS
from ragged_torch.addresses import find_team, readable, refused, room_like
from ragged_torch.arrays import asarray, name
from ragged_torch.recurrent import layouts, scan
from ragged_torch.recurrent.layouts import LAYOUTS
from ragged_torch.recurrent.scan import WEIGHTS
from ragged_torch.recurrent.stack import (
    LayerInputs,
    Resets,
    Result,
    State,
    Weights,
    run_directions,
    take_apart,
    with_biases,
)
from ragged_torch.transforms import in_memory, is_transformed, quick_apply

SOURCE = kernels.HEADERS / SOURCES["LSTM"]


class Call(NamedTuple):
    """What a kernel is told beside its arrays.

    Args:
        mode: of the cell.
        width: the longest that a row may be.
        reverse: read each row from its last valid step back.
        layout: how the tokens of x and y lie, one of `LAYOUTS`.
        start: what the state is reset to, "zeros" or the row's "initial" one.
    """

    mode: str
    width: int
    reverse: bool = False
    layout: str = "padded"
    start: str = "zeros"


def has_kernels(mode: str, dtype: torch.dtype) -> bool:
    """Whether there are kernels for a cell and a dtype on a CPU."""
    return _load(mode, computed_in(dtype)) is not None


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """Give the dtype that a layer computes in: half precision in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def run(inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run all layers over tokens of any layout."""
    run_one = partial(run_layer, layout=inputs.layout, resets=inputs.resets)
    return run_directions(run_one, inputs)


def run_layer(
    mode: str,
    weights: Weights,
    x: Tensor,
    lengths: Lengths,
    h0: Tensor,
    c0: Tensor,
    *,
    reverse: bool = False,
    layout: str = "padded",
    resets: Resets | None = None,
) -> Result:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    `x` and y lie as `layout` says.
    """
    at, start = take_apart(resets)
    weights = with_biases(weights, x)
    arrays = [each.contiguous() for each in (x, h0, c0, *(weights[name] for name in WEIGHTS))]
    count = lengths.to(load_backend(name)) if lengths.is_traced else asarray(lengths.host)
    count, call = count.to("cpu", torch.int64), Call(mode, lengths.width, reverse, layout, start)
    if is_transformed():  # whether something requires a gradient shows at one level alone
        tokens = x.shape[:-1].numel() if lengths.is_traced else lengths.tokens
        y, h, c, _ = _Layer.apply(*arrays, count, at, call, tokens)
    else:
        y, h, c = run_arrays(arrays, count, call, lengths.tokens, at)
    return y, h, c


def run_arrays(
    arrays: Sequence[Tensor],
    lengths: Tensor,
    call: Call,
    tokens: int,
    resets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run `forward`, with its gradient if one is asked for: y, h and c."""
    told = lengths, resets, call
    if torch.is_grad_enabled() and any(array.requires_grad for array in arrays):
        y, h, c = quick_apply(_EagerLayer, arrays)(*arrays, *told, tokens)
    else:
        run: Any = forward
        y, h, c, _ = run(*arrays, *told, 0)
    return y, h, c


def forward(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    lengths: Tensor,
    resets: Tensor | None,
    call: Call,
    tokens: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run one layer in one direction.

    Args:
        x: `(batch, time, features)` or as the layout says, like all arrays on the CPU and of one
            dtype.
        h0: `(batch, hidden)`.
        c0: `(batch, hidden)`; `(batch, 0)` for a cell without c.
        weight_ih, weight_hh, bias_ih, bias_hh: `torch.nn`'s.
        lengths: `(batch,)` int64.
        resets: boolean, in the shape of the tokens of x; None = none.
        call: what else there is to be told.
        tokens: room for what the backward pass needs, at least the sum of lengths; 0 = nothing.

    Returns:
        y, where x has features `hidden`; h, c, and what is kept, `(tokens, kept * hidden)`.

    Raises:
        DeviceError, DtypeError, ShapeError: arrays that are not these.
    """
    hidden = h0.shape[1]
    y, h, c = x.new_empty((*x.shape[:-1], hidden)), room_like(h0), room_like(c0)
    kept = x.new_empty(tokens, CELLS[call.mode].kept * hidden)
    inputs = (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
    shapes = input_shapes(call, x, h0, c0, lengths)
    told = call, lengths, resets
    _call("recurrent_forward", *told, inputs, shapes, (y, h, c, kept), room=tokens)
    return y, h, c, kept


def backward(
    gradients: Sequence[Tensor],
    inputs: Sequence[Tensor],
    y: Tensor | None,
    kept: Tensor,
    lengths: Tensor,
    resets: Tensor | None,
    call: Call,
    wants_x: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, h0, c0, both weights and both biases.

    Args:
        gradients: of y, h and c.
        inputs: x, h0, c0, weight_ih, weight_hh.
        y, kept: of the forward pass; y may be None where the cell keeps what h is made of.
        lengths, resets, call: as in `forward`.
        wants_x: whether the gradient of x is wanted.
    """
    x, h0, c0, *_ = inputs
    shapes = input_shapes(call, x, h0, c0, lengths)
    biases = x.new_empty(shapes[5]), x.new_empty(shapes[6])
    outputs = (room_like(x) if wants_x else None, *map(room_like, inputs[1:]), *biases)
    tokens, hidden = len(kept), h0.shape[1]
    of_y = (*x.shape[:-1], hidden)
    of_kept = (tokens, CELLS[call.mode].kept * hidden)
    expected = (*shapes[:5], of_y, of_kept, of_y, h0.shape, c0.shape)
    if of_kept[1] and not tokens and lengths.any():
        raise refused(ShapeError, "a forward pass that kept nothing", "one for training")
    given = (*inputs, y, kept, *gradients)
    told = call, lengths, resets
    _call("recurrent_backward", *told, given, expected, outputs, room=tokens)
    return outputs


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.mark_non_differentiable(output[3])
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        *inputs, lengths, resets, y, kept = ctx.saved_tensors
        told, (x, h0, c0, *_) = (lengths, resets, ctx.call), inputs
        shapes = (*x.shape[:-1], h0.shape[-1]), h0.shape, c0.shape
        of_results = tuple(
            x.new_zeros(shape) if given is None else given
            for given, shape in zip(gradients, shapes, strict=False)
        )
        known = (*inputs, kept, *([] if y is None else [y]))
        if torch.is_grad_enabled() or not in_memory(*of_results, *known):
            return (*differentiable_vjp(inputs, of_results, *told), None, None, None, None)
        wants_x = ctx.needs_input_grad[0]
        found = backward(of_results, inputs[:5], y, kept, *told, wants_x)
        return (*found, None, None, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """Take the mapped axis for more rows; where the weights are mapped, run call after call."""
        size, (*arrays, resets, call, tokens) = info.batch_size, inputs
        arrays += [] if resets is None else [resets]
        mapped = [
            array.expand(size, *array.shape) if dim is None else array.movedim(dim, 0)
            for array, dim in zip(arrays, in_dims, strict=False)
        ]
        if call.layout != "padded" or any(dim is not None for dim in in_dims[3:7]):
            calls = [
                _Layer.apply(*each[:8], *each[8:] or (None,), call, tokens)
                for each in zip(*mapped, strict=True)
            ]
            results = [torch.stack(each) for each in zip(*calls, strict=True)]
        else:
            *state, count = [array.flatten(0, 1) for array in (*mapped[:3], mapped[7])]
            at = [array.flatten(0, 1) for array in mapped[8:]] or [None]
            each = _Layer.apply(*state, *arrays[3:7], count, *at, call, size * tokens)
            results = [array.unflatten(0, (size, len(array) // size)) for array in each]
        return tuple(results), (0,) * len(results)


class _EagerLayer(torch.autograd.Function):
    """The same without the means for `torch.func`, which take longer than a small layer."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = forward(*inputs)
        _save(ctx, inputs, output)
        return output[:3]

    backward = _Layer.backward


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save what the backward pass reads."""
    y, _, _, kept = output
    ctx.set_materialize_grads(False)  # zeros for `kept` would be written and never read
    ctx.call = inputs[9]
    ctx.save_for_backward(*inputs[:9], None if CELLS[ctx.call.mode].keeps_h else y, kept)


def differentiable_vjp(
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    lengths: Tensor,
    resets: Tensor | None,
    call: Call,
) -> tuple[Tensor, ...]:
    """Return what `backward` does, by plain operations, which have derivatives of their own."""
    valid, (x, *others), (dy, *of_state) = Lengths.unchecked(lengths, call.width), inputs, gradients
    x, dy = (layouts.to_padded(each, call.layout, valid) for each in (x, dy))
    at = None if resets is None else layouts.to_padded(resets, call.layout, valid)
    told: Any = {"reverse": call.reverse, "resets": Resets.of(at, call.start)}
    results = scan.vjp(call.mode, (x, *others), (dy, *of_state), valid, **told)
    places = inputs[0].shape[0]
    return layouts.from_padded(results[0], call.layout, valid, places), *results[1:]


def _call(
    function: str,
    call: Call,
    lengths: Tensor,
    resets: Tensor | None,
    inputs: Sequence[Tensor | None],
    shapes: Sequence[Sequence[int]],
    outputs: Sequence[Tensor | None],
    room: int = 0,
) -> None:
    """Call a function of the library; it lets go of Python meanwhile.

    This is the one place where addresses leave Python: `outputs` were made for the call, and all
    else is checked. `room` is how many tokens fit into what the forward pass keeps.
    """
    x, h0 = (array for array in inputs[:2] if array is not None)
    dtype = x.dtype
    (batch, hidden), (*tokens, features) = h0.shape, x.shape
    layout, threads = LAYOUTS.index(call.layout), torch.get_num_threads()
    sizes = (batch, call.width, math.prod(tokens), layout, call.reverse, features, hidden, room)
    count = readable(lengths, (batch,), torch.int64)
    at_token = None if resets is None else readable(resets, x.shape[:-1], torch.bool)
    arrays = [
        None if array is None else readable(array, shape, dtype)
        for array, shape in zip(inputs, shapes, strict=True)
    ]
    addresses = [0 if array is None else array.data_ptr() for array in (*arrays, *outputs)]
    run = getattr(_load(call.mode, dtype), function)
    sized = Sizes(*sizes, threads, True, call.start == "initial")
    marks = None if at_token is None else at_token.data_ptr()
    status = run(sized, count.data_ptr(), Addresses(*addresses), marks, find_team())
    kernels.raise_status(status)


def input_shapes(
    call: Call, x: Tensor, h0: Tensor, c0: Tensor, lengths: Tensor
) -> tuple[tuple[int, ...], ...]:
    """The shapes of x, h0, c0, both weights and either bias."""
    batch, hidden, features = len(lengths), h0.shape[-1], x.shape[-1]
    has_c = "c" in CELLS[call.mode].states
    axes = {"padded": (batch, call.width), "time_major": (call.width, batch)}
    gates = CELLS[call.mode].gates * hidden
    weights = (gates, features), (gates, hidden), (gates,), (gates,)
    state = (batch, hidden), (batch, hidden if has_c else 0)
    return ((*axes.get(call.layout, x.shape[:1]), features), *state, *weights)


Sizes = ctypes.c_int64 * 11  # what a function of a library takes
Addresses = ctypes.c_void_p * 17  # as many as the backward pass has


@cache
def _load(mode: str, dtype: torch.dtype) -> ctypes.CDLL | None:
    library = kernels.load(SOURCE, mode, str(dtype).removeprefix("torch."))
    for function in FUNCTIONS if library else ():
        pointers = (ctypes.c_void_p,) * 2  # resets, and the team
        getattr(library, function).argtypes = Sizes, ctypes.c_void_p, Addresses, *pointers
    return library
