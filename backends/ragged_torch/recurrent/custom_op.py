"""One LSTM layer in one direction as an operator, which is all that compilers and exporters see.

A compiler cannot look into lengths, so the whole layer is one operator, `ragged::lstm_layer`, whose
body reads them, checks them and plans its schedule as it runs. The sizes of all it returns follow
from those of its inputs: one program serves every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ragged.errors import DerivativeError
from ragged.lengths import Lengths, check_lengths
from ragged.schedule import Piece, plan
from ragged_torch.arrays import asarray, lstm_costs
from ragged_torch.recurrent import onnx_op as onnx_operator
from ragged_torch.recurrent import scan as scans
from ragged_torch.recurrent.cpp import backward, forward, has_kernels
from ragged_torch.recurrent.segments import Weights, run_layer
from ragged_torch.transforms import has_tangents, is_jit_tracing

State = tuple[Tensor, Tensor]
Saved = tuple[Tensor, Tensor]


class Layer(NamedTuple):
    """The tensors that the operator takes.

    Args:
        x: `(batch, time, features)`, left aligned; padding may hold anything.
        lengths: `(batch,)`, int64 on the CPU whatever the device of the rest.
        h0: `(batch, size)`, where size is that of h: a projection's if there is one.
        c0: `(batch, hidden)`.
        weight_ih: `(4 * hidden, features)`, gates i, f, g, o.
        weight_hh: `(4 * hidden, size)`.
        bias_ih: `(4 * hidden,)`, zeros for a layer without biases, like `bias_hh`.
        weight_hr: `(size, hidden)` of a layer with a projection.
    """

    x: Tensor
    lengths: Tensor
    h0: Tensor
    c0: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    weight_hr: Tensor | None = None

    @property
    def weights(self) -> Weights:
        """The parameters under their own names."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def differentiable(self) -> list[Tensor]:
        """All that has a gradient, in order."""
        return [value for value in (self.x, *self[2:]) if value is not None]

    @classmethod
    def of(cls, lengths: Tensor, differentiable: Sequence[Tensor]) -> Layer:
        """Undo `differentiable`."""
        return cls(differentiable[0], lengths, *differentiable[1:])

    def detached(self) -> Layer:
        """The same, apart from whatever made them."""
        own = {name: value.detach() for name, value in self._asdict().items() if value is not None}
        return Layer(**own)


class Passes(NamedTuple):
    """The two passes of a layer.

    Args:
        saves: whether `forward` leaves something in what it saves.
        forward: `(layer, lengths, reverse, train) -> (y, (h, c), (gates, cells))`, with gates
            `(rows, 4 * hidden)` and cells `(rows, hidden)` of as many rows as `saved_rows` says.
        backward: `(layer, lengths, reverse, y, (gates, cells), grad_y, (grad_h, grad_c)) ->` the
            gradients of `layer.differentiable`.
    """

    saves: bool
    forward: Callable[[Layer, Lengths, bool, bool], tuple[Tensor, State, Saved]]
    backward: Callable[[Layer, Lengths, bool, Tensor, Saved, Tensor, State], list[Tensor]]


def record_layer(
    weights: Weights, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor, *, reverse: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
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


def passes_of(layer: Layer) -> Passes:
    """Choose the passes for a layer by its device and dtype alone."""
    known = layer.weight_hr is None and layer.x.dtype in (torch.float32, torch.float64)
    return NATIVE if known and has_kernels(layer.x) else COMPOSED


def saved_rows(layer: Layer, train: bool) -> int:
    """How many rows what is saved has: room for every step where passes save, else none."""
    return layer.x.shape[0] * layer.x.shape[1] if train and passes_of(layer).saves else 0


def composed_forward(
    layer: Layer, lengths: Lengths, reverse: bool, train: bool
) -> tuple[Tensor, State, Saved]:
    """Run whatever torch runs, and save nothing."""
    with torch.no_grad():
        y, state = _run(layer, lengths, reverse)
    return y, state, _empty(layer, 0)


def composed_backward(
    layer: Layer,
    lengths: Lengths,
    reverse: bool,
    y: Tensor,
    saved: Saved,
    grad_y: Tensor,
    grad_state: State,
) -> list[Tensor]:
    """Run forward once more and let autograd go back."""
    layer = layer.detached()
    leaves = [value.requires_grad_() for value in layer.differentiable]
    with torch.enable_grad():
        y, state = _run(layer, lengths, reverse)
    pairs = zip((y, *state), (grad_y, *grad_state), strict=True)
    outputs, grads = zip(*(pair for pair in pairs if pair[0].requires_grad), strict=True)
    return list(torch.autograd.grad(outputs, leaves, grads, materialize_grads=True))


def native_forward(
    layer: Layer, lengths: Lengths, reverse: bool, train: bool
) -> tuple[Tensor, State, Saved]:
    """Run kernels of our own."""
    count = asarray(lengths.host)  # as they were checked, whatever tensor they came from
    inputs: Any = (*_arrays(layer), count, reverse, saved_rows(layer, train))
    y, h, c, *saved = forward(*inputs)
    for each in saved:
        each[lengths.tokens :] = 0  # room that no step fills
    return y, (h, c), (saved[0], saved[1])


def native_backward(
    layer: Layer,
    lengths: Lengths,
    reverse: bool,
    y: Tensor,
    saved: Saved,
    grad_y: Tensor,
    grad_state: State,
) -> list[Tensor]:
    """Run their backward pass."""
    gradients, inputs = (grad_y, *grad_state), _arrays(layer)[:5]
    kept, count = [value.contiguous() for value in (y, *saved)], asarray(lengths.host)
    *found, bias = backward(gradients, inputs, kept, count, reverse, wants_x=True)
    return [*(value for value in found if value is not None), bias, bias.clone()]


def _arrays(layer: Layer) -> Any:
    arrays = (layer.x, layer.h0, layer.c0, *layer[4:8])
    return [value.contiguous() for value in arrays if value is not None]


NATIVE = Passes(True, native_forward, native_backward)
COMPOSED = Passes(False, composed_forward, composed_backward)


def _run(layer: Layer, lengths: Lengths, reverse: bool) -> tuple[Tensor, State]:
    pieces = _pieces(layer, lengths)
    x, h0, c0 = layer.x, layer.h0, layer.c0
    if not pieces:  # no row has a step
        return x.new_zeros(*x.shape[:2], h0.shape[1]), (h0, c0)
    y, h, c = run_layer(layer.weights, x, lengths, pieces, h0, c0, reverse=reverse)
    return y, (h, c)


def _pieces(layer: Layer, lengths: Lengths) -> tuple[Piece, ...]:
    """Plan among dense schedules alone, which is what the composed passes run."""
    costs = replace(lstm_costs(layer.x.device.type), packed_step=float("inf"), native=None)
    sizes = {"hidden_size": layer.c0.shape[1], "input_size": layer.x.shape[2]}
    return plan(lengths, costs, **sizes).pieces


def _empty(layer: Layer, rows: int) -> Saved:
    hidden = layer.c0.shape[1]
    return layer.x.new_empty(rows, 4 * hidden), layer.x.new_empty(rows, hidden)


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
    y, state, saved = passes_of(layer).forward(layer, _checked(layer), reverse, train)
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
    saved = _empty(layer, saved_rows(layer, train))
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
    found = passes_of(layer).backward(
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
