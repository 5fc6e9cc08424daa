"""The LSTM's own kernels on a CPU: one call a layer and direction, forward and backward.

The first derivative is a kernel too; all further ones are those of plain operations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ragged import kernels
from ragged.backend import load_backend
from ragged.errors import DeviceError, DtypeError, RaggedError, ShapeError
from ragged.lengths import Lengths
from ragged_torch.arrays import name
from ragged_torch.recurrent.scan import WEIGHTS, pull
from ragged_torch.recurrent.stack import Result, Weights
from ragged_torch.transforms import in_memory, is_transformed

SOURCE = kernels.HEADERS / "torch.cpp"


def has_kernels(dtype: torch.dtype) -> bool:
    """Whether there are kernels for a dtype on a CPU."""
    return _load(computed_in(dtype)) is not None


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """Give the dtype that a layer computes in: half precision in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def run_layer(
    weights: Weights, x: Tensor, lengths: Lengths, h0: Tensor, c0: Tensor, *, reverse: bool = False
) -> Result:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads.

    Half precision is computed in float32.
    """
    dtype = computed_in(x.dtype)
    if x.dtype != dtype:
        weights = {name: weight.to(dtype) for name, weight in weights.items()}
        inputs = x.to(dtype), lengths, h0.to(dtype), c0.to(dtype)
        y, h, c = run_layer(weights, *inputs, reverse=reverse)
        return y.to(x.dtype), h.to(x.dtype), c.to(x.dtype)
    if "bias_ih" not in weights:
        zeros = x.new_zeros(4 * h0.shape[1])
        weights = {**weights, "bias_ih": zeros, "bias_hh": zeros}
    arrays = x, h0, c0, *(weights[name] for name in WEIGHTS)
    own = [array.contiguous() for array in arrays]
    if is_transformed():  # whether something requires a gradient shows at one level alone
        call: Any = _Layer.apply
        tokens = x.shape[0] * x.shape[1] if lengths.is_traced else lengths.tokens
    else:
        train = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in own)
        call = _Layer.apply if train else forward
        tokens = lengths.tokens if train else 0
    count = lengths.to(load_backend(name)).to("cpu", torch.int64)
    y, h, c, *_ = call(*own, count, reverse, tokens)
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
    reverse: bool,
    tokens: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run one layer in one direction.

    Args:
        x: `(batch, time, features)`, like all arrays on the CPU and of one dtype.
        h0, c0: `(batch, hidden)`.
        weight_ih, weight_hh, bias_ih, bias_hh: `torch.nn.LSTM`'s.
        lengths: `(batch,)` int64.
        reverse: read each row from its last valid step back.
        tokens: room for what the backward pass needs, at least the sum of lengths; 0 = nothing.

    Returns:
        y `(batch, time, hidden)`, h, c, and what is kept: gates `(tokens, 4 * hidden)` and cells
        `(tokens, hidden)`.

    Raises:
        DeviceError, DtypeError, ShapeError: arrays that are not these.
    """
    (batch, width, _), hidden = x.shape, h0.shape[1]
    y, h, c = (x.new_empty(*shape, hidden) for shape in ((batch, width), (batch,), (batch,)))
    kept = x.new_empty(tokens, 4 * hidden), x.new_empty(tokens, hidden)
    inputs = (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
    _call("lstm_forward", lengths, reverse, inputs, _shapes(x, h0), (y, h, c, *kept), room=tokens)
    return y, h, c, *kept


def backward(
    gradients: Sequence[Tensor],
    inputs: Sequence[Tensor],
    kept: Sequence[Tensor],
    lengths: Tensor,
    reverse: bool,
    wants_x: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, h0, c0, both weights and either bias.

    Args:
        gradients: of y, h and c.
        inputs: x, h0, c0, weight_ih, weight_hh.
        kept: y, gates, cells.
        lengths, reverse: as in `forward`.
        wants_x: whether the gradient of x is wanted.
    """
    shapes = _shapes(*inputs[:2])
    found = [inputs[0].new_empty(shape) for shape in shapes[:6]]
    outputs = (found[0] if wants_x else None, *found[1:])
    (batch, hidden), tokens = shapes[1], len(kept[1])
    of_y, of_state = (batch, shapes[0][1], hidden), (batch, hidden)
    of_kept = (tokens, 4 * hidden), (tokens, hidden)
    expected = (*shapes[:5], of_y, *of_kept, of_y, of_state, of_state)
    given = (*inputs, *kept, *gradients)
    if not tokens and lengths.any():
        raise _not_this(ShapeError, "a forward pass that kept nothing", "one for training")
    _call("lstm_backward", lengths, reverse, given, expected, outputs, room=tokens)
    return outputs  # type: ignore[return-value]


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        y, _, _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*inputs[:7], y, *kept, inputs[7])
        ctx.reverse = inputs[8]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        *saved, lengths = ctx.saved_tensors
        if torch.is_grad_enabled() or not in_memory(*gradients[:3], *saved):
            valid = Lengths.unchecked(lengths, saved[0].shape[1])
            again = pull(saved[:7], gradients[:3], valid, reverse=ctx.reverse)
            return (*again, None, None, None)
        wants_x = ctx.needs_input_grad[0]
        found = backward(gradients[:3], saved[:5], saved[7:], lengths, ctx.reverse, wants_x)
        return (*found, found[-1].clone(), None, None, None)  # either bias

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """Take the mapped axis for more rows; where the weights are mapped, run call after call."""
        size, (*arrays, reverse, tokens) = info.batch_size, inputs
        mapped = [
            array.expand(size, *array.shape) if dim is None else array.movedim(dim, 0)
            for array, dim in zip(arrays, in_dims[:8], strict=True)
        ]
        if any(dim is not None for dim in in_dims[3:7]):
            calls = [_Layer.apply(*each, reverse, tokens) for each in zip(*mapped, strict=True)]
            found = [torch.stack(each) for each in zip(*calls, strict=True)]
        else:
            state, count = [array.flatten(0, 1) for array in mapped[:3]], mapped[7].flatten()
            each = _Layer.apply(*state, *arrays[3:7], count, reverse, size * tokens)
            found = [array.unflatten(0, (size, len(array) // size)) for array in each]
        return tuple(found), (0,) * len(found)


def _call(
    name: str,
    lengths: Tensor,
    reverse: bool,
    inputs: Sequence[Tensor],
    shapes: Sequence[tuple[int, ...]],
    outputs: Sequence[Tensor | None],
    room: int = 0,
) -> None:
    """Call a function of the library; it lets go of Python meanwhile.

    This is the one place where addresses leave Python: `outputs` were made for the call, and all
    else is checked. `room` is how many tokens fit into what the forward pass keeps.
    """
    x, h0 = inputs[:2]
    library: Any = _load(x.dtype)
    sizes = (*x.shape, h0.shape[1], int(reverse), torch.get_num_threads(), room)
    count = _readable(lengths, x.shape[:1], torch.int64)
    own = [_readable(*each, x.dtype) for each in zip(inputs, shapes, strict=True)]
    addresses = [0 if array is None else array.data_ptr() for array in (*own, *outputs)]
    status = getattr(library, name)(
        (ctypes.c_int64 * len(sizes))(*sizes),
        ctypes.c_void_p(count.data_ptr()),
        (ctypes.c_void_p * len(addresses))(*addresses),
        _team(),
    )
    kernels.raise_status(status)


def _shapes(x: Tensor, h0: Tensor) -> tuple[tuple[int, ...], ...]:
    """The shapes of x, h0, c0, both weights and either bias."""
    (batch, width, features), hidden = x.shape, h0.shape[1]
    state, gates = (batch, hidden), 4 * hidden
    weights = (gates, features), (gates, hidden), (gates,), (gates,)
    return ((batch, width, features), state, state, *weights)


def _readable(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Copy what does not lie in memory as it reads; refuse what is not there or is something else.

    Raises:
        DeviceError, DtypeError, ShapeError: it is none of a CPU's arrays of this shape and dtype.
    """
    if not tensor.is_cpu or tensor.layout is not torch.strided:
        raise _not_this(DeviceError, f"{tensor.layout} on {tensor.device}", "dense, on the CPU")
    if tensor.dtype is not dtype:
        raise _not_this(DtypeError, f"of dtype {tensor.dtype}", str(dtype))
    if tensor.shape != shape:
        raise _not_this(ShapeError, f"of shape {tuple(tensor.shape)}", f"shape {tuple(shape)}")
    own = tensor.contiguous()
    if own.is_neg() or own._is_zerotensor():
        own = own.clone()  # negated or filled as it is copied
    if not own.data_ptr() and own.numel():
        raise _not_this(DeviceError, "a wrapper without memory", "a tensor")
    return own


def _not_this(error: type[RaggedError], got: str, expected: str) -> RaggedError:
    return error.of("lstm kernel", "inputs", got, expected, "Set RAGGED_KERNELS=0.")


@cache
def _load(dtype: torch.dtype) -> ctypes.CDLL | None:
    return kernels.load(SOURCE, str(dtype).removeprefix("torch."))


@cache
def _team() -> ctypes.c_void_p | None:
    """Find what runs a team of torch's own threads; None if torch was built without OpenMP."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except AttributeError:
        return None
