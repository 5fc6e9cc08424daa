"""Optimisers: all constants are explicit, so that backends compute the same steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

from ragged.checks import check
from ragged.errors import OptionError


class Optimizer(ABC):
    """An optimiser, whose learning rate may be scheduled."""

    learning_rate: float

    @property
    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """The state of each parameter, by torch's names."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            above = field.name in ("learning_rate", "epsilon")
            below = field.name in ("beta1", "beta2", "momentum")
            check(self, field.name, not above or value > 0, "above 0")
            check(self, field.name, not below or 0 <= value < 1, "0 or more, below 1")
            check(self, field.name, field.name != "weight_decay" or value >= 0, "0 or more")


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam, without weight decay; see `AdamW` for the formula.

    Args:
        learning_rate: step size; above 0.
        beta1: decay of the first moment, 0 or more, below 1.
        beta2: decay of the second moment, 0 or more, below 1.
        epsilon: added to the root of the second moment; above 0.

    Raises:
        OptionError: a constant outside its range.

    Example:
        >>> Adam().learning_rate
        0.003

    Source: D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization (2015).
    """

    learning_rate: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    @property
    def slots(self) -> tuple[str, ...]:
        """The two moments."""
        return ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW: Adam with decoupled weight decay.

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p = p - learning_rate * (m_hat / (sqrt(v_hat) + epsilon) + weight_decay * p)

    Args:
        learning_rate: step size; above 0.
        beta1: decay of the first moment, 0 or more, below 1.
        beta2: decay of the second moment, 0 or more, below 1.
        epsilon: added to the root of the second moment; above 0.
        weight_decay: decoupled decay of every parameter, 0 or more.

    Raises:
        OptionError: a constant outside its range.

    Example:
        >>> AdamW(learning_rate=0.001).slots
        ('exp_avg', 'exp_avg_sq')

    Source: I. Loshchilov and F. Hutter, Decoupled Weight Decay Regularization (2019).
    """

    weight_decay: float = 1e-2


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch writes it.

        g = g + weight_decay * p
        b = momentum * b + g
        p = p - learning_rate * (g + momentum * b if nesterov else b)

    Args:
        learning_rate: step size; above 0.
        momentum: decay of the running sum of gradients, 0 or more, below 1.
        nesterov: look ahead along the running sum.
        weight_decay: L2 penalty of every parameter, added to its gradient; 0 or more.

    Raises:
        OptionError: a constant outside its range, or nesterov without momentum.

    Example:
        >>> SGD(learning_rate=0.1, momentum=0.5).momentum
        0.5

    Source: I. Sutskever et al., On the importance of initialization and momentum (2013).
    """

    learning_rate: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        is_valid = bool(self.momentum) or not self.nesterov
        check(self, "nesterov", is_valid, "False without momentum")

    @property
    def slots(self) -> tuple[str, ...]:
        """The running sum, if there is one."""
        return ("momentum_buffer",) if self.momentum else ()


def unknown(optimizer: object) -> OptionError:
    """Compose the error for an optimiser that a backend does not have."""
    got = type(optimizer).__name__
    expected = "AdamW, Adam or SGD of ragged.training.optimizers"
    return OptionError.of("TrainingStep", "optimizer", got, expected, "Choose one of them.")
