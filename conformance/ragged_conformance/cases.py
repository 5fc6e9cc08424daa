"""The cases that the tests share: lengths, LSTM options, and values to fill padding with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

WIDTH = 5
INPUTS = 2
HIDDEN = 3

# Four rows wherever a case allows it: JAX then compiles one program for many cases.
LENGTHS: dict[str, tuple[int, ...]] = {
    "mixed": (3, 5, 1, 4),
    "length 0": (0, 3, 5, 0),
    "length 1": (1, 1, 2, 1),
    "ties": (3, 5, 3, 5),
    "all full": (5, 5, 5, 5),
    "all equal, padded": (3, 3, 3, 3),
    "all rows empty": (0, 0, 0, 0),
    "one long among many short": (1, 1, 1, 1, 1, 1, 5, 1, 1),
    "no rows": (),
}


def lengths_on(backend: str, case: str) -> tuple[int, ...]:
    """The lengths of a case; on JAX, which compiles each number of rows, those of four at most."""
    return LENGTHS[case][-4:] if backend == "jax" else LENGTHS[case]


GRADIENT_LENGTHS = (3, 5, 0, 1)

LSTM_OPTIONS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "no bias": {"bias": False},
    "projection": {"proj_size": 2},
    "everything": {"num_layers": 2, "bidirectional": True, "proj_size": 2},
}

POLICIES = ("auto", "rule", "always", "never")
EMULATED = {"rule": "never", "always": "never"}  # on JAX, which does not pack
PADDING_VALUES = (float("nan"), float("inf"), -float("inf"), 1e30)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Draw standard normal numbers that every dtype represents exactly."""
    values = np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
    bits = np.asarray(values).view(np.uint32) & np.uint32(0xFFFF0000)  # bfloat16's 7 bits
    return bits.view(np.float32).astype(float)


# The last axis that a prediction has and its target has not, at the default options of a loss.
LAST_AXIS = {"quantile": (3,), "gaussian_nll": (2,), "cross_entropy": (3,)}


def target_of(loss: str, values: np.ndarray) -> np.ndarray:
    """Turn normal numbers into targets of a loss: labels, probabilities, or the numbers."""
    if loss == "cross_entropy":
        return np.floor(2 * np.abs(values)) % 3
    return np.minimum(np.abs(values) / 4, 1.0) if loss == "binary_cross_entropy" else values


def parametrize(names: Iterable[str], prefix: str) -> pytest.MarkDecorator:
    """Parametrise a test by names, each marked with the operation `prefix` + name."""
    marked = [pytest.param(name, marks=pytest.mark.operation(prefix + name)) for name in names]
    return pytest.mark.parametrize("name", marked)


def fill_padding(
    x: np.ndarray, lengths: Any, value: float = float("nan"), alignment: str = "left"
) -> np.ndarray:
    """Write a value into every padding step."""
    x = x.copy()
    for row, length in enumerate(lengths):
        if alignment == "left":
            x[row, length:] = value
        else:
            x[row, : x.shape[1] - length] = value
    return x
