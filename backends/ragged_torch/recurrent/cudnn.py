"""One recurrent layer by cuDNN: weights in one buffer, no TF32 unless allowed, all derivatives.

Torch's own functions copy the weights at each call where they are not one buffer, with a warning;
they take the process's word for TF32, and have no second derivatives. These are here those of plain
operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ragged.recurrent.cells import CELLS
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.precision import allows_tf32, float32_products
from ragged_torch.recurrent.cells import STEPS
from ragged_torch.recurrent.stack import State, Weights
from ragged_torch.recurrent.torch_layer import call_torch

MODES = {"RNN_RELU": 0, "RNN_TANH": 1, "LSTM": 2, "GRU": 3}  # cuDNN's numbers


class Call(NamedTuple):
    """What a call has beside its differentiable tensors.

    Args:
        mode: of the cell.
        names: of the weights of a direction.
        directions: 1 or 2.
        batch_sizes: of packed data, on the CPU; None = the data is `(time, batch, features)`.
        tf32: whether float32 may be computed in it.
        train: whether there will be a backward pass.
    """

    mode: str
    names: tuple[str, ...]
    directions: int
    batch_sizes: Tensor | None
    tf32: bool
    train: bool

    def split(self, tensors: Sequence[Tensor]) -> tuple[Tensor, State, list[Weights]]:
        """Give data, states and the weights of each direction."""
        data, h0, c0, *weights = tensors
        size = len(self.names)
        groups = [weights[k : k + size] for k in range(0, len(weights), size)]
        return data, (h0, c0), [dict(zip(self.names, group, strict=True)) for group in groups]

    def settings(self, weights: Sequence[Tensor], size: int) -> tuple[Any, ...]:
        """Give the arguments that both of cuDNN's passes take after the states."""
        sizes = [] if self.batch_sizes is None else self.batch_sizes.tolist()
        is_batch_first, dropout, both = False, 0.0, self.directions == 2
        numbers = _numbers(self.mode, weights[0], size)
        return (*numbers, 1, is_batch_first, dropout, self.train, both, sizes, None)


def run_layer(
    mode: str,
    weights: list[Weights],
    data: Tensor,
    state: State,
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Run one layer as `call_torch` does; where that is not by cuDNN, it does."""
    if not _is_by_cudnn(data):
        return call_torch(mode, weights, data, state, batch_sizes)
    tensors = (data, *state, *(weight for each in weights for weight in each.values()))
    train = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    call = Call(mode, tuple(weights[0]), len(weights), batch_sizes, allows_tf32(), train)
    y, h, c = _Layer.apply(call, *tensors) if train else _run(call, tensors)[:3]
    return y, (h, c if mode == "LSTM" else state[1])


def _is_by_cudnn(data: Tensor) -> bool:
    is_candidate = data.is_cuda and torch.version.hip is None
    return is_candidate and bool(torch.backends.cudnn.is_acceptable(data))


def _run(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run forward: y, h, c, what the backward pass needs, and the buffer of the weights."""
    data, h0, c0, *weights = tensors
    stride, size = len(call.names), h0.shape[2]
    buffer = buffer_of(call.mode, weights, stride, size)
    if buffer is None:  # torch would copy weight by weight, and warn
        buffer = gather(call.mode, weights, stride, size)
    states = h0.contiguous(), c0.contiguous() if call.mode == "LSTM" else None
    with float32_products(tf32=call.tf32):
        results: tuple[Tensor, ...] = torch.ops.aten._cudnn_rnn(
            data, weights, stride, buffer, *states, *call.settings(weights, size)
        )
    return results


class _Layer(torch.autograd.Function):
    """CuDNN's two passes; further derivatives are those of plain operations."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        y, h, c, kept, buffer = _run(call, tensors)
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, y, kept, buffer)
        return y, h, c

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        *tensors, y, kept, buffer = ctx.saved_tensors  # once: checkpointing recomputes otherwise
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return (None, *_differentiable_gradients(ctx.call, tensors, needed, grads))
        if torch._C._autograd._get_current_graph_task_keep_graph():
            kept = kept.clone()  # cuDNN's backward pass writes into it
        return (None, *_backward(ctx.call, tensors, y, kept, buffer, needed, grads))


def _backward(
    call: Call,
    tensors: Sequence[Tensor],
    y: Tensor,
    kept: Tensor,
    buffer: Tensor,
    needed: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    data, h0, c0, *weights = tensors
    is_lstm = call.mode == "LSTM"
    states = h0.contiguous(), c0.contiguous() if is_lstm else None
    of_y, of_h, of_c = grads
    mask = [needed[0], needed[1], is_lstm and needed[2], any(needed[3:])]
    with float32_products(tf32=call.tf32):
        of_data, of_h0, of_c0, of_weights = torch.ops.aten._cudnn_rnn_backward(
            *(data, weights, len(call.names), buffer, *states, y, of_y, of_h),
            *(of_c if is_lstm else None, *call.settings(weights, h0.shape[2]), kept, mask),
        )
    found = [of_data, of_h0, of_c0, *(of_weights or [None] * len(weights))]
    return [grad if wanted else None for grad, wanted in zip(found, needed, strict=True)]


def _differentiable_gradients(
    call: Call, tensors: Sequence[Tensor], needed: Sequence[bool], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    # Views: an input may depend on another, which counts once, in the graph around this call.
    inputs = [tensor.view_as(tensor) for tensor in tensors]
    y, state = run_plainly(call, inputs)
    results = [(r, grad) for r, grad in zip((y, *state), grads, strict=True) if grad is not None]
    wanted = [tensor for tensor, is_needed in zip(inputs, needed, strict=True) if is_needed]
    outputs, of_outputs = zip(*results, strict=True)
    options = {"create_graph": True, "allow_unused": True}
    found = iter(torch.autograd.grad(outputs, wanted, of_outputs, **options))
    return [next(found) if is_needed else None for is_needed in needed]


def run_plainly(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, State]:
    """Run a layer as plain operations, step by step."""
    data, (h0, c0), weights = call.split(tensors)
    is_packed = call.batch_sizes is not None
    sizes = [data.shape[1]] * len(data) if call.batch_sizes is None else call.batch_sizes.tolist()
    flat = data if is_packed else data.flatten(0, 1)
    if call.mode != "LSTM":
        c0 = h0[..., :0]
    results = [
        _run_direction(call.mode, each, flat, (h0[k], c0[k]), sizes, reverse=k == 1)
        for k, each in enumerate(weights)
    ]
    ys, hs, cs = zip(*results, strict=True)
    y = torch.cat(ys, -1)
    y = y if is_packed else y.unflatten(0, data.shape[:2])
    return y, (torch.stack(hs), torch.stack(cs))


def _run_direction(
    mode: str, weights: Weights, data: Tensor, state: State, sizes: list[int], *, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the rows that have each step: the first ones, as many as `sizes` says."""
    of_x = data @ weights["weight_ih"].T
    of_x = of_x + weights["bias_ih"] if "bias_ih" in weights else of_x
    (h, c), ys, steps = state, [], list(of_x.split(sizes))
    for step in reversed(steps) if reverse else steps:
        count = len(step)
        of_h = h[:count] @ weights["weight_hh"].T
        of_h = of_h + weights["bias_hh"] if "bias_hh" in weights else of_h
        (new_h, new_c), _ = STEPS[mode].fwd(step, of_h, (h[:count], c[:count]))
        new_h = new_h @ weights["weight_hr"].T if "weight_hr" in weights else new_h
        h, c = torch.cat([new_h, h[count:]]), torch.cat([new_c, c[count:]])
        ys.append(new_h)
    return torch.cat(ys[::-1] if reverse else ys), h, c


def flatten(mode: str, weights: Sequence[Tensor], stride: int, size: int) -> Tensor:
    """Move a layer's weights, in place, into one buffer as cuDNN has it, and return it.

    Args:
        mode: of the cell.
        weights: of all directions, in torch's order.
        stride: how many a direction has.
        size: of h.
    """
    with torch.no_grad(), torch.cuda.device_of(weights[0]):
        buffer: Tensor = torch._cudnn_rnn_flatten_weight(
            *(list(weights), stride, weights[0].shape[1], *_numbers(mode, weights[0], size)),
            *(1, False, len(weights) > stride),  # layers, batch first, bidirectional
        )
    return buffer


def flatten_parameters(module: nn.Module, shape: RecurrentShape) -> None:
    """Move a layer's parameters, in place, into buffers that cuDNN takes as they are.

    Each layer has one. Parameters that share memory, or are more than plain ones, stay as they are.
    """
    size = shape.proj_size or shape.hidden_size
    for layer in range(shape.num_layers):
        names = [shape.layer_names(layer, each).values() for each in shape.directions]
        weights: list[Any] = [module._parameters.get(name) for each in names for name in each]
        if _can_move(weights):
            flatten(shape.mode, weights, len(weights) // len(names), size)


def _can_move(weights: Sequence[Any]) -> bool:
    if not all(type(weight) is nn.Parameter for weight in weights):
        return False
    first = weights[0]
    if not _is_by_cudnn(first):
        return False
    is_alike = all((w.device, w.dtype) == (first.device, first.dtype) for w in weights)
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    return is_alike and len(own) == len(weights)


def buffer_of(mode: str, weights: Sequence[Tensor], stride: int, size: int) -> Tensor | None:
    """Return the buffer that weights are all of; None where they are not one, or in another order.

    Args are those of `flatten`.
    """
    first = weights[0]
    storage = first.untyped_storage()
    memory = storage.data_ptr()
    if any(weight.untyped_storage().data_ptr() != memory for weight in weights):
        return None
    shapes = tuple(tuple(weight.shape) for weight in weights)
    places, elements = _layout(mode, shapes, stride, size, first.dtype, first.device)
    found = tuple(weight.storage_offset() for weight in weights)
    is_dense = all(weight.is_contiguous() for weight in weights)
    if found != places or not is_dense or storage.nbytes() < elements * first.element_size():
        return None
    return first.detach().as_strided((elements,), (1,), 0)


def gather(mode: str, weights: Sequence[Tensor], stride: int, size: int) -> Tensor | None:
    """Copy weights that are not one buffer into one, by one launch; None where cuDNN leaves gaps.

    Args are those of `flatten`.
    """
    first, shapes = weights[0], tuple(tuple(weight.shape) for weight in weights)
    places, elements = _layout(mode, shapes, stride, size, first.dtype, first.device)
    inside = [weights[k] for k in sorted(range(len(places)), key=places.__getitem__)]
    ends = [0, *accumulate(weight.numel() for weight in inside)]
    if sorted(places) != ends[:-1]:
        return None
    rest = first.new_zeros(elements - ends[-1])  # of biases, which cuDNN has where a layer has none
    return torch.cat([*(weight.detach().reshape(-1) for weight in inside), rest])


@lru_cache(maxsize=256)
def _layout(
    mode: str,
    shapes: tuple[tuple[int, ...], ...],
    stride: int,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[tuple[int, ...], int]:
    """Return where in its buffer cuDNN has each weight, and the buffer's size."""
    weights = [torch.empty(shape, dtype=dtype, device=device) for shape in shapes]
    buffer = flatten(mode, weights, stride, size)
    return tuple(int(weight.storage_offset()) for weight in weights), buffer.numel()


def _numbers(mode: str, weight_ih: Tensor, size: int) -> tuple[int, int, int]:
    """Give cuDNN's number of a cell, its hidden size, and that of its projection or 0."""
    hidden = len(weight_ih) // CELLS[mode].gates
    return MODES[mode], hidden, 0 if size == hidden else size
