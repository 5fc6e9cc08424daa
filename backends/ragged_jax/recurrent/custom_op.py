"""The layer as an operator of JAX's programs: one rule for each of JAX's transformations.

One direction of a layer is a primitive, and so are its two derivatives. Which implementation runs
them is chosen from the list of `dispatch` when a program is lowered, by where it will run: our
kernels in a program for one CPU or GPU, where there are any; else masked scans, which XLA compiles
for every device, partitions over many, and keeps in exported files. All keep the same arrays.
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

from ragged.implementations import choose
from ragged.recurrent.cells import CELLS
from ragged.recurrent.dispatch import LayerCall
from ragged_jax.recurrent import scan
from ragged_jax.recurrent.dispatch import EXPORTED, IMPLEMENTATIONS, PARTITIONED
from ragged_jax.recurrent.scan import KNOWN, WEIGHTS, State, Weights

# Their operands. `call` says of which cell they are. What a forward pass keeps for the others is y
# and `kept`, which the cell defines.
#     forward   lengths, resets, x, h0, c0, weights and biases
#     tangent   lengths, resets, x, h0, c0, weights, y, kept; the tangents that are not 0
#     backward  lengths, resets, x, h0, c0, weights, y, kept; the gradients of y, h and c
forward_p = Primitive("recurrent_forward")
tangent_p = Primitive("recurrent_tangent")
backward_p = Primitive("recurrent_backward")
INPUTS = 7  # operands that all begin with
FIXED = 2  # of them: lengths and resets have no derivatives


@partial(jax.jit, static_argnames=("call", "start"))
def run_layer(
    weights: list[Weights],
    x: Array,
    lengths: Array,
    resets: Array,
    state: State,
    *,
    call: LayerCall,
    start: str = "zeros",
) -> tuple[Array, State]:
    """Run one layer in all its directions; `call` says all that is known before it is lowered."""
    run = partial(run_direction, call=call, start=start)
    return scan.run_directions(run, weights, x, lengths, resets, state)


def run_direction(
    weights: Weights,
    x: Array,
    lengths: Array,
    resets: Array,
    h0: Array,
    c0: Array,
    *,
    reverse: bool,
    call: LayerCall,
    start: str,
) -> tuple[Array, Array, Array]:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads."""
    zeros = jnp.zeros_like(weights["weight_ih"][:, 0])
    inputs = (lengths, resets, x, h0, c0, *(weights.get(name, zeros) for name in WEIGHTS))
    options: Any = {"reverse": reverse, "call": call, "start": start}
    y, h, c = forward_p.bind(*inputs, mapped=(), keep=False, **options)
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
    results = primitive.bind(*front, mapped=(level, *mapped), **options)
    return results, [0] * len(results)


def _lower(
    primitive: Primitive, ctx: Any, *operands: Any, call: LayerCall, mapped: Mapped, **options: Any
) -> Any:
    passes = choose(IMPLEMENTATIONS, _with_target(_with_rows(call, ctx.avals_in, mapped), ctx)).run
    one_pass = partial(passes[primitive.name], **_told(call), **options)
    function = _vmapped(one_pass, mapped)
    return mlir.lower_fun(function)(ctx, *operands)


def _told(call: LayerCall) -> dict[str, Any]:
    """What a pass is told of a call."""
    return {"mode": call.mode, "layout": call.layout, "width": call.width}


def _with_rows(call: LayerCall, operands: Sequence[Any], mapped: Mapped) -> LayerCall:
    """Add to a call how many rows there are, and how wide they are."""
    (rows,), _, x, *_ = _shapes(operands, mapped)
    return call._replace(rows=rows, width=x[1] if call.layout == "padded" else call.width)


def _with_target(call: LayerCall, ctx: Any) -> LayerCall:
    """Add to a call where what is lowered runs."""
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
    names = ("reverse", "start", "call", "mapped", "keep", "moving", "wants_x")
    compiled = jax.jit(primitive.bind, static_argnames=names)

    def run(*operands: Array, **options: Any) -> Any:
        with jax.disable_jit(False):
            return compiled(*operands, **options)

    return run


def _abstract_forward(
    *inputs: Any, call: LayerCall, mapped: Mapped, keep: bool, **options: Any
) -> list[Any]:
    x, h0, c0 = _shapes(inputs, mapped)[FIXED : FIXED + 3]
    outputs = _results(inputs, mapped, [(*x[:-1], h0[1]), h0, c0], inputs[FIXED].dtype)
    if not keep:
        return outputs
    kept = (*x[:-1], CELLS[call.mode].kept * h0[1])
    return outputs + _results(inputs, mapped, [kept], scan.computed_in(inputs[FIXED].dtype))


def _abstract_tangent(*operands: Any, mapped: Mapped, **options: Any) -> list[Any]:
    h0, c0, _, _, y = _shapes(operands, mapped)[FIXED + 1 : FIXED + 6]
    return _results(operands, mapped, [y, h0, c0], operands[FIXED].dtype)


def _abstract_backward(*operands: Any, mapped: Mapped, wants_x: bool, **options: Any) -> list[Any]:
    inputs = _shapes(operands, mapped)[FIXED + (not wants_x) : INPUTS]
    bias = inputs[-1][:1]
    return _results(operands, mapped, [*inputs, bias, bias], operands[FIXED].dtype)


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
        return operands[FIXED].update(shape=shape, dtype=dtype, sharding=sharding, weak_type=False)

    return [result((*sizes, *shape)) for shape in shapes]


def _jvp_forward(
    inputs: Sequence[Array], tangents: Sequence[Any], *, keep: bool, **options: Any
) -> tuple[Any, Any]:
    """Differentiate the layer: what moves by the operator of tangents, which has a transpose."""
    if keep:
        return _jvp_by_scan(forward_p, inputs, tangents, keep=True, **options)
    y, h, c, kept = forward_p.bind(*inputs, keep=True, **options)
    moving = tuple(not isinstance(each, ad.Zero) for each in tangents[FIXED:])
    nonzero = compress(tangents[FIXED:], moving)
    mapped = tuple(
        (
            *level[:INPUTS],
            True,
            True,
            *compress(level[FIXED:], moving),
        )  # y and kept are in every vmap
        for level in options.pop("mapped")
    )
    known = (*inputs[:INPUTS], y, kept)
    return (y, h, c), tangent_p.bind(*known, *nonzero, mapped=mapped, moving=moving, **options)


def _transpose(
    gradients: Sequence[Any], *operands: Any, mapped: Mapped, moving: Sequence[bool], **options: Any
) -> list[Array | None]:
    """Turn the gradients of y, h and c into those of the tangents that the operator took."""
    known, tangents = operands[:KNOWN], operands[KNOWN:]
    gradients = [ad.instantiate_zeros(each) for each in gradients]
    levels = tuple((*level[:KNOWN], True, True, True) for level in mapped)
    of_inputs = backward_p.bind(*known, *gradients, mapped=levels, wants_x=moving[0], **options)
    if not moving[0]:
        of_inputs = [None, *of_inputs]
    results: list[Array | None] = [None] * KNOWN
    for k, gradient in enumerate(compress(of_inputs, moving)):
        shared = tuple(n for n, level in enumerate(mapped) if not level[KNOWN + k])
        is_asked = ad.is_undefined_primal(tangents[k])
        results.append(gradient.sum(shared) if is_asked else None)
    return results


def _jvp_by_scan(
    primitive: Primitive,
    operands: Sequence[Array],
    tangents: Sequence[Any],
    *,
    call: LayerCall,
    mapped: Mapped,
    **options: Any,
) -> tuple[Any, Any]:
    """Differentiate by JAX's own rules for the scan that does the same: all further derivatives."""
    fixed, others = operands[:FIXED], list(operands[FIXED:])
    one_pass = partial(scan.PASSES[primitive.name], **_told(call), **options)
    function = partial(_vmapped(one_pass, mapped), *fixed)
    directions = [ad.instantiate_zeros(each) for each in tangents[FIXED:]]
    _, moved = jax.jvp(function, others, directions)
    return primitive.bind(*operands, call=call, mapped=mapped, **options), moved


def _define(primitive: Primitive, abstract: Callable[..., list[Any]]) -> None:
    """Tell JAX a primitive's rules."""
    primitive.multiple_results = True
    primitive.def_impl(_run_alone(primitive))
    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = partial(_batch, primitive)
    ad.primitive_jvps[primitive] = partial(_jvp_by_scan, primitive)
    mlir.register_lowering(primitive, partial(_lower, primitive))


_define(forward_p, _abstract_forward)
_define(tangent_p, _abstract_tangent)
_define(backward_p, _abstract_backward)
ad.primitive_jvps[forward_p] = _jvp_forward
ad.primitive_transposes[tangent_p] = _transpose
