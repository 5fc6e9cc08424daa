"""Gated residual networks as an operator of JAX's programs: see `primitives`.

In a program for one CPU kernels of our own run it, which keep little for the backward pass; in any
other, plain operations that give the same numbers. Blocks whose modules somebody replaced, or of
which there are no kernels, do not take it: they run their modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad
from jax.sharding import PartitionSpec

from ragged import kernels
from ragged.kernels.gated import WIDEST_ALONE, Given, Networks
from ragged.kernels.recipe import GATED, GATED_FUNCTIONS, SOURCES
from ragged_jax.custom_calls import load_kernels
from ragged_jax.gated_plain import PLAIN, GatedCall, kept_in, result_shapes
from ragged_jax.primitives import (
    Mapped,
    abstract_results,
    bind_backward,
    bind_tangent,
    define_operator,
    inner_shapes,
    sum_gradients,
)
from ragged_jax.sharding import run_in_parts, vary_alike

NONE = (None,)
SOURCE = kernels.HEADERS / SOURCES[GATED]
WIDEST = 256  # wider networks' parameters leave the cache: products of all tokens are as fast

# Their operands:
#     forward   words of the seed; the arrays that there are, in the kernels' order
#     tangent   the same, and what the forward pass keeps; the tangents that are not 0
#     backward  the same, and what it keeps; the gradient of the result
forward_p = Primitive("gated_forward")
tangent_p = Primitive("gated_tangent")
backward_p = Primitive("gated_backward")
FIXED = 1  # operands without derivatives, before x


class Parts(NamedTuple):
    """The modules of a block whose work kernels do, and the types they had.

    Args:
        block: the one that all others belong to.
        modules: in the order of what they learn.
        kinds: their types.
        is_embedded: whether the first of them embeds numbers, which the block is given then.
    """

    block: Any
    modules: tuple[nnx.Module, ...]
    kinds: tuple[type[nnx.Module], ...]
    is_embedded: bool = False

    def after(self, linear: nnx.Module, kind: type[nnx.Module]) -> Parts:
        """Take what embeds numbers along, and the type that it had."""
        own = (linear, *self.modules), (kind, *self.kinds)
        return Parts(self.block, *own, is_embedded=True)

    @property
    def parameters(self) -> Iterator[Array]:
        """What they learn."""
        learned = (each for part in self.modules for each in vars(part).values())
        return (each[...] for each in learned if isinstance(each, nnx.Param))

    @property
    def has_own_residual(self) -> bool:
        """Whether a GRN's residual is x or stretched, not what another module makes of it."""
        return self.block.is_stretched or self.block.residual is None

    @property
    def are_untouched(self) -> bool:
        """Whether nobody has replaced what the modules do, or taken a bias away."""
        are_whole = all(getattr(part, "bias", part) is not None for part in self.modules)
        pairs = zip(self.modules, self.kinds, strict=False)
        return are_whole and all(type(part) is kind for part, kind in pairs)


def takes_kernels(parts: Parts, x: Array, *others: Array | None) -> bool:
    """Whether kernels do the work of modules on what tokens have: see `Given`.

    Where tokens are fewer than the result is wide, laying the parameters out would take longest.
    """
    if not all(isinstance(size, int) for size in x.shape):  # an exported program's own
        return False
    arrays = [x, *(each for each in others if each is not None), *parts.parameters]
    *copies, size = arrays[-1].shape
    if (copies or parts.is_embedded) and not parts.has_own_residual:
        return False
    axes = 1 if parts.is_embedded else 1 + len(copies)
    widest, tokens = WIDEST if copies else WIDEST_ALONE, math.prod(x.shape[:-axes])
    if size > min(widest, tokens) or any(each.dtype != x.dtype for each in arrays):
        return False
    return parts.are_untouched and kernels.is_enabled() and _load(str(x.dtype)) is not None


def select(parts: Parts, x: Array, weights: Array) -> Array:
    """Sum what copies of a GRN make of their features, weighted: `(..., size)`.

    Args:
        parts: of the copies, whose residual is stretched.
        x: `(..., features, inputs)`, or numbers that are embedded, `(..., features)`.
        weights: `(..., features)`.
    """
    return _run(Given(x, weights), networks_of(parts), parts.block.gate.dropout)


def weigh(parts: Parts, x: Array, added: Array | None) -> Array:
    """Take the softmax of what a GRN makes of numbers that are embedded side by side.

    Args:
        parts: of the GRN, whose residual is stretched.
        x: `(..., features)`.
        added: what its context adds to the hidden units of each token.
    """
    given = Given(x, added=_spread(added, x))
    return _run(given, networks_of(parts), parts.block.gate.dropout, softmax=True)


def run_grn(parts: Parts, x: Array, added: Array | None) -> Array:
    """Run a GRN on tokens, with what its context adds to the hidden units of each."""
    grn = parts.block
    residual = None if grn.is_stretched or grn.residual is None else grn.residual(x)
    given = Given(x, added=_spread(added, x), residual=residual)
    return _run(given, networks_of(parts), grn.gate.dropout)


def run_gate(parts: Parts, x: Array, residual: Array) -> Array:
    """Run a GateAddNorm on tokens."""
    block = parts.block
    of_gate, of_norm = _learned(block.gate.linear), _learned(block.add_norm.norm)
    networks: Networks[Array] = Networks._make((*NONE * 6, *of_gate, *NONE * 3, *of_norm))
    return _run(Given(x, residual=residual), networks, block.gate.dropout)


def networks_of(parts: Parts) -> Networks[Array]:
    """Take from the parts of a GRN, or of copies of one, what it learns."""
    grn, inner = parts.block, parts.block.residual
    embedding = _learned(parts.modules[0]) if parts.is_embedded else NONE * 2
    layers = [
        each for layer in (grn.hidden, grn.output, grn.gate.linear) for each in _learned(layer)
    ]
    stretch = (inner.scale[...], *_learned(inner.norm)) if grn.is_stretched else NONE * 3
    return Networks._make((*embedding, *layers, *stretch, *_learned(grn.norm)))


def _learned(layer: Any) -> tuple[Any, Any]:
    return layer.weight[...], layer.bias[...]


def _spread(added: Array | None, x: Array) -> Array | None:
    """Give the steps of a row what they share, where they lie in rows."""
    return None if added is None else jnp.broadcast_to(added, (*x.shape[:-1], added.shape[-1]))


def _run(
    given: Given[Array], networks: Networks[Array], dropout: Any, *, softmax: bool = False
) -> Array:
    words, arrays = dropout.words(), (*given, *networks)
    call = GatedCall(tuple(each is not None for each in arrays), dropout.rate_now, softmax)
    words = jnp.zeros(2, jnp.uint32) if words is None else words
    return _gated(words, [each for each in arrays if each is not None], call=call)


@partial(jax.jit, static_argnames="call")
def _gated(words: Array, arrays: Sequence[Array], *, call: GatedCall) -> Array:
    given, _ = call.named(arrays)
    like = given.x if given.weights is None else given.weights

    def run(*operands: Array) -> Array:
        (out,) = forward_p.bind(*operands, mapped=(), keep=False, call=call)
        return out

    def result(rows: Any) -> PartitionSpec:
        return PartitionSpec(rows, *[None] * (like.ndim - 1))

    out: Array = run_in_parts(run, like, result, *vary_alike((words, *arrays)))
    return out


def _run_kernels(
    words: Array, *operands: Array, function: str, call: GatedCall, keep: bool = False
) -> Sequence[Array]:
    """Return what the plain pass does that is named like a function of the library."""
    arrays = operands[: sum(call.present)]
    given, networks = call.named(arrays)
    of_arrays = [each.shape for each in arrays]
    dtype, shapes = given.x.dtype, result_shapes(call, of_arrays, given.x.dtype)
    results = [jax.ShapeDtypeStruct(each, dtype) for each in of_arrays]
    if function == "gated_forward":
        results = list(map(jax.ShapeDtypeStruct, shapes, (dtype, kept_in(dtype))))[: 1 + keep]
    *places, size = shapes[0]
    target = f"{function}_{_load(str(dtype))}"
    features = 1 if given.weights is None else given.weights.shape[-1]
    numbers, inputs = 0, given.x.shape[-1]
    if networks.embed is not None:
        numbers = inputs // features
        inputs = numbers * networks.embed.shape[-2]
    hidden = 0 if networks.hidden is None else networks.hidden.shape[-2]
    of_call = features, math.prod(places), inputs, hidden, size, networks.scale is not None
    attributes: dict[str, Any] = {
        "sizes": np.array([*of_call, numbers, call.softmax], np.int64),
        "present": np.int64(sum(bit << n for n, bit in enumerate(call.present))),
        "dropout": np.float64(call.rate),
    }
    run = jax.ffi.ffi_call(target, results, vmap_method="sequential")
    found: Sequence[Array] = run(*operands, words, **attributes)
    return found


@cache
def _load(dtype: str) -> str | None:
    """Make the kernels of a dtype known to XLA; their version, None without."""
    return load_kernels(SOURCE, GATED, dtype)


KERNELS: dict[str, Callable[..., Any]] = {
    f: partial(_run_kernels, function=f) for f in GATED_FUNCTIONS
}


def _choose(
    primitive: Primitive, shapes: object, device: str, surrounding: str | None, **options: Any
) -> Callable[..., Any]:
    """Give the pass that runs a primitive where it is lowered for."""
    passes = {**PLAIN, **KERNELS} if device == "cpu" and surrounding is None else PLAIN
    return partial(passes[primitive.name], **options)


def _choose_plain(primitive: Primitive, **options: Any) -> Callable[..., Any]:
    return partial(PLAIN[primitive.name], **options)


def _abstract_forward(
    *operands: Any, mapped: Mapped, keep: bool, call: GatedCall, **options: Any
) -> list[Any]:
    dtype = operands[FIXED].dtype
    shapes = result_shapes(call, inner_shapes(operands, mapped)[FIXED:], dtype)
    told = zip(shapes, (dtype, kept_in(dtype)), strict=True)
    found = [abstract_results(operands, mapped, [each], of, like=FIXED) for each, of in told]
    return [result for (result,) in found][: 1 + keep]


def _abstract_tangent(*operands: Any, **options: Any) -> list[Any]:
    return _abstract_forward(*operands, keep=False, **options)


def _abstract_backward(*operands: Any, mapped: Mapped, call: GatedCall) -> list[Any]:
    shapes = inner_shapes(operands, mapped)[FIXED : FIXED + sum(call.present)]
    return abstract_results(operands, mapped, shapes, operands[FIXED].dtype, like=FIXED)


def _jvp_forward(
    operands: Sequence[Array], tangents: Sequence[Any], *, keep: bool, **options: Any
) -> tuple[Any, Any]:
    """Differentiate: what moves by the operator of tangents, which has a transpose."""
    out, kept = forward_p.bind(*operands, keep=True, **options)
    known, count = (*operands, kept), len(operands)
    moved = bind_tangent(tangent_p, known, tangents, inputs=count, fixed=FIXED, **options)
    if not keep:
        return (out,), moved
    return (out, kept), (*moved, ad.Zero(jax.typeof(kept).to_tangent_aval()))


def _transpose(
    gradients: Sequence[Any],
    *operands: Any,
    mapped: Mapped,
    moving: Sequence[bool],
    call: GatedCall,
) -> list[Array | None]:
    """Turn the gradient of the result into those of the tangents that the operator took."""
    known = FIXED + len(moving) + 1
    of_inputs = bind_backward(backward_p, gradients, operands, mapped, known=known, call=call)
    return sum_gradients(of_inputs, operands, mapped, moving, known=known)


define_operator(
    {forward_p: _abstract_forward, tangent_p: _abstract_tangent, backward_p: _abstract_backward},
    _choose,
    _choose_plain,
    jvp=_jvp_forward,
    transpose=_transpose,
    fixed=FIXED,
    static=("call", "keep", "moving"),
)
