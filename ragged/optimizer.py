"""The optimiser's constants, all written out, so that every backend follows one trajectory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ragged.errors import OptionError, refusal


@dataclass(frozen=True)
class AdamW:
    """AdamW after clipping the gradient's global norm.

        g = g * min(1, gradient_clip / |g|)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p = p - learning_rate * (m_hat / (sqrt(v_hat) + epsilon) + weight_decay * p)

    Args:
        learning_rate: step size; above 0.
        beta1: decay of the first moment, in 0..1.
        beta2: decay of the second moment, in 0..1.
        epsilon: added to the root of the second moment.
        weight_decay: decoupled decay of every parameter.
        gradient_clip: largest global norm of the gradient; None = any.
        decay_steps: steps over which the learning rate falls to 0 along half a cosine;
            None = it stays.

    Example:
        >>> [round(AdamW(learning_rate=2.0, decay_steps=4).rate(step), 3) for step in (0, 2, 4, 9)]
        [2.0, 1.0, 0.0, 0.0]

    Source: I. Loshchilov and F. Hutter, Decoupled Weight Decay Regularization (2019).
    """

    learning_rate: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    gradient_clip: float | None = 1.0
    decay_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon"):
            if not getattr(self, name) > 0:
                got = repr(getattr(self, name))
                raise OptionError(refusal("AdamW", name, got, "above 0", "Raise it."))
        if self.decay_steps is not None and self.decay_steps < 1:
            got = repr(self.decay_steps)
            raise OptionError(refusal("AdamW", "decay_steps", got, "1 or more", "Or leave it out."))
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise OptionError(
                refusal(
                    "AdamW",
                    "gradient_clip",
                    repr(self.gradient_clip),
                    "above 0",
                    "Or leave it out.",
                )
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if self.decay_steps is None:
            return self.learning_rate
        done = min(step / self.decay_steps, 1.0)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2
