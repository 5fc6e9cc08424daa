"""Initial parameter values: torch's distributions from one NumPy generator, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ragged.checks import as_size
from ragged.recurrent.shape import RecurrentShape

Seed = int | np.random.Generator | None
Shape = tuple[int, ...]
Initializer = Callable[[np.random.Generator, Shape], np.ndarray]


class Uniform(Protocol):
    """A generator of uniform values: NumPy's, or a backend's."""

    def uniform(self, low: float, high: float, size: Shape) -> Any:
        """Draw from U(low, high)."""


def generator(seed: Seed) -> np.random.Generator:
    """Return the generator of a seed; a generator is returned unchanged."""
    if seed is not None and not isinstance(seed, np.random.Generator):
        seed = as_size("LSTM", "seed", seed, maximum=None)
    return np.random.default_rng(seed)


def uniform(rng: Uniform, shape: Shape, bound: float) -> np.ndarray:
    """Draw float32 from U(-bound, bound)."""
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def fan_in_uniform(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw `(..., outputs, inputs)` from U(-1/sqrt(inputs), 1/sqrt(inputs))."""
    return uniform(rng, shape, shape[-1] ** -0.5)


def xavier_uniform(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw `(..., outputs, inputs)` from U(-b, b) with b = sqrt(6 / (inputs + outputs)).

    Source: X. Glorot and Y. Bengio, Understanding the Difficulty of Training (2010).
    """
    return uniform(rng, shape, (6 / (shape[-1] + shape[-2])) ** 0.5)


def he_normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw `(..., outputs, inputs)` from a normal distribution of variance 2/inputs.

    Source: K. He and others, Delving Deep into Rectifiers (2015).
    """
    return rng.normal(0.0, (2 / shape[-1]) ** 0.5, shape).astype(np.float32)


def recurrent_values(rng: Uniform, shape: RecurrentShape) -> Mapping[str, np.ndarray]:
    """Draw all parameters of a layer from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size))."""
    shape.check_extent()
    bound = shape.hidden_size**-0.5
    return {name: uniform(rng, size, bound) for name, size in shape.parameter_shapes().items()}


def linear_values(
    rng: np.random.Generator,
    inputs: int,
    outputs: int,
    *,
    initializer: Initializer = fan_in_uniform,
    bias: bool = True,
    num_copies: int | None = None,
) -> Mapping[str, np.ndarray]:
    """Draw `weight (outputs, inputs)` and `bias`, with a leading axis for `num_copies`.

    The bias has torch's distribution with `fan_in_uniform` and is 0 with other initializers.
    """
    copies = () if num_copies is None else (num_copies,)
    values = {"weight": initializer(rng, (*copies, outputs, inputs))}
    if bias and initializer is fan_in_uniform:
        values["bias"] = uniform(rng, (*copies, outputs), inputs**-0.5)
    elif bias:
        values["bias"] = np.zeros((*copies, outputs), np.float32)
    return values


def embedding_values(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """Draw `weight (rows, size)` of an embedding from N(0, 1), as torch does; row 0 is 0."""
    weight = rng.normal(0.0, 1.0, (rows, size)).astype(np.float32)
    weight[0] = 0
    return weight
