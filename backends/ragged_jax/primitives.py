"""The rules that JAX's transformations need of an operator, whatever it computes.

An operator is three primitives: what it computes, the tangents of that, and the transpose of these,
its gradients. Their first `fixed` operands have no derivatives. Which implementation runs one is
chosen when a program is lowered, by where it will run.

`mapped` says, for each `vmap` around a primitive, outermost first, which operands have its axis in
front. Kernels run member after member, plain operations all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

Mapped = tuple[tuple[bool, ...], ...]
Pass = Callable[..., Any]  # a primitive's function of its operands
Abstract = Callable[..., list[Any]]

# What JAX does around a call, as the reason why an implementation does not run it.
EXPORTED = "exported programs run on other machines too"
PARTITIONED = "XLA partitions the program over several devices"


def define_operator(
    results: Mapping[Primitive, Abstract],
    choose: Callable[..., Pass],
    plain: Callable[..., Pass],
    *,
    jvp: Callable[..., Any],
    transpose: Callable[..., Any],
    fixed: int,
    static: Sequence[str],
) -> None:
    """Tell JAX the rules of an operator's primitives; derivatives are those of plain operations.

    Args:
        results: of each primitive, what gives its results' shapes and dtypes, of its operands': of
            what the operator computes, of the tangents, of the gradients.
        choose: `(primitive, shapes, device, surrounding, **options)` gives what runs one there, of
            its operands' shapes.
        plain: `(primitive, **options)` gives what does the same by plain operations.
        jvp: differentiates what the operator computes.
        transpose: of the tangents.
        fixed: how many operands have no derivatives.
        static: the names of the options.
    """
    forward, tangent, _ = results
    for primitive, abstract in results.items():
        primitive.multiple_results = True
        primitive.def_impl(_run_alone(primitive, static))
        primitive.def_abstract_eval(abstract)
        batching.primitive_batchers[primitive] = partial(_batch, primitive)
        ad.primitive_jvps[primitive] = partial(jvp_by_plain, primitive, plain, fixed)
        mlir.register_lowering(primitive, partial(_lower, primitive, choose))
    ad.primitive_jvps[forward] = jvp
    ad.primitive_transposes[tangent] = transpose


def vmapped(function: Pass, mapped: Mapped) -> Pass:
    """Map a function over the axes that its operands have in front."""
    for level in reversed(mapped):
        function = jax.vmap(function, in_axes=tuple(0 if each else None for each in level))
    return function


def _batch(
    primitive: Primitive,
    operands: Sequence[Array],
    axes: Sequence[Any],
    mapped: Mapped,
    **options: Any,
) -> tuple[Sequence[Array], Sequence[int]]:
    level = tuple(axis is not None for axis in axes)
    front = [
        jnp.moveaxis(operand, axis, 0) if is_mapped else operand
        for operand, axis, is_mapped in zip(operands, axes, level, strict=True)
    ]
    results = primitive.bind(*front, mapped=(level, *mapped), **options)
    return results, [0] * len(results)


def _lower(
    primitive: Primitive,
    choose: Callable[..., Pass],
    ctx: Any,
    *operands: Any,
    mapped: Mapped,
    **options: Any,
) -> Any:
    shapes = inner_shapes(ctx.avals_in, mapped)
    function = vmapped(choose(primitive, shapes, *find_surrounding(ctx), **options), mapped)
    return mlir.lower_fun(function)(ctx, *operands)


def find_surrounding(ctx: Any) -> tuple[str, str | None]:
    """Return the device that a program is lowered for, and what JAX does around the call."""
    module = ctx.module_context
    where, platforms = module.axis_context, ctx.platforms or module.platforms
    if isinstance(where, mlir.SPMDAxisContext):  # inside of shard_map each device runs its own
        is_whole = where.manual_axes == frozenset(where.mesh.axis_names)
    else:
        is_whole = getattr(where, "num_devices", 1) == 1
    around = EXPORTED if module.lowering_parameters.for_export else None
    return ", ".join(platforms), around if is_whole else PARTITIONED


def _run_alone(primitive: Primitive, static: Sequence[str]) -> Pass:
    """Run a primitive that no jit holds, under `jax.disable_jit()` for one."""
    compiled = jax.jit(primitive.bind, static_argnames=(*static, "mapped"))

    def run(*operands: Array, **options: Any) -> Any:
        with jax.disable_jit(False):
            return compiled(*operands, **options)

    return run


def inner_shapes(operands: Sequence[Any], mapped: Mapped) -> list[tuple[int, ...]]:
    """The operands' shapes inside of all `vmap`."""
    outside = [sum(level[k] for level in mapped) for k in range(len(operands))]
    return [each.shape[skip:] for each, skip in zip(operands, outside, strict=True)]


def abstract_results(
    operands: Sequence[Any],
    mapped: Mapped,
    shapes: Sequence[Sequence[int]],
    dtype: Any,
    *,
    like: int,
) -> list[Any]:
    """Give results every mapped axis in front, and the place of operand `like` in a `shard_map`."""
    sizes: list[int] = []
    seen = [0] * len(operands)
    for level in mapped:
        first = level.index(True)
        sizes.append(operands[first].shape[seen[first]])
        seen = [count + each for count, each in zip(seen, level, strict=True)]

    def result(shape: Sequence[int]) -> Any:
        spec = PartitionSpec(*[None] * len(shape))
        sharding = NamedSharding(jax.sharding.get_abstract_mesh(), spec)
        return operands[like].update(shape=shape, dtype=dtype, sharding=sharding, weak_type=False)

    return [result((*sizes, *shape)) for shape in shapes]


def bind_tangent(
    tangent: Primitive,
    known: Sequence[Array],
    tangents: Sequence[Any],
    mapped: Mapped,
    *,
    inputs: int,
    fixed: int,
    **options: Any,
) -> Any:
    """Bind an operator's tangents to what moves.

    Args:
        tangent: the primitive.
        known: its operands without tangents: `inputs` of the operator, then its own results, which
            every `vmap` maps.
        tangents: of the operator's operands.
        mapped: of the operator's operands.
    """
    moving = tuple(not isinstance(each, ad.Zero) for each in tangents[fixed:])
    results = (True,) * (len(known) - inputs)
    levels = tuple(
        (*level[:inputs], *results, *compress(level[fixed:], moving)) for level in mapped
    )
    nonzero = compress(tangents[fixed:], moving)
    return tangent.bind(*known, *nonzero, mapped=levels, moving=moving, **options)


def bind_backward(
    backward: Primitive,
    gradients: Sequence[Any],
    operands: Sequence[Any],
    mapped: Mapped,
    *,
    known: int,
    **options: Any,
) -> list[Array | None]:
    """Bind an operator's gradients to those of its results.

    Args:
        backward: the primitive.
        gradients: of the results, which every `vmap` maps.
        operands: of the primitive of tangents; `known` of them come before its tangents.
        mapped: of these operands.
    """
    every = [ad.instantiate_zeros(each) for each in gradients]
    levels = tuple((*level[:known], *(True for _ in every)) for level in mapped)
    return list(backward.bind(*operands[:known], *every, mapped=levels, **options))


def sum_gradients(
    gradients: Sequence[Array | None],
    operands: Sequence[Any],
    mapped: Mapped,
    moving: Sequence[bool],
    *,
    known: int,
) -> list[Array | None]:
    """Give a transposed tangent's result: the gradients of the tangents that it took.

    What a `vmap` does not map is shared by its members, and gets the sum of their gradients.
    """
    results: list[Array | None] = [None] * known
    for k, gradient in enumerate(compress(gradients, moving)):
        shared = tuple(n for n, level in enumerate(mapped) if not level[known + k])
        is_asked = ad.is_undefined_primal(operands[known + k])
        results.append(gradient.sum(shared) if is_asked and gradient is not None else None)
    return results


def jvp_by_plain(
    primitive: Primitive,
    plain: Callable[..., Pass],
    fixed: int,
    operands: Sequence[Array],
    tangents: Sequence[Any],
    *,
    mapped: Mapped,
    **options: Any,
) -> tuple[Any, Any]:
    """Differentiate by JAX's own rules for the plain operations that do the same."""
    held, others = operands[:fixed], list(operands[fixed:])
    function = partial(vmapped(plain(primitive, **options), mapped), *held)
    directions = [ad.instantiate_zeros(each) for each in tangents[fixed:]]
    _, moved = jax.jvp(function, others, directions)
    return primitive.bind(*operands, mapped=mapped, **options), moved
