"""The tolerances, one table, and the two comparisons that read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    """The greatest error allowed is `atol + rtol * max|expected|`."""

    rtol: float
    atol: float


LAYER = "layer"  # a layer's values, a loss
HALF = ("bfloat16", "float16")
MODEL = "model"  # a whole model's values, and all gradients
DEEP = "deep"  # gradients of an attention model

TOLERANCES = {
    ("float64", LAYER): Tolerance(1e-10, 1e-12),
    ("float64", MODEL): Tolerance(1e-10, 1e-12),
    ("float32", LAYER): Tolerance(1e-5, 1e-6),
    ("float32", MODEL): Tolerance(1e-4, 1e-5),
    ("bfloat16", LAYER): Tolerance(2e-2, 2e-2),
    ("bfloat16", MODEL): Tolerance(2e-2, 2e-2),
    ("float16", LAYER): Tolerance(2e-2, 2e-2),
    ("float16", MODEL): Tolerance(2e-2, 2e-2),
    ("float64", DEEP): Tolerance(1e-10, 1e-12),
    ("float32", DEEP): Tolerance(1e-4, 1e-5),
    # Some thirty operations round to 8 bits one after the other, norms and softmaxes among them.
    ("bfloat16", DEEP): Tolerance(4e-2, 4e-2),
    ("float16", DEEP): Tolerance(2e-2, 2e-2),
}


MEASURED: list[float] = []  # the errors of the running test, in units of what is allowed


def assert_close(
    actual: np.ndarray, expected: np.ndarray, dtype: str, kind: str = LAYER, what: str = "value"
) -> None:
    """Compare in the maximum norm; shapes must agree and nothing may be NaN or infinite.

    >>> assert_close(np.array([1.0, 2.0]), np.array([1.0, 2.1]), "float32", LAYER, "h")
    Traceback (most recent call last):
    AssertionError: h: the largest error is 0.1, allowed is 2.2e-05 (float32, layer)
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    assert np.isfinite(expected).all(), f"{what}: the expected values are not finite"
    assert np.isfinite(actual).all(), f"{what}: not finite"
    rtol, atol = TOLERANCES[dtype, kind]
    error = np.abs(actual - expected).max(initial=0.0)
    allowed = atol + rtol * np.abs(expected).max(initial=0.0)
    MEASURED.append(float(error / allowed))
    assert error <= allowed, (
        f"{what}: the largest error is {error:.2g}, allowed is {allowed:.2g} ({dtype}, {kind})"
    )


def assert_all_close(
    actual: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    dtype: str,
    kind: str = MODEL,
) -> None:
    """Compare gradients, or other arrays by name; the names must be the same."""
    assert set(actual) == set(expected), f"{sorted(actual)}, not {sorted(expected)}"
    for name, value in expected.items():
        assert_close(actual[name], value, dtype, kind, name)
