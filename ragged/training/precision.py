"""The precisions of a run: which dtype it computes in, and which its parameters have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOW_PRECISION = ("bfloat16", "float16")
PRECISIONS = ("float32", "tf32", "float64", *LOW_PRECISION)


def param_dtype(dtype: str) -> str:
    """The dtype that parameters are kept and updated in, by the precision of a run.

    >>> param_dtype("bfloat16"), param_dtype("float64")
    ('float32', 'float64')
    """
    return "float32" if dtype in LOW_PRECISION else compute_dtype(dtype)


def compute_dtype(precision: str) -> str:
    """The dtype that a precision computes in.

    >>> compute_dtype("tf32"), compute_dtype("bfloat16")
    ('float32', 'bfloat16')
    """
    return "float32" if precision == "tf32" else precision


def ramped_decay(decay: float, step: int) -> float:
    """The decay of a running average of parameters at a step, ramped up from 0.1.

    `min(decay, (1 + step) / (10 + step))`

    Args:
        decay: the final decay, 0 or more, below 1.
        step: counted from 0.

    >>> [ramped_decay(0.9, step) for step in (0, 10, 1000)]
    [0.1, 0.55, 0.9]
    """
    return min(decay, (1 + step) / (10 + step))


@dataclass
class LossScale:
    """The scale of a float16 loss, so that small gradients do not underflow.

    Halved, and the step left out, where a gradient overflows; doubled after `patience` good steps.

    >>> scale = LossScale(8.0, patience=2)
    >>> for finite in (True, False, True, True):
    ...     scale.update(finite)
    >>> scale.value
    8.0

    Source: P. Micikevicius et al., Mixed Precision Training (2018).
    """

    value: float = 2.0**15
    good: int = 0
    patience: int = 2000

    @classmethod
    def of(cls, dtype: str) -> LossScale:
        """Return the initial scale: 1 for all dtypes but float16."""
        return cls() if dtype == "float16" else cls(1.0)

    def update(self, finite: bool) -> None:
        """Update the scale: were the gradients of a step finite?"""
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, 2.0**-14)
        elif self.good == self.patience:
            self.value, self.good = self.value * 2, 0

    @property
    def state(self) -> np.ndarray:
        """The state for a checkpoint: `(value, good)`."""
        return np.array([self.value, self.good])

    def load(self, state: np.ndarray) -> None:
        """Undo `state`."""
        self.value, self.good = float(state[0]), int(state[1])
