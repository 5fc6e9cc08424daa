"""The two passes of a layer in one direction, as its operator runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.alignment import flip
from ragged.recurrent.dispatch import choose
from ragged_torch.arrays import asarray, name
from ragged_torch.recurrent.cpp import backward, computed_in, forward
from ragged_torch.recurrent.dispatch import IMPLEMENTATIONS, describe
from ragged_torch.recurrent.scan import WEIGHTS
from ragged_torch.recurrent.stack import LayerInputs, State, Weights

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
        names = (*WEIGHTS, "weight_hr")
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


def passes_of(layer: Layer) -> Passes:
    """Choose the passes for a layer, whatever its lengths."""
    chosen = choose(IMPLEMENTATIONS, describe(layer.x, *_sizes(layer)))
    return NATIVE if chosen.name == "kernels" else COMPOSED


def saved_rows(layer: Layer, train: bool) -> int:
    """How many rows what is saved has: room for every step where passes save, else none."""
    return layer.x.shape[0] * layer.x.shape[1] if train and passes_of(layer).saves else 0


def composed_forward(
    layer: Layer, lengths: Lengths, reverse: bool, train: bool
) -> tuple[Tensor, State, Saved]:
    """Run whatever torch runs, and save nothing."""
    with torch.no_grad():
        y, state = _run(layer, lengths, reverse)
    return y, state, empty(layer, 0)


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
    *results, gates, cells = forward(*inputs)
    for each in (gates, cells):
        each[lengths.tokens :] = 0  # room that no step fills
    y, h, c = (each.to(layer.x.dtype) for each in results)
    return y, (h, c), (gates, cells)


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
    gradients, inputs = _computed((grad_y, *grad_state)), _arrays(layer)[:5]
    kept, count = _computed((y, *saved)), asarray(lengths.host)
    found = backward(gradients, inputs, kept, count, reverse, wants_x=True)
    own = [value.to(layer.x.dtype) for value in found if value is not None]
    return [*own, own[-1].clone()]  # either bias


def _arrays(layer: Layer) -> Any:
    return _computed((layer.x, layer.h0, layer.c0, *layer[4:8]))


def _computed(tensors: Sequence[Tensor | None]) -> list[Tensor]:
    """Give tensors as kernels compute with them."""
    given = [value for value in tensors if value is not None]
    return [value.to(computed_in(value.dtype)).contiguous() for value in given]


NATIVE = Passes(True, native_forward, native_backward)
COMPOSED = Passes(False, composed_forward, composed_backward)


def _run(layer: Layer, lengths: Lengths, reverse: bool) -> tuple[Tensor, State]:
    """Run the first implementation that there is, as a layer of one direction."""
    backend = load_backend(name)
    call = describe(layer.x, *_sizes(layer), lengths)
    x = flip(backend, layer.x, lengths) if reverse else layer.x
    parameters = {f"{own}_l0": value for own, value in layer.weights.items()}
    inputs = LayerInputs(parameters, x, lengths, (layer.h0[None], layer.c0[None]))
    y, (h, c) = choose(IMPLEMENTATIONS, call).run(inputs)
    return (flip(backend, y, lengths) if reverse else y), (h[0], c[0])


def _sizes(layer: Layer) -> tuple[int, int]:
    """The sizes of c and of a projection, 0 if there is none."""
    return layer.c0.shape[1], 0 if layer.weight_hr is None else layer.h0.shape[1]


def empty(layer: Layer, rows: int) -> Saved:
    """Make room for what is saved."""
    hidden, dtype = layer.c0.shape[1], computed_in(layer.x.dtype)
    shapes = (rows, 4 * hidden), (rows, hidden)
    gates, cells = (layer.x.new_empty(shape, dtype=dtype) for shape in shapes)
    return gates, cells
