"""Alignment: moving the valid part of each row, which is never guessed from the data."""

from __future__ import annotations

from ragged.backend import backend_of
from ragged.checks import as_array, as_width
from ragged.errors import ShapeError
from ragged.lengths import Lengths
from ragged.ops.masks import check_alignment, padding_mask
from ragged.protocol import Array, Backend


def align_sequences(
    x: Array, lengths: object, *, source: str, target: str, max_length: int | None = None
) -> Array:
    """Move every row's valid part to the other side.

    Args:
        x: `(batch, time, *features)`.
        lengths: `(batch,)` integers.
        source: the side the data is on, "left" or "right".
        target: the side to move it to.
        max_length: the output's width; the input's if not given.

    Returns:
        `(batch, max_length, *features)`, exactly 0 at padding whatever was there.

    Raises:
        LengthsError: bad lengths, or a row longer than `max_length` (nothing is truncated).
        OptionError: an unknown alignment.

    Example:
        >>> import numpy as np, ragged
        >>> x = np.array([[0., 7., 8.]])  # a valid zero first, and no padding
        >>> y = ragged.align_sequences(x, [3], source="right", target="left")
        >>> np.asarray(y).tolist()
        [[0.0, 7.0, 8.0]]
    """
    check_alignment("align_sequences", "source", source)
    check_alignment("align_sequences", "target", target)
    backend, x, valid = validate_batch("align_sequences", x, lengths)
    width = x.shape[1]
    out_width = (
        width
        if max_length is None
        else as_width(backend, "align_sequences", max_length, *x.shape[:1], *x.shape[2:])
    )
    target_lengths = valid.widened(out_width, function="align_sequences")
    count = valid.to(backend, x)[:, None]
    begin = {"left": 0 * count, "right": width - count}[source]
    shift = begin - {"left": 0 * count, "right": out_width - count}[target]
    steps = backend.arange_like(out_width, like=x)[None, :]
    return gather_steps(backend, x, steps + shift, target_lengths, alignment=target)


def align_encoder_sequences(x: Array, lengths: object, max_length: int | None = None) -> Array:
    """Move right-aligned encoder rows to the left, where packing needs them.

    It is `align_sequences` with `source="right"` and `target="left"`, with its errors.

    Args:
        x: `(batch, time, *features)`, right aligned.
        lengths: `(batch,)` integers.
        max_length: the width of the result; None = that of x.

    Returns:
        `(batch, max_length, *features)`, exactly 0 at padding.

    Example:
        >>> import numpy as np, ragged
        >>> ragged.align_encoder_sequences(np.array([[0.0, 1.0, 2.0]]), [2]).tolist()
        [[1.0, 2.0, 0.0]]
    """
    return align_sequences(x, lengths, source="right", target="left", max_length=max_length)


def flip_sequences(x: Array, lengths: object, *, alignment: str = "left") -> Array:
    """Reverse the valid part of each row, on the same side.

    Args:
        x: `(batch, time, *features)`.
        lengths: `(batch,)` integers.
        alignment: the side the data is on.

    Returns:
        `(batch, time, *features)`, exactly 0 at padding.

    Example:
        >>> import numpy as np, ragged
        >>> np.asarray(ragged.flip_sequences(np.array([[1., 2., 9.]]), [2])).tolist()
        [[2.0, 1.0, 0.0]]
    """
    check_alignment("flip_sequences", "alignment", alignment)
    backend, x, valid = validate_batch("flip_sequences", x, lengths)
    return flip(backend, x, valid, alignment=alignment)


def flip(backend: Backend, x: Array, lengths: Lengths, *, alignment: str = "left") -> Array:
    """Reverse the valid part of each row of a checked batch."""
    if lengths.is_full:
        return backend.xp.flip(x, axis=1)
    steps = backend.arange_like(lengths.width, like=x)[None, :]
    count = lengths.to(backend, x)[:, None]
    last = count - 1 if alignment == "left" else 2 * lengths.width - count - 1
    return gather_steps(backend, x, last - steps, lengths, alignment=alignment)


def gather_steps(
    backend: Backend, x: Array, index: Array, lengths: Lengths, *, alignment: str
) -> Array:
    """Gather steps `(batch, steps)` of `x` and set the padding of `lengths` to 0."""
    xp = backend.xp
    features = tuple(x.shape[2:])
    if x.shape[1] == 0:
        zeros = xp.astype(xp.sum(x, axis=1, keepdims=True), x.dtype)  # 0, on the device of x
        return xp.broadcast_to(zeros, (*index.shape, *features))
    index = index % xp.full_like(index, x.shape[1])  # indices outside are padding, set to 0
    return zero_padding(backend, backend.gather_steps(x, index), lengths, alignment=alignment)


def zero_padding(backend: Backend, x: Array, lengths: Lengths, *, alignment: str = "left") -> Array:
    """Set padding to exactly 0, by selection, so that NaN there has no gradient either."""
    if lengths.is_full:
        return x
    mask = padding_mask(backend, lengths, alignment=alignment, like=x)
    mask = backend.xp.reshape(mask, (*mask.shape, *(1 for _ in x.shape[2:])))
    return backend.xp.where(mask, x, backend.xp.zeros_like(x))


def validate_batch(function: str, x: Array, lengths: object) -> tuple[Backend, Array, Lengths]:
    """Check the array `(batch, time, *features)` and the lengths of a public function."""
    backend = backend_of(function, x=x, lengths=lengths)
    x = as_array(backend, function, "x", x)
    if x.ndim < 2:
        got, expected = f"of shape {tuple(x.shape)}", "(batch, time, *features)"
        raise ShapeError.of(function, "x", got, expected, "Add the missing axis, e.g. x[None].")
    batch, width = x.shape[:2]
    return backend, x, Lengths.of(lengths, width, backend, function=function, batch=batch)
