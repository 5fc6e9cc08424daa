"""The two passes of a layer in one direction, as its operator runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.alignment import flip
from ragged.recurrent.cells import CELLS
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.arrays import asarray, name
from ragged_torch.recurrent import cpp, scan
from ragged_torch.recurrent.cpp import computed_in
from ragged_torch.recurrent.dispatch import IMPLEMENTATIONS, describe, run_by_choice
from ragged_torch.recurrent.scan import WEIGHTS
from ragged_torch.recurrent.stack import LayerInputs, Resets, State, Weights, take_apart


class Layer(NamedTuple):
    """The tensors that the operator takes.

    Args:
        x: `(batch, time, features)`, left aligned; padding may hold anything.
        lengths: `(batch,)`, int64, on the CPU or on a GPU with the rest.
        h0: `(batch, size)`, where size is that of h: a projection's if there is one.
        c0: `(batch, hidden)`, or `(batch, 0)` for a cell without c.
        weight_ih: `(gates * hidden, features)`.
        weight_hh: `(gates * hidden, size)`.
        bias_ih: `(gates * hidden,)`, zeros for a layer without biases, like `bias_hh`.
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
        """The parameters by name."""
        names = (*WEIGHTS, "weight_hr")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def differentiable(self) -> list[Tensor]:
        """All tensors that have a gradient, in order."""
        return [value for value in (self.x, *self[2:]) if value is not None]

    @classmethod
    def of(cls, lengths: Tensor, differentiable: Sequence[Tensor]) -> Layer:
        """Undo `differentiable`."""
        return cls(differentiable[0], lengths, *differentiable[1:])

    def detached(self) -> Layer:
        """The same tensors, detached from the graph."""
        tensors = {k: value.detach() for k, value in self._asdict().items() if value is not None}
        return Layer(**tensors)

    def shape(self, mode: str) -> RecurrentShape:
        """The sizes of this one layer."""
        proj_size = 0 if self.weight_hr is None else self.h0.shape[1]
        hidden_size = self.weight_ih.shape[0] // CELLS[mode].gates
        return RecurrentShape(self.x.shape[2], hidden_size, proj_size=proj_size, mode=mode)


class Passes(NamedTuple):
    """The two passes of a layer.

    Args:
        saves: whether `forward` saves values for `backward`.
        forward: `(layer, lengths, resets, mode, reverse, train) -> (y, (h, c), kept)`, with kept of
            as many rows as `saved_rows` says.
        backward: `(layer, lengths, resets, mode, reverse, y, kept, (grad_y, grad_h, grad_c)) ->`
            the gradients of `layer.differentiable`.
    """

    saves: bool
    forward: Callable[..., tuple[Tensor, State, Tensor]]
    backward: Callable[..., list[Tensor]]


def passes_of(layer: Layer, mode: str) -> Passes:
    """Choose the passes of a layer for any lengths."""
    # The C++ kernels come first. The others are composed, and chosen among when they run: compilers
    # ask here too, while nothing can be tried out.
    kernels, *_ = IMPLEMENTATIONS
    reason = kernels.unsupported_reason(describe(layer.x, layer.shape(mode)))
    return COMPOSED if reason else KERNELS


def saved_rows(layer: Layer, mode: str, train: bool) -> int:
    """Return the number of saved rows: one for every step where the passes save, else 0."""
    saves = train and passes_of(layer, mode).saves
    return layer.x.shape[0] * layer.x.shape[1] if saves else 0


def composed_forward(
    layer: Layer, lengths: Lengths, resets: Resets | None, mode: str, reverse: bool, train: bool
) -> tuple[Tensor, State, Tensor]:
    """Run the first implementation that can, and save nothing."""
    with torch.no_grad():
        y, state = run_layer(layer, lengths, resets, mode, reverse)
    return y, state, empty(layer, mode, 0)


def composed_backward(
    layer: Layer,
    lengths: Lengths,
    resets: Resets | None,
    mode: str,
    reverse: bool,
    y: Tensor,
    kept: Tensor,
    gradients: Sequence[Tensor],
) -> list[Tensor]:
    """Run forward again, and differentiate by autograd."""
    layer = layer.detached()
    leaves = [value.requires_grad_() for value in layer.differentiable]
    with torch.enable_grad():
        y, state = run_layer(layer, lengths, resets, mode, reverse)
    pairs = zip((y, *state), gradients, strict=True)
    outputs, grads = zip(*(pair for pair in pairs if pair[0].requires_grad), strict=True)
    return list(torch.autograd.grad(outputs, leaves, grads, materialize_grads=True))


def kernels_forward(
    layer: Layer, lengths: Lengths, resets: Resets | None, mode: str, reverse: bool, train: bool
) -> tuple[Tensor, State, Tensor]:
    """Run ragged's kernels."""
    count = asarray(lengths.host)  # the checked copy, not the tensor
    inputs = _computed([layer.x, layer.h0, layer.c0, *layer[4:8]])
    at, start = take_apart(resets)
    call = cpp.Call(mode, lengths.width, reverse, start=start)
    tokens = saved_rows(layer, mode, train)
    run: Any = cpp.forward
    *results, kept = run(*inputs, count, at, call, tokens)
    kept[lengths.tokens :] = 0  # rows beyond the tokens
    y, h, c = (result.to(layer.x.dtype) for result in results)
    return y, (h, c), kept


def kernels_backward(
    layer: Layer,
    lengths: Lengths,
    resets: Resets | None,
    mode: str,
    reverse: bool,
    y: Tensor,
    kept: Tensor,
    gradients: Sequence[Tensor],
) -> list[Tensor]:
    """Run their backward pass."""
    inputs = _computed((layer.x, layer.h0, layer.c0, *layer[4:6]))
    y, kept, *gradients = _computed((y, kept, *gradients))
    at, start = take_apart(resets)
    call, count = cpp.Call(mode, lengths.width, reverse, start=start), asarray(lengths.host)
    results = cpp.backward(gradients, inputs, y, kept, count, at, call, wants_x=True)
    return [value.to(layer.x.dtype) for value in results if value is not None]


def _computed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Convert tensors to the dtype and memory format of the kernels."""
    return [value.to(computed_in(value.dtype)).contiguous() for value in tensors]


KERNELS = Passes(True, kernels_forward, kernels_backward)
COMPOSED = Passes(False, composed_forward, composed_backward)


def run_layer(
    layer: Layer,
    lengths: Lengths,
    resets: Resets | None,
    mode: str,
    reverse: bool,
    *,
    run: Callable[[LayerInputs], tuple[Tensor, State]] = run_by_choice,
) -> tuple[Tensor, State]:
    """Run a layer of one direction: y, and h and c.

    Args:
        layer: its tensors.
        lengths: of its rows.
        resets: of its rows; None = none.
        mode: of the cell.
        reverse: read each row from its last valid step back.
        run: runs a layer that reads its rows from the first step on.
    """
    backend, shape = load_backend(name), layer.shape(mode)
    x = flip(backend, layer.x, lengths) if reverse else layer.x
    parameters = {f"{key}_l0": value for key, value in layer.weights.items()}
    inputs = LayerInputs(shape, parameters, x, lengths, (layer.h0[None], layer.c0[None]))
    if resets is not None:
        at = scan.fresh_steps(resets, lengths, reverse=reverse)
        inputs = inputs._replace(resets=resets._replace(at=at))
    y, (h, c) = run(inputs)
    return (flip(backend, y, lengths) if reverse else y), (h[0], c[0])


def empty(layer: Layer, mode: str, rows: int) -> Tensor:
    """Allocate the saved values."""
    shape = layer.shape(mode)
    features = CELLS[mode].kept * shape.hidden_size
    return layer.x.new_empty((rows, features), dtype=computed_in(layer.x.dtype))
