"""Gated residual networks by kernels of our own on a CPU, which compute again in the backward pass.

Whatever else is to see the steps between, a compiler, a transformation, a hook, gets them from the
modules themselves, which give the same numbers.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ragged import kernels
from ragged.kernels.gated import WIDEST_ALONE, Given, Networks, split
from ragged.kernels.recipe import GATED, GATED_FUNCTIONS, SOURCES
from ragged_torch.addresses import find_team, readable, room_like
from ragged_torch.dropped import keep_mask
from ragged_torch.parameters import spread
from ragged_torch.transforms import FakeTensor, in_memory, quick_apply

SOURCE = kernels.HEADERS / SOURCES[GATED]
WIDEST = 160  # wider networks' parameters leave the cache: products of all tokens are faster
NONE = (None,)
Shape = tuple[int, ...]
Kinds = tuple[type[nn.Module], ...]


class Parts(NamedTuple):
    """The modules of a block whose work kernels do, itself the first, and the types they had.

    Args:
        modules: in the order of what they learn; None where one was taken away.
        kinds: their types.
        dropout: the one of them before the gate.
        parameters: what they learn, None where one was taken away.
    """

    modules: tuple[nn.Module | None, ...]
    kinds: Kinds
    dropout: Any
    parameters: list[Any]

    @classmethod
    def of(cls, modules: tuple[nn.Module | None, ...], kinds: Kinds, dropout: Any) -> Parts:
        """Look up what modules learn: by attributes it would take longer than few tokens do."""
        learned = [each for part in modules if part for each in part._parameters.values()]
        return cls(modules, kinds, dropout, learned)

    @property
    def are_untouched(self) -> bool:
        """Whether nobody else would see, or has replaced, what the modules do."""
        if nn.modules.module._has_any_global_hook() or (*map(type, self.modules),) != self.kinds:
            return False
        for part in self.modules:
            if part is None or "forward" in part.__dict__ or part._forward_hooks:
                return False
            if part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
                return False
        return True


def submodules(module: nn.Module | None, *names: str) -> list[Any]:
    """Look modules up by name, None where there is none: by attributes it would take longer."""
    own: dict[str, nn.Module | None] = module._modules if module else {}
    return [own.get(name) for name in names]


class Dropping(NamedTuple):
    """The share that is dropped before the gate, and the seed of what is."""

    rate: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, dropout: Any) -> Dropping:
        """Draw a seed where a layer drops something."""
        drops = dropout.training and dropout.p > 0
        return cls(dropout.p, int(torch.randint(2**62, ()).item())) if drops else cls()


class Call(NamedTuple):
    """What is told of a call beside its arrays.

    Args:
        shapes: of what is given and of what the networks learn, then of the result.
        sizes: features, tokens, inputs, hidden units, outputs, and whether x is stretched.
        dropping: before the gate.
    """

    shapes: tuple[Shape, ...]
    sizes: tuple[int, ...]
    dropping: Dropping

    @classmethod
    def of(cls, given: Given[Tensor], networks: Networks[Tensor], dropping: Dropping) -> Call:
        """Tell what the shapes of x and of some parameters say of all others."""
        *places, inputs = given.x.shape
        size, is_stretched = networks.weight.shape[-1], networks.stretch is not None
        hidden = 0 if networks.hidden is None else networks.hidden.shape[-2]
        copies = [] if given.weights is None else [places.pop()]
        of_result = (*places, size)
        shapes = (*_shapes(copies, places, inputs, hidden, size), of_result)
        tokens = math.prod(places)
        sizes = copies[0] if copies else 1, tokens, inputs, hidden, size, is_stretched
        return cls(shapes, sizes, dropping)


def takes_kernels(parts: Parts, x: Tensor, *others: Tensor | None) -> bool:
    """Whether kernels do the work of modules on what tokens have: see `Given`.

    Where a wide result has fewer tokens, laying the parameters out would take longest.
    """
    if torch.compiler.is_compiling() or isinstance(x, FakeTensor) or not x.is_cpu:
        return False
    tensors, dtype = [x, *(each for each in others if each is not None), *parts.parameters], x.dtype
    if not all(each is not None and each.is_cpu and each.dtype is dtype for each in tensors):
        return False
    if not (parts.are_untouched and in_memory(*tensors)) or torch.is_autocast_enabled("cpu"):
        return False
    *copies, size = tensors[-1].shape
    widest, tokens = WIDEST if copies else WIDEST_ALONE, x.shape[: -1 - len(copies)].numel()
    is_fit = tokens > 0 and size <= min(widest, max(tokens, WIDEST_ALONE))
    return is_fit and kernels.is_enabled() and _load(dtype) is not None


def select(parts: Parts, x: Tensor, weights: Tensor) -> Tensor:
    """Sum what copies of a GRN make of their features, weighted: `(..., size)`.

    Args:
        parts: of the copies, whose residual is stretched.
        x: `(..., features, inputs)`.
        weights: `(..., features)`.
    """
    return _run(Given(x, weights), networks_of(parts, x), parts.dropout)


def run_grn(parts: Parts, x: Tensor, added: Tensor | None) -> Tensor:
    """Run a GRN on tokens, with what its context adds to the hidden units of each."""
    grn: Any = parts.modules[0]
    residual = None if grn.is_stretched or grn.residual is None else grn.residual(x)
    if added is not None and x.ndim > 2:  # the steps of a row share its context
        added = added.expand(*x.shape[:-1], -1)
    given = Given(x, added=added, residual=residual)
    return _run(given, networks_of(parts, x), parts.dropout)


def run_gate(parts: Parts, x: Tensor, residual: Tensor) -> Tensor:
    """Run a GateAddNorm on tokens."""
    *of_gate, weight, bias = parts.parameters
    networks: Networks[Tensor] = Networks._make((*NONE * 4, *of_gate, *NONE * 3, weight, bias))
    return _run(Given(x, residual=residual), networks, parts.dropout)


def networks_of(parts: Parts, x: Tensor) -> Networks[Tensor]:
    """Take from the parts of a GRN, or of copies of one, what it computes with on `x`."""
    grn: Any = parts.modules[0]
    learned, inner = parts.parameters, NONE * 3
    if grn.is_stretched:
        *learned, _, inner_weight, inner_bias = learned
        inner = grn.residual.stretch(x), inner_weight, inner_bias
    *layers, weight, bias = learned
    return Networks._make((*layers, *inner, weight, bias))


def _run(given: Given[Tensor], networks: Networks[Tensor], dropout: Any) -> Tensor:
    output: Tensor = _apply(*given, *networks, Call.of(given, networks, Dropping.of(dropout)))
    return output


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, call = inputs
        ctx.save_for_backward(*tensors)
        ctx.call = call
        out: Tensor = tensors[0].new_empty(call.shapes[-1])
        _call("gated_forward", tensors, call, (out,))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        tensors, (gradient,) = ctx.saved_tensors, gradients
        present = [each for each in tensors if each is not None]
        if torch.is_grad_enabled() or not in_memory(gradient, *present):
            found = iter(_differentiable_vjp(tensors, ctx.call.dropping, gradient))
            return *(None if each is None else next(found) for each in tensors), None
        results = [None if each is None else room_like(each) for each in tensors]
        _call("gated_backward", (*tensors, gradient), ctx.call, results)
        return *results, None


_apply = quick_apply(_Gated)


def _differentiable_vjp(
    tensors: Sequence[Tensor | None], dropping: Dropping, gradient: Tensor
) -> tuple[Tensor, ...]:
    """Return what `backward` does for the tensors there are, by operations with derivatives."""

    def run(*present: Tensor) -> Tensor:
        each = iter(present)
        return _plain(*split([None if one is None else next(each) for one in tensors]), dropping)

    present = (each for each in tensors if each is not None)
    results: tuple[Tensor, ...] = torch.func.vjp(run, *present)[1](gradient)
    return results


def _plain(given: Given[Tensor], networks: Networks[Tensor], dropping: Dropping) -> Tensor:
    """Return what the kernels do."""
    x, weights, added, residual = given
    x = y = x if weights is None else x.movedim(-2, 0)
    if networks.hidden is not None:
        hidden = _linear(x, networks.hidden, networks.hidden_bias)
        hidden = nn.functional.elu(hidden if added is None else hidden + added)
        y = _linear(hidden, networks.output, networks.output_bias)
    if dropping.rate:
        tokens = (y.shape[0] if weights is not None else 1, -1, y.shape[-1])
        shape = (1, *y.reshape(tokens).shape)
        kept = keep_mask(torch.tensor(dropping.seed), dropping.rate, shape).view(y.shape)
        y = torch.where(kept, y * (1 / (1 - dropping.rate) if dropping.rate < 1 else 0.0), 0.0)
    gated = nn.functional.glu(_linear(y, networks.gate, networks.gate_bias))
    if networks.stretch is not None:
        stretched = _linear(x, networks.stretch.mT)
        residual = _norm(stretched, networks.inner_weight, networks.inner_bias)
    values = _norm(gated + (x if residual is None else residual), networks.weight, networks.bias)
    return values if weights is None else torch.einsum("...f,f...d->...d", weights, values)


def _linear(x: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor:
    if weight.ndim == 2:
        return nn.functional.linear(x, weight, bias)
    product = (x.flatten(1, -2) @ weight.mT).unflatten(1, x.shape[1:-1])
    return product if bias is None else product + spread(bias, x)


def _norm(x: Tensor, weight: Any, bias: Any) -> Tensor:
    normalised = nn.functional.layer_norm(x, x.shape[-1:])
    return torch.addcmul(spread(bias, x), normalised, spread(weight, x))


def _call(
    function: str,
    inputs: Sequence[Any],
    call: Call,
    outputs: Sequence[Tensor | None],
) -> None:
    """Call a function of the library; it lets go of Python meanwhile.

    This is the one place where addresses leave Python: `outputs` were made for the call, and all
    else is checked.
    """
    dtype = inputs[0].dtype
    arrays = [
        None if each is None else readable(each, shape, dtype)
        for each, shape in zip(inputs, call.shapes, strict=False)
    ]
    addresses = [0 if each is None else each.data_ptr() for each in (*arrays, *outputs)]
    rate, seed = call.dropping
    sizes = Sizes(*call.sizes, seed, torch.get_num_threads(), True)
    status = getattr(_load(dtype), function)(sizes, rate, Addresses(*addresses), find_team())
    kernels.raise_status(status, "gated residual network")


def _shapes(
    copies: Sequence[int], places: Sequence[int], inputs: int, hidden: int, size: int
) -> tuple[Shape, ...]:
    """The shapes of what is given and of what the networks learn."""
    wide, narrow = (*copies, size), (*copies, hidden)
    return (
        (*places, *copies, inputs),
        *((*places, *copies), (*places, hidden), (*places, size)),
        *((*narrow, inputs), narrow, (*wide, hidden), wide),
        *((*copies, 2 * size, size), (*copies, 2 * size), (*copies, inputs, size)),
        *(wide,) * 4,
    )


Sizes = ctypes.c_int64 * 9  # what a function of the library takes, beside the rate and the team
Addresses = ctypes.c_void_p * 31  # as many as the backward pass has


@cache
def _load(dtype: torch.dtype) -> ctypes.CDLL | None:
    library = kernels.load(SOURCE, GATED, str(dtype).removeprefix("torch."))
    for function in GATED_FUNCTIONS if library else ():
        types = (Sizes, ctypes.c_double, Addresses, ctypes.c_void_p)
        getattr(library, function).argtypes = types
    return library
