"""Losses of numbers: the errors of forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from ragged.checks import as_flag, as_number, as_numbers
from ragged.errors import OptionError, ShapeError
from ragged.losses.masking import Masking, masked, masked_loss
from ragged.protocol import Array, Backend


@masked_loss()
def mse(prediction: Array, target: Array, **masking: Unpack[Masking]) -> Array:
    """Squared error, `(target - prediction)**2`.

    Example:
        >>> import numpy as np, ragged
        >>> prediction, target = np.array([[1., np.nan]]), np.array([[3., np.nan]])
        >>> float(ragged.losses.mse(prediction, target, lengths=[1]))
        4.0
    """
    return masked(mse, lambda backend, p, t: (t - p) ** 2, prediction, target, **masking)


@masked_loss()
def mae(prediction: Array, target: Array, **masking: Unpack[Masking]) -> Array:
    """Absolute error, `|target - prediction|`.

    Example:
        >>> import numpy as np, ragged
        >>> float(ragged.losses.mae(np.array([[1., 2.]]), np.array([[3., np.nan]]), lengths=[1]))
        2.0
    """
    return masked(mae, lambda backend, p, t: backend.xp.abs(t - p), prediction, target, **masking)


@masked_loss()
def huber(
    prediction: Array, target: Array, *, delta: float = 1.0, **masking: Unpack[Masking]
) -> Array:
    """Huber loss: `e**2 / 2` where `|e| <= delta`, else `delta * (|e| - delta / 2)`.

    Args:
        delta: where the parabola becomes a line; above 0, in the target's unit.

    Raises:
        OptionError: a delta that is not above 0.

    Example:
        >>> import numpy as np, ragged
        >>> float(ragged.losses.huber(np.array([[0., 0.]]), np.array([[1., 3.]])))
        1.5

    Source: P. J. Huber, Robust Estimation of a Location Parameter (1964).
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        d, error = _positive("huber", "delta", delta), backend.xp.abs(target - prediction)
        return backend.xp.where(error <= d, error**2 / 2, d * (error - d / 2))

    return masked(huber, elementwise, prediction, target, **masking)


@masked_loss()
def mape(
    prediction: Array, target: Array, *, epsilon: float = 1e-8, **masking: Unpack[Masking]
) -> Array:
    """Absolute percentage error as a fraction, `|target - prediction| / max(|target|, epsilon)`.

    Args:
        epsilon: the minimum divisor, for targets near 0.

    Raises:
        OptionError: an epsilon that is not above 0.

    Example:
        >>> import numpy as np, ragged
        >>> float(ragged.losses.mape(np.array([[3., 1.]]), np.array([[4., 4.]])))
        0.5
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        minimum, size = _positive("mape", "epsilon", epsilon), backend.xp.abs(target)
        divisor = backend.xp.where(size > minimum, size, backend.xp.full_like(size, minimum))
        return backend.xp.abs(target - prediction) / divisor

    return masked(mape, elementwise, prediction, target, **masking)


@masked_loss()
def smape(prediction: Array, target: Array, **masking: Unpack[Masking]) -> Array:
    """Symmetric percentage error in 0..2, `2 |e| / (|target| + |prediction|)`; 0 where both are 0.

    Example:
        >>> import numpy as np, ragged
        >>> float(ragged.losses.smape(np.array([[1., 0.]]), np.array([[3., 0.]])))
        0.5

    Source: J. S. Armstrong, Long-Range Forecasting (1985).
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        xp = backend.xp
        size = xp.abs(target) + xp.abs(prediction)
        nonzero = size != 0  # true of NaN, so that the loss is NaN
        ratio = 2 * xp.abs(target - prediction) / xp.where(nonzero, size, xp.ones_like(size))
        return xp.where(nonzero, ratio, xp.zeros_like(ratio))

    return masked(smape, elementwise, prediction, target, **masking)


@masked_loss("quantiles")
def quantile(
    prediction: Array,
    target: Array,
    *,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    **masking: Unpack[Masking],
) -> Array:
    """Pinball loss, `max(q e, (q - 1) e)` with `e = target - prediction`, averaged over quantiles.

    Args:
        prediction: `(batch, time, *features, quantiles)`.
        quantiles: the levels, each inside 0..1, in the order of the last axis.

    Raises:
        OptionError: a level outside 0..1, or another number of them than the last axis has.

    Example:
        >>> import numpy as np, ragged
        >>> prediction, target = np.array([[[1., 2.]]]), np.array([[4.]])
        >>> float(ragged.losses.quantile(prediction, target, quantiles=(0.25, 0.5)))
        0.875

    Source: R. Koenker and G. Bassett, Regression Quantiles (1978).
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        levels = as_numbers("quantile", "quantiles", quantiles)
        if len(levels) != int(prediction.shape[-1]) or not all(0 < level < 1 for level in levels):
            got = f"{tuple(levels)} for a last axis of {int(prediction.shape[-1])}"
            expected = "one level inside 0..1 for each prediction"
            remedy = "Name the levels that the model predicts."
            raise OptionError.of("quantile", "quantiles", got, expected, remedy)
        q = _on_device(backend, levels, like=prediction)
        error = target[..., None] - prediction
        return backend.xp.mean(backend.xp.maximum(q * error, (q - 1) * error), axis=-1)

    return masked(quantile, elementwise, prediction, target, **masking)


@masked_loss("mean and log variance")
def gaussian_nll(
    prediction: Array, target: Array, *, full: bool = False, **masking: Unpack[Masking]
) -> Array:
    """Gaussian negative log likelihood, `(log v + (target - m)**2 / v) / 2`.

    Args:
        prediction: `(batch, time, *features, 2)`: the mean m and log v.
        full: add the constant `log(2 pi) / 2`.

    Raises:
        ShapeError: a last axis that is not of 2.

    Example:
        >>> import numpy as np, ragged
        >>> float(ragged.losses.gaussian_nll(np.array([[[1., 0.]]]), np.array([[3.]])))
        2.0

    Source: D. A. Nix and A. S. Weigend, Estimating the Mean and Variance (1994).
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        if int(prediction.shape[-1]) != 2:
            got, remedy = f"of shape {tuple(prediction.shape)}", "Stack both along the last axis."
            expected = "a last axis of 2, mean and log variance"
            raise ShapeError.of("gaussian_nll", "prediction", got, expected, remedy)
        mean, log_variance = prediction[..., 0], prediction[..., 1]
        constant = float(np.log(2 * np.pi)) if as_flag("gaussian_nll", "full", full) else 0.0
        scaled = (target - mean) ** 2 * backend.xp.exp(-log_variance)
        return (log_variance + scaled + constant) / 2

    return masked(gaussian_nll, elementwise, prediction, target, **masking)


def _on_device(backend: Backend, values: Sequence[float], *, like: Array) -> Array:
    """Make an array of numbers where another is, of its dtype.

    It is filled there: an array of the host would be copied to a GPU at every step, for which no
    CUDA graph could be recorded.
    """
    one = backend.xp.astype(backend.arange_like(1, like=like), like.dtype)
    return backend.xp.concat([backend.xp.full_like(one, float(value)) for value in values])


def _positive(function: str, argument: str, value: Any) -> float:
    number = float(as_number(function, argument, value))
    if not number > 0:
        raise OptionError.of(function, argument, repr(value), "above 0", "Raise it.")
    return number
