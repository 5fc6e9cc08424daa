"""Losses over what is real: sum(weight * loss) / sum(weight) over valid elements.

Every loss is called `loss(prediction, target, *, lengths=None, mask=None, weights=None,
reduction="mean", alignment="left")`, and with options of its own:

- `prediction`, `target`: `(batch, time, *features)`; losses that say so take a last axis more.
- `lengths`: `(batch,)` integers, or `mask`: boolean `(batch, time)` or `(batch, time, *features)`,
  True = valid, holes allowed; neither = all valid.
- `weights`: `(batch,)`, `(batch, time)` or `(batch, time, *features)`.
- `reduction`: "mean"; "sum"; "sequence_mean" (the mean of the rows' own means, empty rows left
  out); "none" (elements, 0 at padding).

Nothing valid gives 0 with zero gradient. Padding is selected away before anything is computed, so
NaN there is harmless forwards and backwards. `loss.total_and_count(...)` gives the weighted sum and
the sum of weights, to be added up over micro-batches or devices before one division.

A loss is computed and returned in the widest floating dtype of `prediction` and `target`, and in
float32 at least: bfloat16 counts no further than 256 without gaps, and a squared error of 256
overflows float16. Integers and booleans are cast to it (float32 holds those up to 2**24 exactly);
complex numbers are refused. Lists and NumPy's floats take the dtype of the other side's array.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol, TypedDict, Unpack, cast, runtime_checkable

import numpy as np

from ragged.backend import backend_of
from ragged.checks import as_array, as_choice, as_flag, as_number, as_numbers, dtype_error
from ragged.errors import OptionError, ShapeError
from ragged.lengths import Lengths
from ragged.ops.masks import check_alignment, padding_mask
from ragged.protocol import Array, Backend

REDUCTIONS = ("mean", "sum", "sequence_mean", "none")
TOTALS = object()  # in a reduction's place: the weighted sum and the sum of weights
Arguments = ParamSpec("Arguments")


class Masking(TypedDict, total=False):
    """What every loss takes beside its two sides and its own options; see the module."""

    lengths: object
    mask: Array
    weights: Array
    reduction: str
    alignment: str


@runtime_checkable
class MaskedLoss(Protocol[Arguments]):
    """A loss: a function that is masked, weighted and reduced.

    Args:
        extra_axis: what the prediction's last axis holds, which the target lacks; None = nothing.
    """

    __name__: str
    extra_axis: str | None

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Array:
        """Return the reduced loss; see the module."""

    def total_and_count(
        self, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> tuple[Array, Array]:
        """Return sum(weight * loss) and sum(weight) over the valid elements."""


def masked_loss(
    extra_axis: str | None = None,
) -> Callable[[Callable[Arguments, Array]], MaskedLoss[Arguments]]:
    """Add to a function what else a loss has."""

    def complete(loss: Any) -> MaskedLoss[Arguments]:
        def total_and_count(*args: Any, **kwargs: Any) -> Any:
            """Return sum(weight * loss) and sum(weight) over the valid elements."""
            return loss(*args, **kwargs, reduction=TOTALS)

        own = list(inspect.signature(loss).parameters.values())[:-1]
        masking = list(inspect.signature(_masked).parameters.values())[4:]
        loss.__signature__ = inspect.Signature([*own[:2], *masking, *own[2:]])
        loss.extra_axis, loss.total_and_count = extra_axis, total_and_count
        return cast(MaskedLoss[Arguments], loss)

    return complete


def _masked(
    of: Any,
    elementwise: Callable[[Backend, Array, Array], Array],
    prediction: Array,
    target: Array,
    *,
    lengths: object = None,
    mask: Array = None,
    weights: Array = None,
    reduction: str = "mean",
    alignment: str = "left",
) -> Array:
    """Reduce elementwise losses `of(...)`; losses and weights are exactly 0 at padding."""
    name, extra_axis = of.__name__, of.extra_axis
    if reduction is not TOTALS:
        reduction = as_choice(name, "reduction", reduction, REDUCTIONS)
    check_alignment(name, "alignment", alignment)
    sides = {"prediction": prediction, "target": target}
    backend = backend_of(name, **sides, lengths=lengths, mask=mask, weights=weights)
    xp = backend.xp
    prediction, target = _open_sides(backend, name, **sides)
    _check_shapes(name, extra_axis, tuple(prediction.shape), tuple(target.shape))
    valid = _valid_elements(backend, name, target, lengths, mask, alignment)
    valid_prediction = valid if extra_axis is None else valid[..., None]
    loss = elementwise(
        backend,
        xp.where(valid_prediction, prediction, xp.zeros_like(prediction)),
        xp.where(valid, target, xp.zeros_like(target)),
    )
    weight = xp.astype(valid, loss.dtype)
    if weights is not None:
        given = as_array(backend, name, "weights", weights, prediction)
        given = _as_floating(backend, name, {"target": target, "weights": given})["weights"]
        given = _spread(name, "weights", given, tuple(target.shape), xp)
        nothing = xp.zeros_like(weight)
        weight = xp.where(valid, given + nothing, nothing)  # sharded as the rows are
    loss = xp.where(valid, loss, xp.zeros_like(loss))
    if reduction is TOTALS:
        return xp.sum(loss * weight), xp.sum(weight)
    return _reduce(xp, loss, weight, reduction)


def _check_shapes(
    name: str, extra_axis: str | None, prediction: tuple[int, ...], target: tuple[int, ...]
) -> None:
    elements = prediction if extra_axis is None else prediction[:-1]
    if len(target) < 2 or elements != target:
        extra = "" if extra_axis is None else f" and a last axis of {extra_axis}"
        raise ShapeError.of(
            name,
            "prediction",
            f"of shape {prediction} beside a target of shape {target}",
            f"the target's shape (batch, time, *features){extra}",
            "Nothing is broadcast; reshape one of them.",
        )


@masked_loss()
def mse(prediction: Array, target: Array, **masking: Unpack[Masking]) -> Array:
    """Squared error, `(target - prediction)**2`.

    Example:
        >>> import numpy as np, ragged
        >>> prediction, target = np.array([[1., np.nan]]), np.array([[3., np.nan]])
        >>> float(ragged.losses.mse(prediction, target, lengths=[1]))
        4.0
    """
    return _masked(mse, lambda backend, p, t: (t - p) ** 2, prediction, target, **masking)


@masked_loss()
def mae(prediction: Array, target: Array, **masking: Unpack[Masking]) -> Array:
    """Absolute error, `|target - prediction|`."""
    return _masked(mae, lambda backend, p, t: backend.xp.abs(t - p), prediction, target, **masking)


@masked_loss()
def huber(
    prediction: Array, target: Array, *, delta: float = 1.0, **masking: Unpack[Masking]
) -> Array:
    """Huber loss: `e**2 / 2` where `|e| <= delta`, else `delta * (|e| - delta / 2)`.

    Args:
        delta: where the parabola becomes a line; above 0, in the target's unit.

    Source: P. J. Huber, RobustScaler Estimation of a Location Parameter (1964).
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        d, error = _positive("huber", "delta", delta), backend.xp.abs(target - prediction)
        return backend.xp.where(error <= d, error**2 / 2, d * (error - d / 2))

    return _masked(huber, elementwise, prediction, target, **masking)


@masked_loss()
def mape(
    prediction: Array, target: Array, *, epsilon: float = 1e-8, **masking: Unpack[Masking]
) -> Array:
    """Absolute percentage error as a fraction, `|target - prediction| / max(|target|, epsilon)`.

    Args:
        epsilon: the least divisor; a target of 0 has no percentage error of its own.
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        least, size = _positive("mape", "epsilon", epsilon), backend.xp.abs(target)
        divisor = backend.xp.where(size > least, size, backend.xp.full_like(size, least))
        return backend.xp.abs(target - prediction) / divisor

    return _masked(mape, elementwise, prediction, target, **masking)


@masked_loss()
def smape(prediction: Array, target: Array, **masking: Unpack[Masking]) -> Array:
    """Symmetric percentage error in 0..2, `2 |e| / (|target| + |prediction|)`; 0 where both are 0.

    Source: J. S. Armstrong, Long-Range Forecasting (1985).
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        xp = backend.xp
        size = xp.abs(target) + xp.abs(prediction)
        nonzero = size != 0  # true of NaN, which must not pass for 0
        ratio = 2 * xp.abs(target - prediction) / xp.where(nonzero, size, xp.ones_like(size))
        return xp.where(nonzero, ratio, xp.zeros_like(ratio))

    return _masked(smape, elementwise, prediction, target, **masking)


@masked_loss("quantiles")
def quantile(
    prediction: Array,
    target: Array,
    *,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    **masking: Unpack[Masking],
) -> Array:
    """Pinball loss, `max(q e, (q - 1) e)` with `e = target - prediction`, meaned over quantiles.

    Args:
        prediction: `(batch, time, *features, quantiles)`.
        quantiles: the levels, each inside 0..1, in the order of the last axis.

    Source: R. Koenker and G. Bassett, Regression Quantiles (1978).
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        levels = as_numbers("quantile", "quantiles", quantiles)
        if len(levels) != int(prediction.shape[-1]) or not all(0 < level < 1 for level in levels):
            raise OptionError.of(
                "quantile",
                "quantiles",
                f"{tuple(levels)} for a last axis of {int(prediction.shape[-1])}",
                "one level inside 0..1 for each prediction",
                "Name the levels that the model predicts.",
            )
        q = backend.xp.astype(
            backend.asarray(np.asarray(levels), like=prediction), prediction.dtype
        )
        error = target[..., None] - prediction
        return backend.xp.mean(backend.xp.maximum(q * error, (q - 1) * error), axis=-1)

    return _masked(quantile, elementwise, prediction, target, **masking)


@masked_loss("mean and log variance")
def gaussian_nll(
    prediction: Array, target: Array, *, full: bool = False, **masking: Unpack[Masking]
) -> Array:
    """Gaussian negative log likelihood, `(log v + (target - m)**2 / v) / 2`.

    Args:
        prediction: `(batch, time, *features, 2)`: the mean m and log v.
        full: add the constant `log(2 pi) / 2`.

    Source: D. A. Nix and A. S. Weigend, Estimating the Mean and Variance (1994).
    """

    def elementwise(backend: Backend, prediction: Array, target: Array) -> Array:
        if int(prediction.shape[-1]) != 2:
            raise ShapeError.of(
                "gaussian_nll",
                "prediction",
                f"of shape {tuple(prediction.shape)}",
                "a last axis of 2, mean and log variance",
                "Stack both along the last axis.",
            )
        mean, log_variance = prediction[..., 0], prediction[..., 1]
        constant = float(np.log(2 * np.pi)) if as_flag("gaussian_nll", "full", full) else 0.0
        scaled = (target - mean) ** 2 * backend.xp.exp(-log_variance)
        return (log_variance + scaled + constant) / 2

    return _masked(gaussian_nll, elementwise, prediction, target, **masking)


def _open_sides(
    backend: Backend, name: str, prediction: object, target: object
) -> tuple[Array, Array]:
    """Bring both sides to one floating dtype, a framework's own arrays before others."""
    sides = {"prediction": prediction, "target": target}
    like = None
    for argument in sorted(sides, key=lambda side: not backend.owns(sides[side])):
        sides[argument] = like = as_array(backend, name, argument, sides[argument], like)
    sides = _as_floating(backend, name, sides)
    return sides["prediction"], sides["target"]


def _as_floating(backend: Backend, name: str, arrays: dict[str, Array]) -> dict[str, Array]:
    """Cast arrays of one device to their widest floating dtype, float32 at least."""
    xp = backend.xp
    floating = [xp.float32]
    for argument, array in arrays.items():
        if xp.isdtype(array.dtype, "real floating") and xp.finfo(array.dtype).bits >= 16:
            floating += [array.dtype]
        elif not xp.isdtype(array.dtype, ("bool", "integral")):
            raise dtype_error(name, argument, array.dtype)
    dtype = xp.result_type(*floating)
    cast = {argument: xp.astype(array, dtype) for argument, array in arrays.items()}
    return backend.promote_arrays(name, cast)


def _reduce(xp: Any, loss: Array, weight: Array, reduction: str) -> Array:
    if reduction == "none":
        return loss * weight
    if reduction == "sum":
        return xp.sum(loss * weight)
    if reduction == "mean":
        return _divide(xp, xp.sum(loss * weight), xp.sum(weight))
    axes = tuple(range(1, loss.ndim))
    counts = xp.sum(weight, axis=axes)
    rows = _divide(xp, xp.sum(loss * weight, axis=axes), counts)
    return _divide(xp, xp.sum(rows), xp.sum(xp.astype(counts != 0, loss.dtype)))


def _divide(xp: Any, total: Array, count: Array) -> Array:
    """Divide, with 0 and zero gradient where there is nothing to divide by."""
    some = count != 0
    ratio = total / xp.where(some, count, xp.ones_like(count))
    return xp.where(some, ratio, xp.zeros_like(ratio))


def _valid_elements(
    backend: Backend, name: str, target: Array, lengths: object, mask: Array, alignment: str
) -> Array:
    """Boolean of the target's shape, True = valid."""
    xp = backend.xp
    if lengths is not None and mask is not None:
        raise OptionError.of(
            name, "mask", "given beside `lengths`", "one of the two", "Leave one out."
        )
    shape = tuple(target.shape)
    if mask is not None:
        mask = as_array(backend, name, "mask", mask, target)
        if "bool" not in str(mask.dtype):
            raise ShapeError.of(
                name, "mask", f"of dtype {mask.dtype}", "boolean", "Compare it with 0."
            )
    elif lengths is not None:
        checked = Lengths.of(lengths, shape[1], backend, function=name, batch=shape[0])
        mask = padding_mask(backend, checked, alignment=alignment, like=target)
    else:
        return xp.ones_like(target, dtype=xp.bool)
    if mask.ndim < 2:
        raise ShapeError.of(
            name, "mask", f"of shape {tuple(mask.shape)}", "(batch, time)", "Reshape it."
        )
    valid = _spread(name, "mask", mask, shape, xp)
    return valid & xp.ones_like(target, dtype=xp.bool)


def _spread(name: str, argument: str, array: Array, shape: tuple[int, ...], xp: Any) -> Array:
    """Repeat `(batch,)` or `(batch, time)` along the axes it lacks; nothing else is broadcast."""
    given = tuple(array.shape)
    if given not in (shape, shape[:1], shape[:2]):
        raise ShapeError.of(
            name,
            argument,
            f"of shape {given}",
            f"{shape[:1]}, {shape[:2]} or {shape}"
            if argument == "weights"
            else f"{shape[:2]} or {shape}",
            "Give one for each row, step or element.",
        )
    missing = (1,) * (len(shape) - len(given))
    return xp.broadcast_to(xp.reshape(array, (*given, *missing)), shape)


def _positive(function: str, argument: str, value: Any) -> float:
    number = float(as_number(function, argument, value))
    if not number > 0:
        raise OptionError.of(function, argument, repr(value), "above 0", "Raise it.")
    return number
