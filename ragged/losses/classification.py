"""Losses of logits over classes, for labels of steps or of rows."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from ragged.checks import as_number, shown
from ragged.errors import OptionError, ShapeError, TargetError
from ragged.losses.masking import Masking, masked, masked_loss
from ragged.protocol import Array, Backend


@masked_loss("classes", in_target=True)
def cross_entropy(
    prediction: Array,
    target: Array,
    *,
    class_weights: Array = None,
    label_smoothing: float = 0.0,
    **masking: Unpack[Masking],
) -> Array:
    """Cross entropy of logits with labels, or with probabilities: `-sum(w q log softmax(p))`.

    `q` is 1 for the label and 0 for other classes, or the probabilities of the target, mixed with
    the uniform ones: `(1 - s) q + s / classes`. The values are those of
    `torch.nn.functional.cross_entropy`. Labels at padding may be anything.

    Args:
        prediction: logits, `(batch, time, *features, classes)` or `(batch, classes)`, floating;
            -inf for a class that cannot be.
        target: labels 0..classes-1, `(batch, time, *features)` or `(batch,)`, integers, or floats
            that hold them; or probabilities in the prediction's shape, floating, each inside 0..1.
        class_weights: w, `(classes,)`. An element counts in a mean as the weight of its label
            does, so that `class_weights` balance classes; one with probabilities counts as 1.
        label_smoothing: s, inside 0..1.

    Raises:
        TargetError: a valid label is no class, or a probability outside 0..1. Where a compiler
            traces the target, which has no values then, such a label makes the loss NaN.
        ShapeError: the target has neither of the two shapes, or `class_weights` another.

    Example:
        >>> import numpy as np, ragged
        >>> logits, labels = np.zeros((2, 3, 4)), np.array([[0, 3, 1], [2, -100, -100]])
        >>> round(float(ragged.losses.cross_entropy(logits, labels, lengths=[3, 1])), 4)
        1.3863

    Source: C. Szegedy et al., Rethinking the Inception Architecture (2016), of the smoothing.
    """

    def elementwise(
        backend: Backend, logits: Array, target: Array, class_weights: Array = None
    ) -> tuple[Array, Array]:
        xp, classes = backend.xp, int(logits.shape[-1])
        smoothing = _smoothing("cross_entropy", label_smoothing)
        weights = xp.ones_like(logits[..., :1]) if class_weights is None else class_weights
        if class_weights is not None and tuple(weights.shape) != (classes,):
            got, expected = f"of shape {tuple(weights.shape)}", f"({classes},), one for each class"
            raise ShapeError.of(
                "cross_entropy", "class_weights", got, expected, "Give all classes a weight."
            )
        if target.ndim < logits.ndim:
            q = _one_hot(backend, target, logits)
            count = xp.sum(weights * q, axis=-1)
        else:
            _check_probabilities(backend, "cross_entropy", target)
            q, count = target, xp.ones_like(target[..., 0])
        q = (1 - smoothing) * q + smoothing / classes
        log_p = _log_softmax(xp, logits)
        is_zero = (q == 0) & (log_p == -xp.inf)
        terms = weights * q * xp.where(is_zero, xp.zeros_like(log_p), log_p)  # 0 log 0 is 0
        return -xp.sum(terms, axis=-1), count

    options = {"class_weights": class_weights}
    return masked(cross_entropy, elementwise, prediction, target, options=options, **masking)


@masked_loss()
def binary_cross_entropy(
    prediction: Array,
    target: Array,
    *,
    pos_weight: Array = None,
    label_smoothing: float = 0.0,
    **masking: Unpack[Masking],
) -> Array:
    """Cross entropy of logits with yes and no: `-(w q log sigmoid(p) + (1-q) log sigmoid(-p))`.

    `q` is the target, or `(1 - s) target + s / 2`. The values are those of
    `torch.nn.functional.binary_cross_entropy_with_logits`. Targets at padding may be anything.

    Args:
        prediction: logits, `(batch, time, *features)` or `(batch,)`, floating.
        target: the prediction's shape; booleans, integers 0 and 1, or probabilities inside 0..1.
        pos_weight: w, a number, or an array of the target's last axes, `(*features)`: how much a
            yes weighs beside a no. It does not change what an element counts in a mean.
        label_smoothing: s, inside 0..1.

    Raises:
        TargetError: a valid target lies outside 0..1; unseen where a compiler traces the target.
        ShapeError: the shapes differ, or `pos_weight` is not of the target's last axes.

    Example:
        >>> import numpy as np, ragged
        >>> logits, rain = np.zeros((2, 3)), np.array([[1, 0, 1], [0, -1, -1]])
        >>> round(float(ragged.losses.binary_cross_entropy(logits, rain, lengths=[3, 1])), 4)
        0.6931

    Source: D. R. Cox, The Regression Analysis of Binary Sequences (1958).
    """

    def elementwise(
        backend: Backend, logits: Array, target: Array, pos_weight: Array = None
    ) -> Array:
        xp, smoothing = backend.xp, _smoothing("binary_cross_entropy", label_smoothing)
        _check_probabilities(backend, "binary_cross_entropy", target)
        q = (1 - smoothing) * target + smoothing / 2
        positive = q * _softplus(xp, -logits)
        if pos_weight is not None:
            weight_shape, shape = tuple(pos_weight.shape), tuple(target.shape)
            if weight_shape not in [shape[axis:] for axis in range(1, len(shape) + 1)]:
                got, expected = f"of shape {weight_shape}", f"a number, or the last axes of {shape}"
                raise ShapeError.of(
                    "binary_cross_entropy", "pos_weight", got, expected, "Give one a feature."
                )
            positive = pos_weight * positive
        return positive + (1 - q) * _softplus(xp, logits)

    options = {"pos_weight": pos_weight}
    return masked(binary_cross_entropy, elementwise, prediction, target, options=options, **masking)


def _one_hot(backend: Backend, labels: Array, logits: Array) -> Array:
    """Encode labels one-hot; NaN where a label is not a class."""
    xp, classes = backend.xp, int(logits.shape[-1])
    numbers = xp.astype(backend.arange_like(classes, like=logits), logits.dtype)
    is_label = numbers == labels[..., None]
    is_class = xp.any(is_label, axis=-1)
    expected = f"an integer of 0..{classes - 1}, as there are {classes} classes"
    remedy = "Number the classes from 0, and leave out by `mask` what has none."
    refuse_elements(backend, "cross_entropy", "target", labels, ~is_class, expected, remedy)
    q = xp.astype(is_label, logits.dtype)
    return xp.where(is_class[..., None], q, xp.full_like(q, xp.nan))


def _check_probabilities(backend: Backend, function: str, target: Array) -> None:
    """Refuse probabilities outside 0..1; NaN makes the loss NaN."""
    wrong, remedy = (target < 0) | (target > 1), "Rescale it, or leave it out by `mask`."
    refuse_elements(backend, function, "target", target, wrong, "inside 0..1", remedy)


def refuse_elements(
    backend: Backend,
    function: str,
    argument: str,
    array: Array,
    wrong: Array,
    expected: str,
    remedy: str,
) -> None:
    """Refuse an array with wrong elements, if it has values to be read."""
    if not backend.has_values(wrong) or not backend.to_numpy(backend.xp.any(wrong)):
        return
    index = tuple(map(int, np.argwhere(backend.to_numpy(wrong))[0]))
    got = f"{backend.to_numpy(array)[index]:g} at {list(index)}"
    raise TargetError.of(function, argument, got, expected, remedy)


def _log_softmax(xp: Any, logits: Array) -> Array:
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)  # so that no exp overflows
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def _softplus(xp: Any, x: Array) -> Array:
    """Return log(1 + exp(x)) without overflow, with the right derivatives at 0 too."""
    positive = x > 0
    below = xp.where(positive, -x, x)  # -|x|, with a derivative at 0
    return xp.where(positive, x, xp.zeros_like(x)) + xp.log1p(xp.exp(below))


def _smoothing(function: str, value: Any) -> float:
    smoothing = float(as_number(function, "label_smoothing", value))
    if not 0 <= smoothing <= 1:
        got, remedy = shown(value), "It is the share spread evenly over the classes."
        raise OptionError.of(function, "label_smoothing", got, "inside 0..1", remedy)
    return smoothing
