"""CuDNN's recurrent layers on the pretended device, with what torch checks before it calls them.

It follows torch's own (aten/src/ATen/native/cudnn/RNN.cpp): how weights lie in a buffer, which
states are refused, and that a backward pass needs a forward one in training mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

FUNCTIONS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN_TANH", "rnn_relu": "RNN_RELU"}
MODES = ("RNN_RELU", "RNN_TANH", "LSTM", "GRU")  # by cuDNN's numbers
ON_HOST = {name: getattr(torch, name) for name in FUNCTIONS}

_kept: list[torch.library.Library] = []


class Settings(NamedTuple):
    """What follows the states in the arguments of cuDNN's operators."""

    mode: int
    hidden_size: int
    proj_size: int
    num_layers: int
    batch_first: bool
    dropout: float
    train: bool
    bidirectional: bool
    batch_sizes: Sequence[int]
    dropout_state: Tensor | None = None


def play(note: Callable[[str, str], None]) -> None:
    """Take the place of cuDNN's operators on the device."""
    torch.backends.cudnn.is_acceptable = lambda tensor: tensor.is_cuda  # type: ignore[attr-defined]
    library = torch.library.Library("aten", "IMPL")
    for name in ("_cudnn_rnn", "_cudnn_rnn_backward", "_cudnn_rnn_flatten_weight"):
        library.impl(name, globals()[name.removeprefix("_")](note), "CUDA")
    _kept.append(library)


def layout(weights: Sequence[Tensor], per_direction: int) -> tuple[list[int], int]:
    """Return where cuDNN has each weight, all matrices before all biases, and the buffer's size."""
    groups = [weights[k : k + per_direction] for k in range(0, len(weights), per_direction)]
    places: dict[int, int] = {}
    size = 0
    for axes in (2, 1):
        for weight in [w for group in groups for w in group if w.dim() == axes]:
            places[id(weight)], size = size, size + weight.numel()
    if all(weight.dim() == 2 for weight in weights):  # cuDNN has biases even where a layer has none
        size += sum(2 * len(group[0]) for group in groups)
    return [places[id(weight)] for weight in weights], size


def parts_of(buffer: Tensor, weights: Sequence[Tensor], per_direction: int) -> list[Tensor]:
    """Return what cuDNN reads of a buffer, and not of the weights."""
    places, size = layout(weights, per_direction)
    assert buffer.shape == (size,)
    pairs = zip(weights, places, strict=True)
    return [buffer[place : place + w.numel()].view(w.shape) for w, place in pairs]


def cudnn_rnn(note: Callable[[str, str], None]) -> Callable[..., Any]:
    """Play the forward pass."""

    def run(x: Tensor, weights: list[Tensor], stride: int, buffer: Any, *rest: Any) -> Any:
        hx, cx, settings = rest[0], rest[1], Settings(*rest[2:])
        for name, state in (("hx", hx), ("cx", cx)):
            if state is not None and not state.is_contiguous():
                raise RuntimeError(f"rnn: {name} is not contiguous")
        note("launch", "cudnn forward")
        note("cudnn packed" if settings.batch_sizes else "cudnn dense", MODES[settings.mode])
        if buffer is None:
            note("weights copied", MODES[settings.mode])
        else:
            weights = parts_of(buffer, weights, stride)
        inputs = [x, hx, *([] if cx is None else [cx]), *weights]
        with torch.no_grad():
            results = _on_host([_host(tensor) for tensor in inputs], cx is not None, settings)
        y, h, *c = [_device(result, like=x) for result in results]
        none = x.new_empty(0)
        kept = torch.zeros(1, dtype=torch.uint8, device=x.device)
        return y, h, c[0] if c else none, kept, none if buffer is None else buffer

    return run


def cudnn_rnn_backward(note: Callable[[str, str], None]) -> Callable[..., Any]:
    """Play the backward pass, by running forward again."""

    def run(x: Tensor, weights: list[Tensor], stride: int, buffer: Any, *rest: Any) -> Any:
        hx, cx, _, *grads = rest[:6]
        settings = Settings(*rest[6:16])
        if not settings.train:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        kept = _host(rest[16])
        if kept.item():
            raise RuntimeError("what the forward pass kept was overwritten by a backward pass")
        kept.add_(1)
        note("launch", "cudnn backward")
        weights = weights if buffer is None else parts_of(buffer, weights, stride)
        given = [x, hx, *([] if cx is None else [cx]), *weights]
        inputs = [_host(tensor).detach() for tensor in given]
        of_results = [None if grad is None else _host(grad) for grad in grads]
        with ThreadPoolExecutor(1) as thread:  # here autograd is switched off, below the operator
            call = thread.submit(_differentiate, inputs, of_results, cx is not None, settings)
            found = call.result()
        of_x, of_h, *others = [_device(grad, like=x) for grad in found]
        of_c = others.pop(0) if cx is not None else None
        return of_x, of_h, of_c, others

    return run


def cudnn_rnn_flatten_weight(note: Callable[[str, str], None]) -> Callable[..., Any]:
    """Move weights into one buffer."""

    def run(weights: list[Tensor], stride: int, *_: Any) -> Tensor:
        places, size = layout(weights, stride)
        buffer = weights[0].new_zeros(size)
        for weight, place in zip(weights, places, strict=True):
            view = buffer[place : place + weight.numel()].view_as(weight)
            view.copy_(weight)
            weight.set_(buffer.untyped_storage(), place, weight.shape, view.stride())
        return buffer

    return run


def _on_host(inputs: list[Tensor], has_c: bool, settings: Settings) -> Any:
    x, hx, *weights = inputs
    states: Any = (hx, weights.pop(0)) if has_c else hx
    mode = MODES[settings.mode]
    run = ON_HOST[next(name for name, value in FUNCTIONS.items() if value == mode)]
    has_biases = any(weight.dim() == 1 for weight in weights)
    options = (has_biases, settings.num_layers, settings.dropout, settings.train)
    if settings.batch_sizes:
        sizes = torch.tensor(settings.batch_sizes)
        return run(x, sizes, states, weights, *options, settings.bidirectional)
    return run(x, states, weights, *options, settings.bidirectional, settings.batch_first)


def _differentiate(
    inputs: list[Tensor], grads: list[Tensor | None], has_c: bool, settings: Settings
) -> list[Tensor]:
    leaves = [tensor.requires_grad_() for tensor in inputs]
    results = _on_host(leaves, has_c, settings)
    pairs = [(y, grad) for y, grad in zip(results, grads, strict=False) if grad is not None]
    outputs, of_outputs = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outputs, leaves, of_outputs, materialize_grads=True))


def _host(tensor: Tensor) -> Tensor:
    return torch.ops.pretended.host_view(tensor)


def _device(tensor: Tensor, like: Tensor) -> Tensor:
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device=like.device)
    _host(made).copy_(tensor)
    return made
