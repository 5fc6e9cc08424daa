"""The layer as an operator of JAX's programs: one rule for each of JAX's transformations.

One direction of a layer is a primitive, and so are its two derivatives. Which implementation runs
them is chosen from the list of `dispatch` when a program is lowered, by where it will run: our
kernels in a program for one CPU, where there are any; else masked scans, which XLA compiles for
every device, partitions over many, and keeps in exported files. Both keep the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from ragged.recurrent.dispatch import LayerCall, choose
from ragged_jax.recurrent import scan as scans
from ragged_jax.recurrent.dispatch import EXPORTED, IMPLEMENTATIONS, PARTITIONED
from ragged_jax.recurrent.scan import KNOWN, WEIGHTS, State, Weights

# Their operands. What a forward pass keeps for the others: y, gates and cells.
#     forward   lengths, x, h0, c0, weights and biases
#     tangent   lengths, x, h0, c0, weights, kept; the tangents that are not 0
#     backward  lengths, x, h0, c0, weights, kept; the gradients of y, h and c
forward_p = Primitive("lstm_forward")
tangent_p = Primitive("lstm_tangent")
backward_p = Primitive("lstm_backward")
IN_ALL = (True, True, True)  # what is kept, or three gradients, for each member of a `vmap`


@partial(jax.jit, static_argnames="call")
def run_layer(
    weights: list[Weights], x: Array, lengths: Array, state: State, *, call: LayerCall
) -> tuple[Array, State]:
    """Run one layer in all its directions; `call` says all that is known before it is lowered."""
    run = partial(run_direction, call=call)
    return scans.run_directions(run, weights, x, lengths, state)


def run_direction(
    weights: Weights,
    x: Array,
    lengths: Array,
    h0: Array,
    c0: Array,
    *,
    reverse: bool,
    call: LayerCall,
) -> tuple[Array, Array, Array]:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads."""
    zeros = jnp.zeros_like(weights["weight_ih"][:, 0])
    inputs = (lengths, x, h0, c0, *(weights.get(name, zeros) for name in WEIGHTS))
    y, h, c = forward_p.bind(*inputs, reverse=reverse, call=call, mapped=(), keep=False)
    return y, h, c


# What the operands of a primitive are: `mapped` says, for each `vmap` around it, outermost first,
# which operands have its axis in front. Kernels run member after member, scans all at once.
Mapped = tuple[tuple[bool, ...], ...]


def _vmapped(function: Callable[..., Any], mapped: Mapped) -> Callable[..., Any]:
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
    found = primitive.bind(*front, mapped=(level, *mapped), **options)
    return found, [0] * len(found)


def _lower(
    primitive: Primitive, ctx: Any, *operands: Any, call: LayerCall, mapped: Mapped, **options: Any
) -> Any:
    passes = choose(IMPLEMENTATIONS, _placed(call, ctx)).run
    function = _vmapped(partial(passes[primitive.name], **options), mapped)
    return mlir.lower_fun(function)(ctx, *operands)


def _placed(call: LayerCall, ctx: Any) -> LayerCall:
    """Describe a call by where what is lowered runs."""
    module = ctx.module_context
    where, platforms = module.axis_context, ctx.platforms or module.platforms
    if isinstance(where, mlir.SPMDAxisContext):  # inside of shard_map each device runs its own
        is_whole = where.manual_axes == frozenset(where.mesh.axis_names)
    else:
        is_whole = getattr(where, "num_devices", 1) == 1
    around = EXPORTED if module.lowering_parameters.for_export else None
    around = around if is_whole else PARTITIONED
    return call._replace(device=", ".join(platforms), surrounding=around)


def _run_alone(primitive: Primitive) -> Callable[..., Any]:
    """Run a primitive that no jit holds, under `jax.disable_jit()` for one."""
    names = ("reverse", "call", "mapped", "keep", "moving", "wants_x")
    compiled = jax.jit(primitive.bind, static_argnames=names)

    def run(*operands: Array, **options: Any) -> Any:
        with jax.disable_jit(False):
            return compiled(*operands, **options)

    return run


def _abstract_forward(*inputs: Any, mapped: Mapped, keep: bool, **options: Any) -> list[Any]:
    x, h0, c0 = _shapes(inputs, mapped)[1:4]
    y = (*x[:2], c0[1])
    found = _results(inputs, mapped, [y, h0, c0], inputs[1].dtype)
    kept = [(*x[:2], 4 * c0[1]), y] if keep else []
    return found + _results(inputs, mapped, kept, scans.computed_in(inputs[1].dtype))


def _abstract_tangent(*operands: Any, mapped: Mapped, **options: Any) -> list[Any]:
    h0, c0, _, _, y = _shapes(operands, mapped)[2:7]
    return _results(operands, mapped, [y, h0, c0], operands[1].dtype)


def _abstract_backward(*operands: Any, mapped: Mapped, wants_x: bool, **options: Any) -> list[Any]:
    found = _shapes(operands, mapped)[1 if wants_x else 2 : 6]
    return _results(operands, mapped, [*found, found[-1][:1]], operands[1].dtype)


def _shapes(operands: Sequence[Any], mapped: Mapped) -> list[tuple[int, ...]]:
    """The operands' shapes inside of all `vmap`."""
    outside = [sum(level[k] for level in mapped) for k in range(len(operands))]
    return [each.shape[skip:] for each, skip in zip(operands, outside, strict=True)]


def _results(
    operands: Sequence[Any], mapped: Mapped, shapes: Sequence[tuple[int, ...]], dtype: Any
) -> list[Any]:
    """Give results every mapped axis in front, and x's place on the devices of a `shard_map`."""
    sizes: list[int] = []
    seen = [0] * len(operands)
    for level in mapped:
        first = level.index(True)
        sizes.append(operands[first].shape[seen[first]])
        seen = [count + each for count, each in zip(seen, level, strict=True)]

    def result(shape: tuple[int, ...]) -> Any:
        spec = PartitionSpec(*[None] * len(shape))
        sharding = NamedSharding(jax.sharding.get_abstract_mesh(), spec)
        return operands[1].update(shape=shape, dtype=dtype, sharding=sharding, weak_type=False)

    return [result((*sizes, *shape)) for shape in shapes]


def _move_forward(
    inputs: Sequence[Array], tangents: Sequence[Any], *, keep: bool, **options: Any
) -> tuple[Any, Any]:
    """Differentiate the layer: what moves by the operator of tangents, which has a transpose."""
    if keep:
        return _move(forward_p, inputs, tangents, keep=True, **options)
    y, h, c, *kept = forward_p.bind(*inputs, keep=True, **options)
    moving = tuple(not isinstance(each, ad.Zero) for each in tangents[1:])
    given = compress(tangents[1:], moving)
    mapped = tuple(
        (*level[:6], *IN_ALL, *compress(level[1:], moving)) for level in options.pop("mapped")
    )
    known = (*inputs[:6], y, *kept)
    return (y, h, c), tangent_p.bind(*known, *given, mapped=mapped, moving=moving, **options)


def _transpose(
    gradients: Sequence[Any], *operands: Any, mapped: Mapped, moving: Sequence[bool], **options: Any
) -> list[Array | None]:
    known, asked = operands[:KNOWN], operands[KNOWN:]
    given = [ad.instantiate_zeros(each) for each in gradients]
    inside = tuple((*level[:KNOWN], *IN_ALL) for level in mapped)
    found = backward_p.bind(*known, *given, mapped=inside, wants_x=moving[0], **options)
    of_inputs = [*([] if moving[0] else [None]), *found, found[-1]]  # either bias has the same
    results: list[Array | None] = [None] * KNOWN
    for k, gradient in enumerate(compress(of_inputs, moving)):
        shared = tuple(n for n, level in enumerate(mapped) if not level[KNOWN + k])
        results.append(gradient.sum(shared) if ad.is_undefined_primal(asked[k]) else None)
    return results


def _move(
    primitive: Primitive,
    operands: Sequence[Array],
    tangents: Sequence[Any],
    *,
    call: LayerCall,
    mapped: Mapped,
    **options: Any,
) -> tuple[Any, Any]:
    """Differentiate by JAX's own rules for the scan that does the same: all further derivatives."""
    lengths, *others = operands
    scan = partial(_vmapped(partial(scans.PASSES[primitive.name], **options), mapped), lengths)
    _, moved = jax.jvp(scan, others, [ad.instantiate_zeros(each) for each in tangents[1:]])
    return primitive.bind(*operands, call=call, mapped=mapped, **options), moved


def _define(primitive: Primitive, abstract: Callable[..., list[Any]]) -> None:
    """Tell JAX a primitive's rules."""
    primitive.multiple_results = True
    primitive.def_impl(_run_alone(primitive))
    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = partial(_batch, primitive)
    ad.primitive_jvps[primitive] = partial(_move, primitive)
    mlir.register_lowering(primitive, partial(_lower, primitive))


_define(forward_p, _abstract_forward)
_define(tangent_p, _abstract_tangent)
_define(backward_p, _abstract_backward)
ad.primitive_jvps[forward_p] = _move_forward
ad.primitive_transposes[tangent_p] = _transpose
