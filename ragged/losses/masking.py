"""Masking, weighting and reduction of elementwise losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypedDict, cast, runtime_checkable

from ragged.backend import backend_of
from ragged.checks import as_array, as_arrays, as_choice, dtype_error
from ragged.errors import DtypeError, OptionError, ShapeError
from ragged.lengths import Lengths
from ragged.ops.masks import check_alignment, padding_mask
from ragged.protocol import Array, Backend

REDUCTIONS = ("mean", "sum", "sequence_mean", "none")
TOTALS = object()  # a reduction: the weighted sum and the sum of weights
Arguments = ParamSpec("Arguments")
Shape = tuple[int, ...]


class Masking(TypedDict, total=False):
    """The arguments that all losses share; see `ragged.losses`.

    Example:
        >>> import ragged
        >>> masking: Masking = {"lengths": [1], "reduction": "sum"}
        >>> float(ragged.losses.mse([[1.0, 2.0]], [[3.0, 0.0]], **masking))
        4.0
    """

    lengths: object
    mask: Array
    weights: Array
    reduction: str
    alignment: str


@runtime_checkable
class MaskedLoss(Protocol[Arguments]):
    """A loss: a function that is masked, weighted and reduced.

    Args:
        extra_axis: the content of a last axis of the prediction that the target lacks, or None.
        in_target: whether the target may have that axis too.

    Example:
        >>> import ragged
        >>> isinstance(ragged.losses.mse, MaskedLoss)
        True
        >>> total, count = ragged.losses.mse.total_and_count([[1.0, 2.0]], [[3.0, 2.0]])
        >>> float(total), float(count)
        (4.0, 2.0)
    """

    __name__: str
    extra_axis: str | None
    in_target: bool

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Array:
        """Return the reduced loss; see `ragged.losses`."""

    def total_and_count(
        self, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> tuple[Array, Array]:
        """Return sum(weight * loss) and sum(weight) over the valid elements."""


def masked_loss(
    extra_axis: str | None = None, *, in_target: bool = False
) -> Callable[[Callable[Arguments, Array]], MaskedLoss[Arguments]]:
    """Decorate a function of a prediction and a target as a `MaskedLoss`.

    Args:
        extra_axis: what the last axis of a prediction holds and the target lacks; None = nothing.
        in_target: whether the target may have that axis too.

    Example:
        >>> import numpy as np, ragged
        >>> from ragged.losses.masking import masked
        >>> @masked_loss()
        ... def cubic(prediction, target, **masking):
        ...     return masked(cubic, lambda _, p, t: abs(t - p) ** 3, prediction, target, **masking)
        >>> float(cubic(np.array([[1., 2.]]), np.array([[3., np.nan]]), lengths=[1]))
        8.0
    """

    def complete(loss: Any) -> MaskedLoss[Arguments]:
        def total_and_count(*args: Any, **kwargs: Any) -> Any:
            """Return sum(weight * loss) and sum(weight) over the valid elements."""
            return loss(*args, **kwargs, reduction=TOTALS)

        parameters = list(inspect.signature(loss).parameters.values())[:-1]
        shared = inspect.signature(masked).parameters
        masking = [shared[name] for name in Masking.__annotations__]
        loss.__signature__ = inspect.Signature([*parameters[:2], *masking, *parameters[2:]])
        loss.extra_axis, loss.in_target = extra_axis, in_target
        loss.total_and_count = total_and_count
        return cast(MaskedLoss[Arguments], loss)

    return complete


def masked(
    function: Any,
    elementwise: Callable[..., Array | tuple[Array, Array]],
    prediction: Array,
    target: Array,
    *,
    options: Mapping[str, Array] | None = None,
    lengths: object = None,
    mask: Array = None,
    weights: Array = None,
    reduction: str = "mean",
    alignment: str = "left",
) -> Array:
    """Reduce elementwise losses; losses and weights are exactly 0 at padding.

    Args:
        function: the loss, with the name and the axes of a `MaskedLoss`.
        elementwise: a function of the backend, both sides, 0 at padding, and the options given. It
            returns the loss of each element, or also how much the element counts in a mean; that
            weight is already a factor of the loss.
        options: the loss's own options that are arrays; None = not given.
    """
    name = function.__name__
    if reduction is not TOTALS:
        reduction = as_choice(name, "reduction", reduction, REDUCTIONS)
    check_alignment(name, "alignment", alignment)
    present = {option: array for option, array in (options or {}).items() if array is not None}
    sides = {"prediction": prediction, "target": target, **present}
    backend = backend_of(name, **sides, lengths=lengths, mask=mask, weights=weights)
    xp = backend.xp
    sides = as_arrays(backend, name, sides)
    shape = _check_shapes(backend, function, sides["prediction"], sides["target"])
    prediction, target, *arrays = _as_floating(backend, name, sides).values()
    valid = _valid_elements(backend, name, shape, target, lengths, mask, alignment)
    result = elementwise(
        backend,
        _select(xp, valid, prediction),
        _select(xp, valid, target),
        **dict(zip(present, arrays, strict=True)),
    )
    loss, element_count = result if isinstance(result, tuple) else (result, None)
    weight = xp.astype(valid, loss.dtype)
    if weights is not None:
        values = as_array(backend, name, "weights", weights, prediction)
        values = _as_floating(backend, name, {"target": target, "weights": values})["weights"]
        values = _expand(name, "weights", values, shape, xp)
        zeros = xp.zeros_like(weight)
        weight = xp.where(valid, values + zeros, zeros)  # so that JAX shards it as the rows
    loss = _select(xp, valid, loss) * weight
    count = weight if element_count is None else element_count * weight
    if reduction is TOTALS:
        return (xp.sum(loss), xp.sum(count))
    return _reduce(xp, loss, count, reduction)


def _select(xp: Any, valid: Array, array: Array) -> Array:
    """Set padding to 0; `valid` is broadcast over a last axis that it lacks."""
    valid = valid if valid.ndim == array.ndim else valid[..., None]
    return xp.where(valid, array, xp.zeros_like(array))


def _check_shapes(backend: Backend, function: Any, prediction: Array, target: Array) -> Shape:
    """Return the shape of the elements, `(batch, time, *features)`."""
    shape, target_shape = tuple(prediction.shape), tuple(target.shape)
    elements = shape if function.extra_axis is None else shape[:-1]
    in_target = function.in_target and target.ndim == prediction.ndim
    is_empty = len(elements) == 0 or 0 in shape[len(elements) :]
    if is_empty or target_shape != (shape if in_target else elements):
        extra = "" if function.extra_axis is None else f" and a last axis of {function.extra_axis}"
        got = f"of shape {shape} beside a target of shape {target_shape}"
        expected = f"the target's shape (batch, time, *features){extra}"
        remedy = "Nothing is broadcast; reshape one of them."
        raise ShapeError.of(function.__name__, "prediction", got, expected, remedy)
    if in_target and not backend.xp.isdtype(target.dtype, "real floating"):
        got = f"of dtype {target.dtype} in the prediction's shape {shape}"
        axis = function.extra_axis
        expected = f"labels of shape {elements}, or floating probabilities of the {axis}"
        remedy = "Leave out the last axis, or convert what is one-hot to floats."
        raise DtypeError.of(function.__name__, "target", got, expected, remedy)
    return elements


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


def _reduce(xp: Any, loss: Array, count: Array, reduction: str) -> Array:
    """Reduce weighted losses; `count` is the weight of each element in a mean."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return xp.sum(loss)
    if reduction == "mean":
        return _divide(xp, xp.sum(loss), xp.sum(count))
    axes = tuple(range(1, loss.ndim))
    counts = xp.sum(count, axis=axes)
    rows = _divide(xp, xp.sum(loss, axis=axes), counts)
    return _divide(xp, xp.sum(rows), xp.sum(xp.astype(counts != 0, loss.dtype)))


def _divide(xp: Any, total: Array, count: Array) -> Array:
    """Divide; 0 with zero gradient where the count is 0."""
    nonzero = count != 0
    ratio = total / xp.where(nonzero, count, xp.ones_like(count))
    return xp.where(nonzero, ratio, xp.zeros_like(ratio))


def _valid_elements(
    backend: Backend,
    name: str,
    shape: Shape,
    like: Array,
    lengths: object,
    mask: Array,
    alignment: str,
) -> Array:
    """Boolean of the elements' shape on the device of `like`, True = valid."""
    xp = backend.xp
    if lengths is not None and mask is not None:
        got, expected = "given beside `lengths`", "one of the two"
        raise OptionError.of(name, "mask", got, expected, "Leave one out.")
    all_valid = xp.ones_like(like if like.ndim == len(shape) else like[..., 0], dtype=xp.bool)
    if mask is not None:
        mask = as_array(backend, name, "mask", mask, like)
        if "bool" not in str(mask.dtype):
            got = f"of dtype {mask.dtype}"
            raise ShapeError.of(name, "mask", got, "boolean", "Compare it with 0.")
    elif lengths is not None:
        if len(shape) < 2:
            got, expected = f"given for elements of shape {shape}", "a time axis, (batch, time)"
            raise ShapeError.of(name, "lengths", got, expected, "Give a `mask` of the rows.")
        checked = Lengths.of(lengths, shape[1], backend, function=name, batch=shape[0])
        mask = padding_mask(backend, checked, alignment=alignment, like=like)
    else:
        return all_valid
    if mask.ndim < min(2, len(shape)):
        got = f"of shape {tuple(mask.shape)}"
        raise ShapeError.of(name, "mask", got, "(batch, time)", "Reshape it.")
    return _expand(name, "mask", mask, shape, xp) & all_valid


def _expand(name: str, argument: str, array: Array, shape: Shape, xp: Any) -> Array:
    """Repeat `(batch,)` or `(batch, time)` along the axes it lacks; nothing else is broadcast."""
    array_shape = tuple(array.shape)
    if array_shape not in (shape, shape[:1], shape[:2]):
        got, remedy = f"of shape {array_shape}", "Give one for each row, step or element."
        expected = f"{shape[:1]}, " if argument == "weights" else ""
        expected += f"{shape[:2]} or {shape}"
        raise ShapeError.of(name, argument, got, expected, remedy)
    missing = (1,) * (len(shape) - len(array_shape))
    return xp.broadcast_to(xp.reshape(array, (*array_shape, *missing)), shape)
