"""Padding masks: boolean, True = valid, in both alignments."""

from __future__ import annotations

import numpy as np

from ragged.backend import backend_of
from ragged.checks import as_array, as_width, shown
from ragged.errors import LengthsError, OptionError, ShapeError
from ragged.lengths import Lengths, check_lengths
from ragged.protocol import Array, Backend

ALIGNMENTS = ("left", "right")


def create_padding_mask(
    lengths: object, max_length: int | None = None, *, alignment: str = "left"
) -> Array:
    """Mark the valid steps of a padded batch.

    `mask[b, t] = t < lengths[b]` (left) or `t >= max_length - lengths[b]` (right).

    Args:
        lengths: `(batch,)` integers.
        max_length: the width; the longest row if not given.
        alignment: "left" (data first) or "right" (data last).

    Returns:
        Boolean `(batch, max_length)`, True = valid, of the framework of `lengths` or the chosen
        backend.

    Raises:
        LengthsError: lengths negative, above `max_length`, not integer or not `(batch,)`.
        OptionError: an unknown alignment.

    Example:
        >>> import numpy as np, ragged
        >>> np.asarray(ragged.create_padding_mask([2, 0, 3])).astype(int)
        array([[1, 1, 0],
               [0, 0, 0],
               [1, 1, 1]])
    """
    check_alignment("create_padding_mask", "alignment", alignment)
    backend = backend_of("create_padding_mask", lengths=lengths)
    if max_length is not None:
        max_length = as_width(backend, "create_padding_mask", max_length)
    if max_length is None:
        width = lengths.width if isinstance(lengths, Lengths) else None
        longest = check_lengths(lengths, width, function="create_padding_mask").max(initial=0)
        max_length = int(longest) if width is None else width
    if isinstance(lengths, Lengths):
        lengths = lengths.widened(max_length, function="create_padding_mask")
    valid = Lengths.of(lengths, max_length, backend, function="create_padding_mask", batch=None)
    as_width(backend, "create_padding_mask", valid.width, valid.batch)
    like = lengths if backend.owns(lengths) else None
    return padding_mask(backend, valid, alignment=alignment, like=like)


def padding_mask(
    backend: Backend, lengths: Lengths, *, alignment: str = "left", like: Array = None
) -> Array:
    """Build the mask of checked lengths on the device of `like`."""
    steps = backend.arange_like(lengths.width, like=like)[None, :]
    count = lengths.to(backend, like)[:, None]
    return steps < count if alignment == "left" else steps >= lengths.width - count


def lengths_from_mask(mask: Array, *, alignment: str = "left") -> Array:
    """Count the valid steps of a mask without holes.

    A traced mask has no values yet: there a row with a hole or on the other side gets the length
    -1, which the kernels refuse at run time; losses and masks, which cannot, treat it as a row
    without valid steps.

    Args:
        mask: boolean `(batch, time)`, True = valid.
        alignment: the side the data is on.

    Returns:
        Integer `(batch,)` of the mask's framework.

    Raises:
        ShapeError: the mask is not boolean `(batch, time)`.
        LengthsError: a row has a hole, or is on the other side.

    Example:
        >>> import numpy as np, ragged
        >>> ragged.lengths_from_mask(np.array([[True, True, False], [False] * 3])).tolist()
        [2, 0]
    """
    check_alignment("lengths_from_mask", "alignment", alignment)
    backend = backend_of("lengths_from_mask", mask=mask)
    mask = as_array(backend, "lengths_from_mask", "mask", mask)
    if mask.ndim != 2 or "bool" not in str(mask.dtype):
        got = f"{mask.dtype} of shape {tuple(mask.shape)}"
        remedy = "Compare with the padding value first; True = valid."
        raise ShapeError.of("lengths_from_mask", "mask", got, "boolean (batch, time)", remedy)
    xp = backend.xp
    counts = xp.sum(xp.astype(mask, xp.int32), axis=1)
    if backend.has_values(mask):
        _refuse_holes(backend.to_numpy(mask), alignment)
        return counts
    lengths = Lengths.unchecked(counts, mask.shape[1])
    contiguous = padding_mask(backend, lengths, alignment=alignment, like=mask)
    return xp.where(xp.all(mask == contiguous, axis=1), counts, xp.full_like(counts, -1))


def check_alignment(function: str, argument: str, alignment: str) -> None:
    """Refuse an alignment that is neither "left" nor "right"."""
    if not isinstance(alignment, str) or alignment not in ALIGNMENTS:
        got, expected = shown(alignment), "'left' (data first) or 'right' (data last)"
        raise OptionError.of(function, argument, got, expected, "Name the side the data is on.")


def _refuse_holes(mask: np.ndarray, alignment: str) -> None:
    counts = mask.sum(axis=1)[:, None]
    steps = np.arange(mask.shape[1])[None, :]
    contiguous = steps < counts if alignment == "left" else steps >= mask.shape[1] - counts
    wrong = (mask != contiguous).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        got = f"{mask[row].astype(int).tolist()} at row {row}"
        expected = f"a {alignment} aligned row without holes"
        remedy = "Realign the rows, or keep the mask for the losses, which take holes."
        raise LengthsError.of("lengths_from_mask", "mask", got, expected, remedy)
