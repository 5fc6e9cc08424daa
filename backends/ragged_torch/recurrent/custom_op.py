"""A recurrent layer in one direction as an operator, for compilers and exporters.

A compiler cannot read lengths, so the layer is one operator, `ragged::recurrent_layer`, whose body
reads them, checks them and chooses among all implementations when it runs. The sizes of its results
follow from those of its inputs: one program serves every batch.

On a GPU it reads no lengths either, which would wait for the device and break CUDA graphs: it runs
over the whole width, and a row of a wrong length gives NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ragged.lengths import Lengths, check_lengths
from ragged.recurrent.cells import CELLS
from ragged_torch.operators import refuse_tangents, register_backward, without_wrong_rows
from ragged_torch.recurrent import onnx_op, passes, scan
from ragged_torch.recurrent.passes import Layer
from ragged_torch.recurrent.stack import Resets, Result, Weights, take_apart, with_biases
from ragged_torch.transforms import is_jit_tracing


def recurrent_op(
    mode: str,
    weights: Weights,
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor,
    *,
    reverse: bool = False,
    resets: Resets | None = None,
) -> Result:
    """Run one layer in one direction as the operator: y, h and c.

    Args:
        mode: of the cell.
        weights: by name.
        x: `(batch, time, features)`.
        lengths: `(batch,)`, int64, on the CPU or on a GPU with the others.
        h0: `(batch, size)`.
        c0: `(batch, hidden)`; `(batch, 0)` for a cell without c.
        reverse: read each row from its last valid step back.
        resets: None = nowhere.
    """
    has_onnx = "weight_hr" not in weights and resets is None
    if onnx_op.is_exporting() and has_onnx:
        return onnx_op.run_layer(mode, weights, x, lengths, h0, c0, reverse=reverse)
    layer = Layer(x, lengths, h0, c0, **with_biases(weights, x))
    train = torch.is_grad_enabled() and any(value.requires_grad for value in layer.differentiable)
    train = train or is_jit_tracing()  # a traced program may be trained later
    at, start = take_apart(resets)
    y, h, c, _ = torch.ops.ragged.recurrent_layer(*layer, mode, reverse, train, at, start)
    return y, h, c


def _checked(layer: Layer, mode: str, resets: Tensor | None) -> Lengths:
    """Check lengths, which a compiler cannot read, and refuse tangents, which would be lost."""
    refuse_tangents("recurrent_layer")
    width = layer.x.shape[1]
    if layer.lengths.is_cuda and resets is None:  # by resets rows are cut, which reads both
        return Lengths.unread(layer.lengths, width)
    return Lengths(check_lengths(layer.lengths, width, function=CELLS[mode].name), width)


@torch.library.custom_op("ragged::recurrent_layer", mutates_args=())
def recurrent_layer(
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    weight_hr: Tensor | None,
    mode: str,
    reverse: bool,
    train: bool,
    resets: Tensor | None,
    start: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run one layer in one direction: y, h, c, and the values kept for the backward pass.

    Args are those of `Layer`; `mode` is the cell's; `reverse` reads each row from its last valid
    step back; `train` is whether there will be a backward pass. `resets (batch, time)` marks the
    steps before which the state is reset, to what `start` names.

    Raises:
        LengthsError: a length on the CPU is negative or above the width.
    """
    layer = Layer(x, lengths, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    lengths_ = _checked(layer, mode, resets)
    run = passes.passes_of(layer, mode).forward
    y, state, kept = run(layer, lengths_, Resets.of(resets, start), mode, reverse, train)
    results = [without_wrong_rows(result, lengths_) for result in (y, *state)]
    return _unshared([*results, kept], [h0, c0])


def _unshared(results: Sequence[Tensor], inputs: Sequence[Tensor]) -> Any:
    """Copy results that share memory with inputs or other results, or are not contiguous."""
    used = {value.untyped_storage().data_ptr() for value in inputs}
    unshared = []
    for value in results:
        memory = value.untyped_storage().data_ptr()
        unshared.append(value.clone() if memory in used else value.contiguous())
        used.add(memory)
    return tuple(unshared)


@recurrent_layer.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    refuse_tangents("recurrent_layer")
    layer, (mode, _, train, *_) = Layer(*inputs[:9]), inputs[9:]
    x, h0, c0 = layer.x, layer.h0, layer.c0
    y = x.new_empty(*x.shape[:2], h0.shape[1])
    kept = passes.empty(layer, mode, passes.saved_rows(layer, mode, train))
    return y, x.new_empty(h0.shape), x.new_empty(c0.shape), kept


def recurrent_layer_backward(
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    weight_hr: Tensor | None,
    mode: str,
    reverse: bool,
    y: Tensor,
    kept: Tensor,
    grad_y: Tensor,
    grad_h: Tensor,
    grad_c: Tensor,
    resets: Tensor | None,
    start: str,
) -> list[Tensor]:
    """Return the gradients of x, h0, c0 and all weights but None."""
    layer = Layer(x, lengths, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    gradients = (grad_y, grad_h, grad_c)
    told = _checked(layer, mode, resets), Resets.of(resets, start), mode, reverse
    results = passes.passes_of(layer, mode).backward(layer, *told, y, kept, gradients)
    return list(_unshared(results, gradients))


def _fake_backward(*inputs: Any) -> list[Tensor]:
    return [value.new_empty(value.shape) for value in Layer(*inputs[:9]).differentiable]


_library = register_backward(recurrent_layer_backward, _fake_backward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)  # or `kept` gets a gradient of zeros of its size
    y, _, _, kept = output
    ctx.mark_non_differentiable(kept)
    ctx.mode, ctx.reverse, _, resets, ctx.start = inputs[9:]
    ctx.save_for_backward(*inputs[:9], resets, y, kept)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, resets, y, kept = ctx.saved_tensors
    layer = Layer(*inputs)
    gradients = [
        like.new_zeros(like.shape) if grad is None else grad
        for grad, like in zip(grads[:3], (y, layer.h0, layer.c0), strict=True)
    ]
    again = torch.is_grad_enabled()  # whether these gradients are to be differentiated
    call: Any = _Gradients.apply if again else torch.ops.ragged.recurrent_layer_backward
    told = ctx.mode, ctx.reverse, y, kept, *gradients, resets, ctx.start
    dx, *others = call(*layer, *told)
    projected = (None,) if layer.weight_hr is None else ()
    return dx, None, *others, *projected, *5 * (None,)


recurrent_layer.register_autograd(_backward, setup_context=_save)


class _Gradients(torch.autograd.Function):
    """The backward pass's operator; its derivatives are those of plain operations."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(torch.ops.ragged.recurrent_layer_backward(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mode, ctx.reverse, *_, ctx.start = inputs[9:]
        ctx.save_for_backward(*inputs[:9], *inputs[13:17])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        *inputs, grad_y, grad_h, grad_c, resets = ctx.saved_tensors
        layer = Layer(*inputs)

        def vjp(gradients: Sequence[Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
            told = Resets.of(resets, ctx.start), ctx.mode, ctx.reverse
            return _vjp(Layer.of(layer.lengths, tensors), gradients, *told)

        gradients = (grad_y, grad_h, grad_c)
        of_gradients, dx, *others = torch.func.vjp(vjp, gradients, *layer.differentiable)[1](grads)
        projected = (None,) if layer.weight_hr is None else ()
        return (dx, None, *others, *projected, *4 * (None,), *of_gradients, None, None)


def _vjp(
    layer: Layer,
    gradients: Sequence[Tensor],
    resets: Resets | None,
    mode: str,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """Return the gradients of `layer.differentiable` from those of y, h and c, differentiably."""
    lengths = Lengths.unchecked(layer.lengths, layer.x.shape[1])

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = Layer.of(layer.lengths, tensors)
        y, state = passes.run_layer(inputs, lengths, resets, mode, reverse, run=scan.run)
        return y, *state

    results: tuple[Tensor, ...] = torch.func.vjp(run, *layer.differentiable)[1](tuple(gradients))
    return results


def _map(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> list[Any]:
    """Return an operator's inputs for each call, where `vmap` maps some of them."""
    return [
        [
            value if dim is None else value.select(dim, row)
            for value, dim in zip(inputs, in_dims, strict=True)
        ]
        for row in range(info.batch_size)
    ]


@torch.library.register_vmap("ragged::recurrent_layer")
def _(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, ...]:
    calls = [torch.ops.ragged.recurrent_layer(*call) for call in _map(info, in_dims, *inputs)]
    return tuple(map(torch.stack, zip(*calls, strict=True))), (0,) * len(calls[0])


@torch.library.register_vmap("ragged::recurrent_layer_backward", lib=_library)
def _(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, ...]:
    calls = [
        torch.ops.ragged.recurrent_layer_backward(*call) for call in _map(info, in_dims, *inputs)
    ]
    return list(map(torch.stack, zip(*calls, strict=True))), [0] * len(calls[0])
