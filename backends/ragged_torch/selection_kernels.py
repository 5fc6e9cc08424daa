"""Variable selection by kernels of our own on a CPU, which compute again in the backward pass.

Whatever else is to see the steps between, a compiler, a transformation, a hook, gets them from the
modules themselves, which give the same numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ragged import kernels
from ragged.kernels.recipe import SELECTION, SELECTION_FUNCTIONS, SOURCES
from ragged_torch.addresses import find_team, readable
from ragged_torch.layers import GLU, GRN, Dropout, Interpolation, LayerNorm, Linear, spread
from ragged_torch.ragged_attention.dropout import keep_mask
from ragged_torch.transforms import FakeTensor, in_memory

SOURCE = kernels.HEADERS / SOURCES[SELECTION]
WIDEST = 160  # a wider network's parameters leave the cache: products of all tokens are faster
PARTS: dict[str, type[nn.Module]] = {  # of the copies of a GRN that the kernels compute
    "": GRN,
    "hidden": Linear,
    "output": Linear,
    "gate": GLU,
    "gate.dropout": Dropout,
    "gate.linear": Linear,
    "residual": Interpolation,
    "residual.norm": LayerNorm,
    "norm": LayerNorm,
}


class Networks(NamedTuple):
    """What the GRNs of all features compute with, each `(features, ...)`, in the kernels' order."""

    hidden: Tensor
    hidden_bias: Tensor
    output: Tensor
    output_bias: Tensor
    gate: Tensor
    gate_bias: Tensor
    stretch: Tensor
    inner_weight: Tensor
    inner_bias: Tensor
    weight: Tensor
    bias: Tensor


class Dropping(NamedTuple):
    """The share that is dropped before the gate, and the seed of what is."""

    rate: float = 0.0
    seed: int = 0


def takes_kernels(grns: GRN, x: Tensor, weights: Tensor) -> bool:
    """Whether kernels select among features; see `select`.

    Where tokens are fewer than the result is wide, laying the parameters out would take longest.
    """
    if torch.compiler.is_compiling() or isinstance(x, FakeTensor) or not x.is_cpu:
        return False
    size = grns.norm.weight.shape[-1]
    if size > min(WIDEST, weights.shape[:-1].numel()) or torch.is_autocast_enabled("cpu"):
        return False
    tensors = (x, weights, *grns.parameters())
    are_alike = all(each.is_cpu and each.dtype == x.dtype for each in tensors)
    is_fit = are_alike and in_memory(*tensors) and _is_untouched(grns)
    return is_fit and kernels.available() and _load(x.dtype) is not None


def select(grns: GRN, x: Tensor, weights: Tensor) -> Tensor:
    """Sum what copies of a GRN make of their features, weighted: `(..., size)`.

    Args:
        grns: the copies, whose residual is stretched.
        x: `(features, ..., inputs)`.
        weights: `(..., features)`.
    """
    dropout, places = grns.gate.dropout, weights.shape[:-1]
    drops = dropout.training and dropout.p > 0
    dropping = Dropping(dropout.p, int(torch.randint(2**62, ()))) if drops else Dropping()
    tokens, apply = (x.flatten(1, -2), weights.flatten(0, -2)), _Selection.apply
    selected: Tensor = apply(*tokens, *networks_of(grns, x), dropping)
    return selected.unflatten(0, places)


def networks_of(grns: GRN, x: Tensor) -> Networks:
    """Take from copies of a GRN what they compute with on `x`."""
    inner: Any = grns.residual
    before: Any = (grns.hidden, grns.output, grns.gate.linear)
    after: Any = (inner.norm, grns.norm)
    of_linears, of_norms = (
        [each for layer in layers for each in (layer.weight, layer.bias)]
        for layers in (before, after)
    )
    return Networks._make((*of_linears, inner.stretch(x), *of_norms))


def _is_untouched(grns: GRN) -> bool:
    """Whether nobody else would see, or has replaced, what the modules within do."""
    parts = dict(grns.named_modules())
    if parts.keys() != PARTS.keys() or nn.modules.module._has_any_global_hook():
        return False
    return all(type(part) is PARTS[name] and not _is_watched(part) for name, part in parts.items())


def _is_watched(module: nn.Module) -> bool:
    before = module._forward_pre_hooks, module._backward_pre_hooks
    return any((*before, module._forward_hooks, module._backward_hooks)) or (
        "forward" in module.__dict__
    )


class _Selection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, dropping = inputs
        ctx.save_for_backward(*tensors)
        ctx.dropping = dropping
        networks = Networks(*tensors[2:])
        out: Tensor = tensors[0].new_empty(tensors[0].shape[1], networks.weight.shape[1])
        _call("selection_forward", tensors, dropping, (), (out,))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        tensors, (gradient,) = ctx.saved_tensors, gradients
        if torch.is_grad_enabled() or not in_memory(gradient, *tensors):
            return *_differentiable_vjp(tensors, ctx.dropping, gradient), None
        results = tuple(each.new_empty(each.shape) for each in tensors)
        size = Networks(*tensors[2:]).weight.shape[1]
        given = ((gradient, (len(tensors[1]), size)),)
        _call("selection_backward", tensors, ctx.dropping, given, results)
        return *results, None


def _differentiable_vjp(
    tensors: Sequence[Tensor], dropping: Dropping, gradient: Tensor
) -> tuple[Tensor, ...]:
    """Return what `backward` does, by plain operations, which have derivatives of their own."""

    def run(*each: Tensor) -> Tensor:
        return _plain(each[0], each[1], Networks(*each[2:]), dropping)

    results: tuple[Tensor, ...] = torch.func.vjp(run, *tensors)[1](gradient)
    return results


def _plain(x: Tensor, weights: Tensor, networks: Networks, dropping: Dropping) -> Tensor:
    """Return what the kernels do: `x (features, tokens, inputs)`, `weights (tokens, features)`."""
    hidden = torch.baddbmm(networks.hidden_bias[:, None], x, networks.hidden.mT)
    y = torch.baddbmm(networks.output_bias[:, None], nn.functional.elu(hidden), networks.output.mT)
    if dropping.rate:
        kept = keep_mask(torch.tensor(dropping.seed), dropping.rate, (1, *y.shape))[0]
        y = torch.where(kept, y * (1 / (1 - dropping.rate) if dropping.rate < 1 else 0.0), 0.0)
    gated = nn.functional.glu(torch.baddbmm(networks.gate_bias[:, None], y, networks.gate.mT))
    inner = _norm(x @ networks.stretch, networks.inner_weight, networks.inner_bias)
    values = _norm(gated + inner, networks.weight, networks.bias)
    return torch.einsum("tf,ftd->td", weights, values)


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    normalised = nn.functional.layer_norm(x, x.shape[-1:])
    return torch.addcmul(spread(bias, x), normalised, spread(weight, x))


def _call(
    function: str,
    tensors: Sequence[Tensor],
    dropping: Dropping,
    given: Sequence[tuple[Tensor, Sequence[int]]],
    outputs: Sequence[Tensor],
) -> None:
    """Call a function of the library; it lets go of Python meanwhile.

    This is the one place where addresses leave Python: `outputs` were made for the call, and all
    else is checked.
    """
    (features, tokens, inputs), dtype = tensors[0].shape, tensors[0].dtype
    networks = Networks(*tensors[2:])
    hidden, size = networks.hidden.shape[1], networks.output.shape[1]
    wide, narrow = (features, size), (features, hidden)
    shapes = (
        *((features, tokens, inputs), (tokens, features)),
        *((*narrow, inputs), narrow, (*wide, hidden), wide),
        *((features, 2 * size, size), (features, 2 * size), (features, inputs, size)),
        *(wide,) * 4,
    )
    arrays = [readable(each, shape, dtype) for each, shape in zip(tensors, shapes, strict=True)]
    arrays += [readable(each, shape, dtype) for each, shape in given]
    sizes = features, tokens, inputs, hidden, size, dropping.seed, torch.get_num_threads(), True
    addresses = [array.data_ptr() for array in (*arrays, *outputs)]
    run = getattr(_load(dtype), function)
    status = run(Sizes(*sizes), dropping.rate, Addresses(*addresses), find_team())
    kernels.raise_status(status, "variable selection")


Sizes = ctypes.c_int64 * 8  # what a function of the library takes, beside the rate and the team
Addresses = ctypes.c_void_p * 27  # as many as the backward pass has


@cache
def _load(dtype: torch.dtype) -> ctypes.CDLL | None:
    library = kernels.load(SOURCE, SELECTION, str(dtype).removeprefix("torch."))
    for function in SELECTION_FUNCTIONS if library else ():
        types = (Sizes, ctypes.c_double, Addresses, ctypes.c_void_p)
        getattr(library, function).argtypes = types
    return library
