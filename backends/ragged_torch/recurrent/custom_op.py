"""One LSTM layer in one direction as an operator, which is all that compilers and exporters see.

A compiler cannot look into lengths, so the whole layer is one operator, `ragged::lstm_layer`, whose
body reads them, checks them and chooses among all implementations as it runs. The sizes of all it
returns follow from those of its inputs: one program serves every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ragged.errors import DerivativeError
from ragged.lengths import Lengths, check_lengths
from ragged_torch.recurrent import onnx_op as onnx_operator
from ragged_torch.recurrent import passes
from ragged_torch.recurrent import scan as scans
from ragged_torch.recurrent.passes import Layer
from ragged_torch.recurrent.stack import Result, Weights
from ragged_torch.transforms import has_tangents, is_jit_tracing


def lstm_op(
    weights: Weights, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor, *, reverse: bool = False
) -> Result:
    """Run one layer in one direction as the operator: y, h and c.

    Args:
        weights: by their own names.
        x: `(batch, time, features)`.
        lengths: `(batch,)`, int64 on the CPU.
        h0: `(batch, size)`.
        c0: `(batch, hidden)`.
        reverse: read each row from its last valid step back.
    """
    if onnx_operator.is_exporting() and "weight_hr" not in weights:  # which ONNX has not
        return onnx_operator.run_layer(weights, x, lengths, h0, c0, reverse=reverse)
    zeros = x.new_zeros(4 * c0.shape[1])
    layer = Layer(x, lengths, h0, c0, **{"bias_ih": zeros, "bias_hh": zeros, **weights})
    train = torch.is_grad_enabled() and any(value.requires_grad for value in layer.differentiable)
    train = train or is_jit_tracing()  # what torch.jit.trace records may be trained later
    y, h, c, _, _ = torch.ops.ragged.lstm_layer(*layer, reverse, train)
    return y, h, c


def _checked(layer: Layer) -> Lengths:
    """Refuse what no compiler could see at the door: lengths, and tangents, which would be lost."""
    _refuse_tangents()
    width = layer.x.shape[1]
    return Lengths(check_lengths(layer.lengths, width, function="LSTM"), width)


@torch.library.custom_op("ragged::lstm_layer", mutates_args=())
def lstm_layer(
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    weight_hr: Tensor | None,
    reverse: bool,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run one layer in one direction: y, h, c, and what the backward pass is given.

    Args are those of `Layer`; `reverse` reads each row from its last valid step back; `train` says
    that there will be a backward pass.

    Raises:
        LengthsError: a length negative or above the width.
    """
    layer = Layer(x, lengths, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    y, state, saved = passes.passes_of(layer).forward(layer, _checked(layer), reverse, train)
    return _own([y, *state, *saved], [h0, c0])


def _own(found: Sequence[Tensor], given: Sequence[Tensor]) -> Any:
    """Copy what shares memory with inputs or other outputs, or lies otherwise than was told."""
    taken = {value.untyped_storage().data_ptr() for value in given}
    own = []
    for value in found:
        memory = value.untyped_storage().data_ptr()
        own.append(value.clone() if memory in taken else value.contiguous())
        taken.add(memory)
    return tuple(own)


def _refuse_tangents() -> None:
    if has_tangents():
        raise DerivativeError(
            "ragged::lstm_layer has no forward mode; take the layer itself, not the recorded "
            "operator, or reverse mode."
        )


@lstm_layer.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    _refuse_tangents()
    layer, (_, train) = Layer(*inputs[:9]), inputs[9:]
    x, h0, c0 = layer.x, layer.h0, layer.c0
    y = x.new_empty(*x.shape[:2], h0.shape[1])
    saved = passes.empty(layer, passes.saved_rows(layer, train))
    return y, x.new_empty(h0.shape), x.new_empty(c0.shape), *saved


def lstm_layer_backward(
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    weight_hr: Tensor | None,
    reverse: bool,
    y: Tensor,
    gates: Tensor,
    cells: Tensor,
    grad_y: Tensor,
    grad_h: Tensor,
    grad_c: Tensor,
) -> list[Tensor]:
    """Return the gradients of x, h0, c0 and the weights that there are."""
    layer = Layer(x, lengths, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    found = passes.passes_of(layer).backward(
        layer, _checked(layer), reverse, y, (gates, cells), grad_y, (grad_h, grad_c)
    )
    return list(_own(found, [grad_y, grad_h, grad_c]))


def _fake_backward(*inputs: Any) -> list[Tensor]:
    return [value.new_empty(value.shape) for value in Layer(*inputs[:9]).differentiable]


def _register_backward() -> torch.library.Library:
    """Register the operator so that autograd works inside of its body, unlike in a `custom_op`."""
    library = torch.library.Library("ragged", "FRAGMENT")
    schema = torch.library.infer_schema(lstm_layer_backward, mutates_args=())
    library.define(f"lstm_layer_backward{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    library.impl("lstm_layer_backward", lstm_layer_backward, "CompositeExplicitAutograd")
    library.impl("lstm_layer_backward", torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake("ragged::lstm_layer_backward", _fake_backward, lib=library)
    return library


_library = _register_backward()  # what it registers lives as long as it does


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)  # or what is saved gets a gradient of zeros, as large as it
    y, _, _, *saved = output
    ctx.mark_non_differentiable(*saved)
    ctx.reverse = inputs[9]
    ctx.save_for_backward(*inputs[:9], y, *saved)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, y, gates, cells = ctx.saved_tensors
    layer = Layer(*inputs)
    given = [
        like.new_zeros(like.shape) if grad is None else grad
        for grad, like in zip(grads[:3], (y, layer.h0, layer.c0), strict=True)
    ]
    again = torch.is_grad_enabled()  # whether these gradients are to be differentiated
    call: Any = _Gradients.apply if again else torch.ops.ragged.lstm_layer_backward
    found = call(*layer, ctx.reverse, y, gates, cells, *given)
    projected = (None,) if layer.weight_hr is None else ()
    return found[0], None, *found[1:], *projected, None, None


lstm_layer.register_autograd(_differentiate, setup_context=_save)


class _Gradients(torch.autograd.Function):
    """The backward pass's operator; its own derivatives are those of plain operations."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(torch.ops.ragged.lstm_layer_backward(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.reverse = inputs[9]
        ctx.save_for_backward(*inputs[:9], *inputs[13:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        *inputs, grad_y, grad_h, grad_c = ctx.saved_tensors
        layer = Layer(*inputs)

        def pull(given: Sequence[Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
            return _pull(Layer.of(layer.lengths, tensors), given, reverse=ctx.reverse)

        given = (grad_y, grad_h, grad_c)
        of_given, x, *others = torch.func.vjp(pull, given, *layer.differentiable)[1](grads)
        projected = (None,) if layer.weight_hr is None else ()
        return (x, None, *others, *projected, *4 * (None,), *of_given)


def _pull(layer: Layer, given: Sequence[Tensor], *, reverse: bool) -> tuple[Tensor, ...]:
    """Return the gradients of all that has one, from those of y, h and c, as plain operations."""
    lengths = Lengths.unchecked(layer.lengths, layer.x.shape[1])

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        x, _, h0, c0, *_ = own = Layer.of(layer.lengths, tensors)
        return scans.run_layer(own.weights, x, lengths, h0, c0, reverse=reverse)

    found: tuple[Tensor, ...] = torch.func.vjp(run, *layer.differentiable)[1](tuple(given))
    return found


def _map(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> list[Any]:
    """Give an operator's inputs, call after call, where `vmap` maps some of them."""
    return [
        [
            value if dim is None else value.select(dim, row)
            for value, dim in zip(inputs, in_dims, strict=True)
        ]
        for row in range(info.batch_size)
    ]


@torch.library.register_vmap("ragged::lstm_layer")
def _(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, ...]:
    calls = [torch.ops.ragged.lstm_layer(*each) for each in _map(info, in_dims, *inputs)]
    return tuple(map(torch.stack, zip(*calls, strict=True))), (0,) * len(calls[0])


@torch.library.register_vmap("ragged::lstm_layer_backward", lib=_library)
def _(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, ...]:
    calls = [torch.ops.ragged.lstm_layer_backward(*each) for each in _map(info, in_dims, *inputs)]
    return list(map(torch.stack, zip(*calls, strict=True))), [0] * len(calls[0])
