"""Attention over rows of different lengths, on torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ragged.errors import DerivativeError
from ragged_torch.layers import Dropout, Linear
from ragged_torch.tokens import Visible
from ragged_torch.transforms import has_tangents, is_transformed


class InterpretableAttention(nn.Module):
    """Attention whose heads share their values, so that the mean of their weights explains it.

        A_k    = softmax(query_k(q) @ key_k(m).T / sqrt(size / heads))     where the mask is True
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
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(size, size, rng=rng)
        # A bias would add the same to all scores of a query, which leaves the softmax unchanged.
        self.key = Linear(size, size, bias=False, rng=rng)
        self.value = Linear(size, size // num_heads, rng=rng)
        self.output = Linear(size // num_heads, size, rng=rng)
        self.weights_dropout = Dropout(dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self, query: Tensor, memory: Tensor, visible: Visible, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `query (tokens, size)` to `memory (tokens, size)`.

        Args:
            query: the queries.
            memory: keys and values.
            visible: the layout of both, and what each query may see.
            need_weights: return the weights too, `(batch, heads, q, k)`, which fused kernels skip.
        """
        q, k, v = self.query(query), self.key(memory), self.value(memory)
        mixed, weights = self._attend(q, k, v, visible, need_weights)
        return self.dropout(self.output(mixed)), weights

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, seen: Visible, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the mean over the heads of `A_k @ v`, and the weights if asked for."""
        mask = seen.mask
        q, k = self._heads(seen.queries.pad(q)), self._heads(seen.keys.pad(k))
        v = seen.keys.pad(v)
        some = mask.any(-1, keepdim=True)
        visible = mask | ~some  # a query without visible steps sees all, and is set to 0 below
        drops = self.training and self.weights_dropout.p > 0
        if need_weights or drops or is_transformed() or has_tangents():
            scores = (q * q.shape[-1] ** -0.5) @ k.mT
            weights = torch.softmax(scores.masked_fill(~visible[:, None], float("-inf")), -1)
            mixed = self.weights_dropout(weights).mean(1) @ v
        else:
            values = v[:, None].expand(-1, self.num_heads, -1, -1)
            attend = nn.functional.scaled_dot_product_attention
            attended = attend(q, k, values, visible[:, None])
            if attended.requires_grad and not torch.compiler.is_compiling():
                _refuse_second_derivatives(attended)
            mixed = attended.mean(1)
        mixed = seen.queries.take(torch.where(some, mixed, 0.0))
        return mixed, torch.where(some[:, None], weights, 0.0) if need_weights else None

    def _heads(self, x: Tensor) -> Tensor:
        """Split `(batch, time, size)` into `(batch, heads, time, size / heads)`."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _refuse_second_derivatives(attended: Tensor) -> None:
    """Refuse second derivatives of torch's fused attention, which has none."""

    def refuse(_: Tensor) -> None:
        if torch.is_grad_enabled():  # by create_graph
            layer, argument = "InterpretableAttention", "create_graph"
            expected = "False: torch's fused attention has no second derivative"
            remedy = "Call the model inside torch.nn.attention.sdpa_kernel(SDPBackend.MATH)."
            raise DerivativeError.of(layer, argument, "True", expected, remedy)

    if "ScaledDotProduct" in type(attended.grad_fn).__name__:
        attended.register_hook(refuse)
