"""Variable selection, on torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ragged.models.categories import Variables
from ragged_torch.gated_kernels import select, takes_kernels, weigh
from ragged_torch.layers import GRN, Linear
from ragged_torch.tokens import Tokens


class VariableSelection(nn.Module):
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
        super().__init__()
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

    def forward(
        self, x: Tensor, context: Tensor | None = None, tokens: Tokens | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map tokens, `(..., features)`, to `(..., hidden_size)` and the weights.

        Of the features the numbers stand before the embedded labels; the weights have their order.
        """
        found = self._by_kernels(x, context, tokens)
        if found is not None:
            return found
        projected = self._project(x)
        if projected.shape[-2] == 1:
            weights = torch.ones_like(x[..., :1])
            return self._select(projected, weights), weights
        weights = _softmax(self.weights(projected.flatten(-2), context, tokens))
        selected = self._select(projected, weights)
        if not self.variables.categories:
            return selected, weights
        order = self.variables.order
        return selected, weights[..., order]

    def _by_kernels(
        self, x: Tensor, context: Tensor | None, tokens: Tokens | None
    ) -> tuple[Tensor, Tensor] | None:
        """Embed numbers, weigh and sum them by kernels; None where they are no numbers alone."""
        if self.linears is None or self.variables.categories:
            return None
        parts = self.grns.parts.after(self.linears, Linear)
        if not takes_kernels(parts, x):
            return None
        if x.shape[-1] == 1:
            weights = torch.ones_like(x)
            return select(parts, x, weights), weights
        of_weights = self.weights.parts.after(self.linears, Linear)
        if not takes_kernels(of_weights, x, context):
            return None
        weights = weigh(of_weights, x, self.weights.added(context, tokens))
        return select(parts, x, weights), weights

    def _select(self, projected: Tensor, weights: Tensor) -> Tensor:
        if takes_kernels(parts := self.grns.parts, projected, weights):
            return select(parts, projected, weights)
        values: Tensor = self.grns(projected.movedim(-2, 0))
        return values[0] if len(values) == 1 else torch.einsum("...f,f...d->...d", weights, values)

    def _project(self, x: Tensor) -> Tensor:
        """Give each feature its own width, `(..., features, hidden_continuous_size)`."""
        count, has_labels, parts = len(self.variables.numbers), bool(self.variables.categories), []
        if self.linears is not None:
            numbers = x[..., :count] if has_labels else x
            parts.append(self.linears(numbers.movedim(-1, 0)[..., None]).movedim(0, -2))
        if has_labels:
            parts.append(x[..., count:].unflatten(-1, (-1, self.size)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


def _softmax(scores: Tensor) -> Tensor:
    """Take the softmax of each token's few scores.

    On a CPU torch's own takes rows of fewer than 16 number by number, columns by vectors.
    """
    if scores.is_cpu and scores.shape[-1] < 16:
        return torch.softmax(scores.mT, -2).mT.contiguous()
    return torch.softmax(scores, -1)
