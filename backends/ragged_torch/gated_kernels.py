"""Gated residual networks by kernels of our own on a CPU, which keep little for the backward pass.

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
from ragged.kernels.gated import WIDEST_ALONE, Given, Networks, kept_size, split
from ragged.kernels.recipe import GATED, GATED_FUNCTIONS, SOURCES
from ragged_torch.addresses import find_team, readable, room_like
from ragged_torch.gated_plain import run_networks
from ragged_torch.transforms import FakeTensor, in_memory, quick_apply

SOURCE = kernels.HEADERS / SOURCES[GATED]
WIDEST = 160  # wider networks' parameters leave the cache: products of all tokens are faster
NONE = (None,)
Shape = tuple[int, ...]
Kinds = tuple[type[nn.Module], ...]


class Parts(NamedTuple):
    """The modules of a block whose work kernels do, and the types they had.

    Args:
        block: the one that all others belong to.
        modules: in the order of what they learn; None where one was taken away.
        kinds: their types.
        dropout: the one of them before the gate.
        parameters: what they learn, None where one was taken away.
        is_embedded: whether the first of them embeds numbers, which the block is given then.
    """

    block: Any
    modules: tuple[nn.Module | None, ...]
    kinds: Kinds
    dropout: Any
    parameters: list[Any]
    is_embedded: bool = False

    @classmethod
    def of(cls, modules: tuple[nn.Module | None, ...], kinds: Kinds, dropout: Any) -> Parts:
        """Look up what modules learn: by attributes it would take longer than few tokens do."""
        learned = [each for part in modules if part for each in part._parameters.values()]
        return cls(modules[0], modules, kinds, dropout, learned)

    def after(self, linear: nn.Module, kind: type[nn.Module]) -> Parts:
        """Take what embeds numbers along, and the type that it had."""
        learned = [*linear._parameters.values(), *self.parameters]
        own = (linear, *self.modules), (kind, *self.kinds)
        return Parts(self.block, *own, self.dropout, learned, is_embedded=True)

    @property
    def has_own_residual(self) -> bool:
        """Whether a GRN's residual is x or stretched, not what another module makes of it."""
        return self.block.is_stretched or self.block.residual is None

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
        shapes: of what is given and of what the networks learn, then of the result, and of what the
            forward pass keeps for the backward pass, if anything.
        sizes: features, tokens, inputs, hidden units, outputs, whether x is stretched, of how many
            numbers it is made, 0 = none, and whether the result is a softmax.
        dropping: before the gate.
    """

    shapes: tuple[Shape, ...]
    sizes: tuple[int, ...]
    dropping: Dropping

    @property
    def is_embedded(self) -> bool:
        """Whether x is made of numbers."""
        return self.sizes[-2] > 0

    @property
    def takes_softmax(self) -> bool:
        """Whether the result is a softmax."""
        return bool(self.sizes[-1])

    @classmethod
    def of(
        cls, given: Given[Tensor], networks: Networks[Tensor], dropping: Dropping, *, softmax: bool
    ) -> Call:
        """Tell what the shapes of x and of some parameters say of all others."""
        *places, inputs = given.x.shape
        copies: list[int] = []
        of_x: Shape = given.x.shape
        of_embedding: tuple[Shape, Shape] = (), ()
        numbers = 0
        if networks.embed is not None:
            count, width = networks.embed.shape[:2]
            copies, numbers = ([], count) if given.weights is None else ([count], 1)
            inputs, of_x = numbers * width, (*places, count)
            of_embedding = (count, width, 1), (count, width)
        elif given.weights is not None:
            copies = [places.pop()]
        size, is_stretched = networks.weight.shape[-1], networks.scale is not None
        hidden = 0 if networks.hidden is None else networks.hidden.shape[-2]
        of_networks = _shapes(copies, inputs, hidden, size)
        of_given = of_x, (*places, *copies), (*places, hidden), (*places, size)
        counts = copies[0] if copies else 1, math.prod(places)
        kept = 0 if copies else kept_size(counts[1], hidden, size, given.x.itemsize)
        shapes = (*of_given, *of_embedding, *of_networks, (*places, size), (kept,))
        sizes = inputs, hidden, size, is_stretched, numbers, softmax
        return cls(shapes, (*counts, *sizes), dropping)


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
    if (copies or parts.is_embedded) and not parts.has_own_residual:
        return False
    axes = 1 if parts.is_embedded else 1 + len(copies)
    widest, tokens = WIDEST if copies else WIDEST_ALONE, x.shape[:-axes].numel()
    is_fit = tokens > 0 and size <= min(widest, max(tokens, WIDEST_ALONE))
    return is_fit and kernels.is_enabled() and _load(dtype) is not None


def select(parts: Parts, x: Tensor, weights: Tensor) -> Tensor:
    """Sum what copies of a GRN make of their features, weighted: `(..., size)`.

    Args:
        parts: of the copies, whose residual is stretched.
        x: `(..., features, inputs)`, or numbers that are embedded, `(..., features)`.
        weights: `(..., features)`.
    """
    return _run(Given(x, weights), networks_of(parts), parts.dropout)


def weigh(parts: Parts, x: Tensor, added: Tensor | None) -> Tensor:
    """Take the softmax of what a GRN makes of numbers that are embedded side by side.

    Args:
        parts: of the GRN, whose residual is stretched.
        x: `(..., features)`.
        added: what its context adds to the hidden units of each token.
    """
    added = _spread(added, x)
    return _run(Given(x, added=added), networks_of(parts), parts.dropout, softmax=True)


def run_grn(parts: Parts, x: Tensor, added: Tensor | None) -> Tensor:
    """Run a GRN on tokens, with what its context adds to the hidden units of each."""
    grn = parts.block
    residual = None if grn.is_stretched or grn.residual is None else grn.residual(x)
    given = Given(x, added=_spread(added, x), residual=residual)
    return _run(given, networks_of(parts), parts.dropout)


def run_gate(parts: Parts, x: Tensor, residual: Tensor) -> Tensor:
    """Run a GateAddNorm on tokens."""
    *of_gate, weight, bias = parts.parameters
    networks: Networks[Tensor] = Networks._make((*NONE * 6, *of_gate, *NONE * 3, weight, bias))
    return _run(Given(x, residual=residual), networks, parts.dropout)


def networks_of(parts: Parts) -> Networks[Tensor]:
    """Take from the parts of a GRN, or of copies of one, what it learns."""
    *learned, weight, bias = parts.parameters
    embedding = () if parts.is_embedded else NONE * 2
    inner = () if parts.block.is_stretched else NONE * 3
    return Networks._make((*embedding, *learned, *inner, weight, bias))


def _spread(added: Tensor | None, x: Tensor) -> Tensor | None:
    """Give the steps of a row what they share, where they lie in rows."""
    return added if added is None or x.ndim == 2 else added.expand(*x.shape[:-1], -1)


def _run(
    given: Given[Tensor], networks: Networks[Tensor], dropout: Any, *, softmax: bool = False
) -> Tensor:
    call = Call.of(given, networks, Dropping.of(dropout), softmax=softmax)
    output: Tensor = _apply(*given, *networks, call, torch.is_grad_enabled())
    return output


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, call, has_backward = inputs
        *_, of_out, of_kept = call.shapes
        out = tensors[0].new_empty(of_out)
        kept = out.new_empty(of_kept) if has_backward and of_kept > (0,) else None
        ctx.save_for_backward(*tensors, kept)
        ctx.call = call
        _call("gated_forward", tensors, call, (out, kept))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        *tensors, kept = saved = ctx.saved_tensors
        (gradient,) = gradients
        present = (each for each in saved if each is not None)
        if torch.is_grad_enabled() or not in_memory(gradient, *present):
            found = iter(_differentiable_vjp(tensors, ctx.call, gradient))
            return *(None if each is None else next(found) for each in tensors), None, None
        results = [None if each is None else room_like(each) for each in tensors]
        if ctx.call.is_embedded and not ctx.needs_input_grad[0]:
            results[0] = None
        _call("gated_backward", (*tensors, gradient, kept), ctx.call, results)
        return *results, None, None


_apply = quick_apply(_Gated)


def _differentiable_vjp(
    tensors: Sequence[Tensor | None], call: Call, gradient: Tensor
) -> tuple[Tensor, ...]:
    """Return what `backward` does for the tensors there are, by operations with derivatives."""

    def run(*present: Tensor) -> Tensor:
        each = iter(present)
        given, networks = split([None if one is None else next(each) for one in tensors])
        return run_networks(given, networks, *call.dropping, softmax=call.takes_softmax)

    present = (each for each in tensors if each is not None)
    results: tuple[Tensor, ...] = torch.func.vjp(run, *present)[1](gradient)
    return results


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


def _shapes(copies: Sequence[int], inputs: int, hidden: int, size: int) -> tuple[Shape, ...]:
    """The shapes of what the networks learn, but the embedding."""
    wide, narrow = (*copies, size), (*copies, hidden)
    return (
        *((*narrow, inputs), narrow, (*wide, hidden), wide),
        *((*copies, 2 * size, size), (*copies, 2 * size)),
        *(wide,) * 5,
    )


Sizes = ctypes.c_int64 * 11  # what a function of the library takes, beside the rate and the team
Addresses = ctypes.c_void_p * 36  # as many as the backward pass has


@cache
def _load(dtype: torch.dtype) -> ctypes.CDLL | None:
    library = kernels.load(SOURCE, GATED, str(dtype).removeprefix("torch."))
    for function in GATED_FUNCTIONS if library else ():
        types = (Sizes, ctypes.c_double, Addresses, ctypes.c_void_p)
        getattr(library, function).argtypes = types
    return library
