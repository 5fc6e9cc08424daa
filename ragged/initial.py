"""Initial parameter values: torch's distributions from one NumPy generator, on every backend."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ragged.lstm import LSTMShape

Seed = int | np.random.Generator | None


def generator(seed: Seed) -> np.random.Generator:
    """Return the generator that a seed names; a generator is its own."""
    return np.random.default_rng(seed)


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> np.ndarray:
    """Draw float32 from U(-bound, bound)."""
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def lstm_values(rng: np.random.Generator, shape: LSTMShape) -> Mapping[str, np.ndarray]:
    """Draw all parameters of an LSTM from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size))."""
    bound = shape.hidden_size**-0.5
    return {name: uniform(rng, size, bound) for name, size in shape.parameter_shapes().items()}


def linear_values(rng: np.random.Generator, inputs: int, outputs: int) -> Mapping[str, np.ndarray]:
    """Draw `weight (outputs, inputs)` and `bias` from U(-1/sqrt(inputs), 1/sqrt(inputs))."""
    bound = inputs**-0.5
    return {
        "weight": uniform(rng, (outputs, inputs), bound),
        "bias": uniform(rng, (outputs,), bound),
    }
