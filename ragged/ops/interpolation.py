"""Linear interpolation along features, as a matrix."""

from __future__ import annotations

from functools import cache

import numpy as np


@cache
def interpolation_matrix(inputs: int, outputs: int) -> np.ndarray:
    """Return the matrix that resamples `inputs` points to `outputs`, both ends aligned.

    Output j lies at j * (inputs - 1) / (outputs - 1) of the inputs, interpolated between its two
    neighbours. A single output is the first input.

    Args:
        inputs: points, 1 or more.
        outputs: points returned, 1 or more.

    Returns:
        float64 `(inputs, outputs)`, to be multiplied from the right.

    Example:
        >>> interpolation_matrix(2, 3).tolist()
        [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]

    Source: `torch.nn.functional.interpolate(mode="linear", align_corners=True)`;
    `jax.image.resize` places the points otherwise.
    """
    positions = np.linspace(0, inputs - 1, outputs) if outputs > 1 else np.zeros(1)
    basis = np.eye(inputs)
    input_positions = np.arange(inputs)
    return np.stack([np.interp(positions, input_positions, row) for row in basis])
