"""What the kernels of gated residual networks do, by plain operations, which have derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ragged.kernels.gated import Given, Networks, kept_size, split
from ragged_jax.dropped import keep_mask
from ragged_jax.parameters import spread, stretch_matrix
from ragged_jax.precision import float32_products
from ragged_jax.sharding import vary_alike


class GatedCall(NamedTuple):
    """What the operator is told beside its arrays.

    Args:
        present: which of `Given` and `Networks` there are.
        rate: the share that is dropped before the gate.
        softmax: whether the result is a softmax.
    """

    present: tuple[bool, ...]
    rate: float
    softmax: bool = False

    def named(self, arrays: Iterable[Any]) -> tuple[Any, Any]:
        """Give the arrays that there are, or what stands for them, to their fields."""
        each = iter(arrays)
        arrays_or_none = [next(each) if is_there else None for is_there in self.present]
        return split(arrays_or_none)


def result_shapes(call: GatedCall, shapes: Sequence[Any], dtype: Any) -> list[tuple[int, ...]]:
    """Give the shapes of the result and of what kernels keep, from those of what is given."""
    given, networks = call.named(shapes)
    *places, _ = given.x if given.weights is None else given.weights
    size, hidden = networks.weight[-1], 0 if networks.hidden is None else networks.hidden[-2]
    tokens, itemsize = math.prod(places), jnp.dtype(dtype).itemsize
    kept = 0 if given.weights is not None else kept_size(tokens, hidden, size, itemsize)
    return [(*places, size), (kept,)]


def kept_in(dtype: Any) -> Any:
    """The dtype of the bits that a forward pass keeps: `jax.debug_nans` may find NaN in numbers."""
    return jnp.dtype(f"uint{8 * jnp.dtype(dtype).itemsize}")


@float32_products
def forward(words: Array, *arrays: Array, call: GatedCall, keep: bool = False) -> list[Array]:
    """Return the result, of features one after the other; if asked, 0 for all that kernels keep."""
    dtype = arrays[0].dtype
    of_out, of_kept = result_shapes(call, [each.shape for each in arrays], dtype)
    out = _run(words, *arrays, call=call, shape=of_out)
    return [out, jnp.zeros(of_kept, kept_in(dtype))] if keep else [out]


def _run(words: Array, *arrays: Array, call: GatedCall, shape: Sequence[int]) -> Array:
    given, networks = call.named(arrays)
    given = given._replace(x=_embed(given, networks))
    kept, (*places, size) = None, shape
    if call.rate:
        features = 1 if given.weights is None else given.weights.shape[-1]
        kept = keep_mask(words, call.rate, (1, features, math.prod(places), size))
        kept = kept.reshape(features, *places, size)
    if given.weights is None:
        y = _run_network(given, networks, None if kept is None else kept[0], call.rate)
        return jax.nn.softmax(y, -1) if call.softmax else y

    @partial(jax.checkpoint, prevent_cse=False)  # a loop keeps the two passes apart
    def add(total: Array, feature: tuple[Any, ...]) -> tuple[Array, None]:
        weight, x, networks, kept = feature
        return total + weight[..., None] * _run_network(Given(x), networks, kept, call.rate), None

    weights, x = jnp.moveaxis(given.weights, -1, 0), jnp.moveaxis(given.x, -2, 0)
    by_feature = weights, x, networks._replace(embed=None, embed_bias=None), kept
    none = jnp.zeros((*places, size), given.x.dtype)
    total, _ = jax.lax.scan(add, *vary_alike((none, by_feature)))
    out: Array = total
    return out


def _embed(given: Given[Array], networks: Networks[Any]) -> Array:
    """Make x of numbers if it is embedded: each feature's own, or of all side by side."""
    if networks.embed is None:
        return given.x
    embedded = given.x[..., None] * networks.embed[..., 0] + networks.embed_bias
    return embedded if given.weights is not None else jax.lax.collapse(embedded, embedded.ndim - 2)


def _run_network(
    given: Given[Array], networks: Networks[Array], kept: Array | None, rate: float
) -> Array:
    x, _, added, residual = given
    y = x
    if networks.hidden is not None:
        hidden = _linear(x, networks.hidden, networks.hidden_bias)
        hidden = jax.nn.elu(hidden if added is None else hidden + added)
        y = _linear(hidden, networks.output, networks.output_bias)
    if kept is not None:
        y = jnp.where(kept, y * (1 / (1 - rate) if rate < 1 else 0.0), 0)
    gated = jax.nn.glu(_linear(y, networks.gate, networks.gate_bias))
    if networks.scale is not None:
        stretched = x @ stretch_matrix(networks.scale, x)
        residual = _norm(stretched, networks.inner_weight, networks.inner_bias)
    return _norm(gated + (x if residual is None else residual), networks.weight, networks.bias)


def _linear(x: Array, weight: Any, bias: Any) -> Array:
    return x @ weight.T + spread(bias, x)


def _norm(x: Array, weight: Any, bias: Any) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    normalised = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return normalised * spread(weight, x) + spread(bias, x)


def tangent(words: Array, *operands: Array, moving: Sequence[bool], call: GatedCall) -> list[Array]:
    """Return the tangent of the result, linear in those of what moves among the arrays."""
    arrays, tangents = operands[: len(moving)], iter(operands[len(moving) + 1 :])
    directions = [
        next(tangents) if moves else jnp.zeros_like(array)
        for moves, array in zip(moving, arrays, strict=True)
    ]
    run: Callable[..., Any] = partial(forward, words, call=call)
    moved: list[Array] = jax.jvp(run, arrays, tuple(directions))[1]
    return moved


def backward(words: Array, *operands: Array, call: GatedCall) -> list[Array]:
    """Return the gradients of the arrays, from that of the result."""
    *arrays, _, gradient = operands
    run: Callable[..., Any] = partial(forward, words, call=call)
    return list(jax.vjp(run, *arrays)[1]([gradient]))


PLAIN: dict[str, Callable[..., Any]] = {
    "gated_forward": forward,
    "gated_tangent": tangent,
    "gated_backward": backward,
}
