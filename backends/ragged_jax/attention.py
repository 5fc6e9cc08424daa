"""Attention over rows of different lengths, on JAX."""

from __future__ import annotations

import numpy as np
from flax import nnx
from jax import Array

from ragged_jax.layers import Dropout, Linear
from ragged_jax.ragged_attention.attend import attend
from ragged_jax.tokens import Visible


class InterpretableAttention(nnx.Module):
    """Attention whose heads share their values, so that the mean of their weights explains it.

        A_k    = softmax(query_k(q) @ key_k(m).T / sqrt(size / heads))     over the steps it sees
        output = Linear(mean_k(A_k) @ value(m))

    A query without a visible step has weights of 0.

    Initial values are torch's of a Linear. The sources of the Temporal Fusion Transformer take
    Xavier's of each head, and biases of 0; of inputs of deviation 1 the scores then start at a
    deviation of 1.6, not 0.33, so that attention begins at a few steps instead of as nearly a mean,
    and forecasts were no better (benchmarks/README.md).

    Source: B. Lim and others, Temporal Fusion Transformers (2021), equations 13 to 16.
    """

    def __init__(
        self, size: int, num_heads: int, dropout: float = 0.0, *, rng: np.random.Generator
    ) -> None:
        self.num_heads = num_heads
        self.query = Linear(size, size, rng=rng)
        # A bias would add the same to all scores of a query, which leaves the softmax unchanged.
        self.key = Linear(size, size, bias=False, rng=rng)
        self.value = Linear(size, size // num_heads, rng=rng)
        self.output = Linear(size // num_heads, size, rng=rng)
        self.weights_dropout = Dropout(dropout, rng=rng)
        self.dropout = Dropout(dropout, rng=rng)

    def __call__(
        self, query: Array, memory: Array, visible: Visible, need_weights: bool = False
    ) -> tuple[Array, Array | None]:
        """Attend from `query (batch, q, size)` to `memory (batch, k, size)`.

        Args:
            query: the queries.
            memory: keys and values.
            visible: the layout of both, and what each query may see.
            need_weights: return the weights too, `(batch, heads, q, k)`, none of them dropped.
        """
        memory = visible.arrange(memory)
        q, k, v = self._heads(self.query(query)), self._heads(self.key(memory)), self.value(memory)
        mixed, weights = attend(
            q,
            k,
            v,
            visible.queries.lengths,
            visible.keys,
            layout=visible.layout,
            causal=visible.causal,
            diagonal=-1,
            dropout=self.weights_dropout.rate_now,
            seed=self.weights_dropout.words(),
            need_weights=need_weights,
        )
        explained = None if weights is None else visible.explain(weights)
        return self.dropout(self.output(mixed)), explained

    def _heads(self, x: Array) -> Array:
        """Split `(..., size)` into `(..., heads, size / heads)`."""
        return x.reshape(*x.shape[:-1], self.num_heads, x.shape[-1] // self.num_heads)
