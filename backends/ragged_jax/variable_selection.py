"""Variable selection, on JAX."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import PartitionSpec

from ragged.models.categories import Variables
from ragged_jax.gated_kernels import select, takes_kernels, weigh
from ragged_jax.layers import GRN, Linear, drop
from ragged_jax.sharding import run_in_parts, vary_alike
from ragged_jax.tokens import Tokens


class VariableSelection(nnx.Module):
    """Sum the features' embeddings at every step, weighted by a softmax.

        p_i    = Linear_i(x_i), or x_i, embedded       v_i = GRN_i(p_i)
        w      = softmax(GRN([p_1, ..., p_F], context))
        output = sum_i w_i * v_i

    Source: B. Lim and others, Temporal Fusion Transformers (2021), equations 6 to 8.
    """

    def __init__(
        self,
        variables: Variables,
        hidden_continuous_size: int,
        hidden_size: int,
        dropout: float = 0.0,
        *,
        context_size: int | None = None,
        rng: np.random.Generator,
    ) -> None:
        small, numbers = hidden_continuous_size, len(variables.numbers)
        features = numbers + len(variables.categories)
        self.variables, self.size = variables, small
        self.linears = Linear(1, small, num_copies=numbers, rng=rng) if numbers else None
        self.grns = GRN(
            small,
            min(small, hidden_size),
            hidden_size,
            dropout,
            interpolate=True,
            num_copies=features,
            rng=rng,
        )
        if features > 1:
            self.weights = GRN(
                features * small,
                min(hidden_size, features),
                features,
                dropout,
                context_size=context_size,
                interpolate=True,
                rng=rng,
            )

    def __call__(
        self, x: Array, context: Array | None = None, tokens: Tokens | None = None
    ) -> tuple[Array, Array]:
        """Map tokens, `(..., features)`, to `(..., hidden_size)` and the weights.

        Of the features the numbers stand before the embedded labels; the weights have their order.
        """
        found = self._by_kernels(x, context, tokens)
        if found is not None:
            return found
        projected = self._project(x)
        if projected.shape[-2] == 1:
            weights = jnp.ones_like(x[..., :1])
            return self._select(projected, weights), weights
        together = jax.lax.collapse(projected, projected.ndim - 2)
        weights = jax.nn.softmax(self.weights(together, context, tokens), -1)
        order = np.array(self.variables.order) if self.variables.categories else slice(None)
        return self._select(projected, weights), weights[..., order]

    def _by_kernels(
        self, x: Array, context: Array | None, tokens: Tokens | None
    ) -> tuple[Array, Array] | None:
        """Embed numbers, weigh and sum them by kernels; None where they are no numbers alone."""
        if self.linears is None or self.variables.categories:
            return None
        parts = self.grns.parts.after(self.linears, Linear)
        if not takes_kernels(parts, x):
            return None
        if x.shape[-1] == 1:
            weights = jnp.ones_like(x)
            return select(parts, x, weights), weights
        of_weights = self.weights.parts.after(self.linears, Linear)
        if not takes_kernels(of_weights, x, context):
            return None
        weights = weigh(of_weights, x, self.weights.added(context, tokens))
        return select(parts, x, weights), weights

    def _project(self, x: Array) -> Array:
        """Give each feature its own width, `(..., features, hidden_continuous_size)`."""
        count, parts = len(self.variables.numbers), []
        if self.linears is not None:
            numbers = self.linears(jnp.moveaxis(x[..., :count], -1, 0)[..., None])
            parts.append(jnp.moveaxis(numbers, 0, -2))
        if self.variables.categories:
            labels = len(self.variables.categories)
            parts.append(x[..., count:].reshape(*x.shape[:-1], labels, self.size))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, -2)

    def _select(self, projected: Array, weights: Array) -> Array:
        if takes_kernels(parts := self.grns.parts, projected, weights):
            return select(parts, projected, weights)
        projected = jnp.moveaxis(projected, -2, 0)
        if len(projected) == 1:
            return self.grns(projected)[0]
        dropout = self.grns.gate.dropout
        words, rate = dropout.words(), dropout.rate_now
        graph, *state = nnx.split(self.grns, nnx.Param, ...)
        return _sum_weighted(*state, projected, weights, words, graph=graph, rate=rate)


@partial(jax.jit, static_argnames=("graph", "rate"))
def _sum_weighted(
    copies: Any,
    streams: Any,
    projected: Array,
    weights: Array,
    words: Array | None,
    *,
    graph: Any,
    rate: float,
) -> Array:
    """Sum what copies of a GRN make of their features, weighted: `(..., hidden_size)`.

    One feature after the other, so that the steps between stay in a processor's cache; the backward
    pass computes them again, and memory for them is that of one feature.

    Args:
        copies: the parameters, each `(features, ...)`.
        streams: what else the GRN holds.
        projected: `(features, ..., hidden_continuous_size)`.
        weights: `(..., features)`.
        words: of the seed of what is dropped; None = nothing or all is.
        graph: of the GRN.
        rate: the share that is dropped.
    """

    def run(copies: Any, projected: Array, weights: Array, words: Array | None) -> Array:
        @partial(jax.checkpoint, prevent_cse=False)  # a loop keeps the two passes apart
        def add(total: Array, feature: tuple[Any, ...]) -> tuple[Array, None]:
            index, parameters, x, weight = feature
            grn = nnx.merge(graph, parameters, streams)

            def drop_own(y: Array) -> Array:
                return drop(y, words, rate, first=index * y.size)

            value = weight[..., None] * grn(x, drop=drop_own)
            return total + value.astype(total.dtype), None

        features = jnp.arange(len(projected), dtype=jnp.uint32)
        size = copies["norm"]["weight"].shape[-1]
        dtype = jnp.promote_types(projected.dtype, jnp.float32)
        none = jnp.zeros((*weights.shape[:-1], size), dtype)
        by_feature = features, copies, projected, jnp.moveaxis(weights, -1, 0)
        total, _ = jax.lax.scan(add, *vary_alike((none, by_feature)))
        return total.astype(projected.dtype)

    def result(rows: Any) -> PartitionSpec:
        return PartitionSpec(rows, *[None] * (weights.ndim - 1))

    selected: Array = run_in_parts(run, weights, result, copies, projected, weights, words)
    return selected
