"""The oracle's losses: one element at a time, from the definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragged_conformance.oracle import Ints, padding_mask


def _abs(x: Any) -> Any:
    return -x if np.real(x) < 0 else x  # analytic, unlike abs, so that the complex step sees it


def _mse(p: Any, t: Any) -> Any:
    return (t - p) ** 2


def _mae(p: Any, t: Any) -> Any:
    return _abs(t - p)


def _huber(p: Any, t: Any, delta: float = 1.0) -> Any:
    e = _abs(t - p)
    return e**2 / 2 if np.real(e) <= delta else delta * (e - delta / 2)


def _mape(p: Any, t: Any, epsilon: float = 1e-8) -> Any:
    return _abs(t - p) / max(float(_abs(t)), epsilon)


def _smape(p: Any, t: Any) -> Any:
    size = _abs(t) + _abs(p)
    return 2 * _abs(t - p) / size if np.real(size) > 0 else 0.0


def _quantile(p: Any, t: Any, quantiles: Sequence[float] = (0.1, 0.5, 0.9)) -> Any:
    errors = [(q, t - prediction) for q, prediction in zip(quantiles, p, strict=True)]
    return sum(q * e if np.real(e) > 0 else (q - 1) * e for q, e in errors) / len(errors)


def _gaussian_nll(p: Any, t: Any, full: bool = False) -> Any:
    constant = math.log(2 * math.pi) if full else 0.0
    return (p[1] + (t - p[0]) ** 2 / np.exp(p[1]) + constant) / 2


def _cross_entropy(
    p: Any, t: Any, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0
) -> Any:
    highest = max(np.real(p))
    log_sum = highest + np.log(sum(np.exp(logit - highest) for logit in p))
    total = 0.0
    for k, logit in enumerate(p):
        q = t[k] if np.ndim(t) else float(k == t)
        q = (1 - label_smoothing) * q + label_smoothing / len(p)
        if q:  # 0 log 0 is 0
            total = total + (1.0 if class_weights is None else class_weights[k]) * q * (
                log_sum - logit
            )
    return total


def _binary_cross_entropy(
    p: Any, t: Any, pos_weight: float = 1.0, label_smoothing: float = 0.0
) -> Any:
    q = (1 - label_smoothing) * t + label_smoothing / 2
    return pos_weight * q * _softplus(-p) + (1 - q) * _softplus(p)


def _softplus(x: Any) -> Any:
    return x + np.log(1 + np.exp(-x)) if np.real(x) > 0 else np.log(1 + np.exp(x))


LOSSES: dict[str, Callable[..., Any]] = {
    "mse": _mse,
    "mae": _mae,
    "huber": _huber,
    "mape": _mape,
    "smape": _smape,
    "quantile": _quantile,
    "gaussian_nll": _gaussian_nll,
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
}


def _share(name: str, t: Any, class_weights: Sequence[float] | None = None, **_: Any) -> float:
    """The factor beside its weight with which an element counts in a mean."""
    of_label = name == "cross_entropy" and class_weights is not None and not np.ndim(t)
    return class_weights[int(t)] if of_label and class_weights is not None else 1.0


def loss(
    name: str,
    prediction: np.ndarray,
    target: np.ndarray,
    *,
    lengths: Ints | None = None,
    mask: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    reduction: str = "mean",
    alignment: str = "left",
    **options: Any,
) -> Any:
    """Compute a loss over the valid elements alone."""
    if lengths is not None:
        mask = padding_mask(lengths, target.shape[1], alignment)
    in_target = name == "cross_entropy" and target.ndim == prediction.ndim
    shape = target.shape[:-1] if in_target else target.shape
    elements = np.zeros(shape, prediction.dtype)
    terms: list[tuple[int, Any, float]] = []  # row, weighted loss, weight
    for index in np.ndindex(shape):
        if mask is not None and not mask[index[: mask.ndim]]:
            continue
        weight = 1.0 if weights is None else float(weights[index[: weights.ndim]])
        value = weight * LOSSES[name](prediction[index], target[index], **options)
        elements[index] = value
        terms.append((index[0], value, weight * _share(name, target[index], **options)))
    if reduction == "none":
        return elements
    if reduction == "sum":
        return sum(value for _, value, _ in terms)
    if reduction == "mean":
        return _mean(terms)
    rows = [[t for t in terms if t[0] == row] for row in range(len(target))]
    means = [_mean(row) for row in rows if sum(weight for _, _, weight in row)]
    return sum(means) / len(means) if means else 0.0


def _mean(terms: list[tuple[int, Any, float]]) -> Any:
    count = sum(weight for _, _, weight in terms)
    return sum(value for _, value, _ in terms) / count if count else 0.0
