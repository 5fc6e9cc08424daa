"""Reversible normalisation: a row's targets by its own context, undone at the output."""

from __future__ import annotations

from typing import NamedTuple

from ragged.lengths import Lengths
from ragged.ops.alignment import gather_steps, zero_padding
from ragged.protocol import Array, Backend

NONE, LAST_VALUE, STANDARD, SEASONAL = KINDS = ("none", "last_value", "standard", "seasonal")


class RowScale(NamedTuple):
    """What the forecasts of each row are multiplied and shifted by.

    Args:
        location: `(batch, 1 or decoder_time, targets)`; None where rows are left as they are.
        scale: `(batch, 1, targets)`, above 0; None for 1.
    """

    location: Array = None
    scale: Array = None

    def undo(self, output: Array) -> Array:
        """Multiply and shift back: outputs `(batch, time, targets * outputs of each)`."""
        if self.location is None:
            return output
        batch, time, size = output.shape
        targets = self.location.shape[2]
        by_target = output.reshape(batch, time, targets, size // targets)
        if self.scale is not None:
            by_target = by_target * self.scale[..., None]
        return (by_target + self.location[..., None]).reshape(batch, time, size)


def normalize_rows(
    backend: Backend,
    past: Array,
    encoder: Lengths,
    decoder: Lengths,
    *,
    kind: str | None,
    targets: int = 1,
    season: int = 1,
) -> tuple[Array, RowScale]:
    """Normalise the targets of each row by the valid steps of its own context.

        kind            of the context              of the forecast y at step k = 0, 1, ...
        last_value      x - x_n                     y + x_n
        standard        (x - mean) / deviation      y deviation + mean
        seasonal        (x - x_n) / deviation       y deviation + x_(n - m + 1 + (k mod m))

    x_n is the last of the n steps, the deviation that of the population, m the season. A deviation
    of 0, of a constant row, counts as 1; an empty row is left as it is; in a row shorter than a
    season the last value takes the place of the season's.

    Args:
        backend: of the arrays.
        past: `(batch, time, features)`, left aligned; the targets are last.
        encoder: lengths of its rows.
        decoder: lengths of the forecasts.
        kind: one of `KINDS`; None as "none".
        targets: their number.
        season: steps of a season, 1 without.

    Returns:
        `past` with other targets, which are exactly 0 at padding, and what undoes it.

    Source: T. Kim and others, Reversible Instance Normalization for Accurate Time-Series
    Forecasting against Distribution Shift (2022), without its learned scale; subtraction of the
    last value is that of A. Zeng and others, Are Transformers Effective for Time Series
    Forecasting? (2023).
    """
    if kind in (None, NONE):
        return past, RowScale()
    xp, others = backend.xp, past.shape[2] - targets
    inputs, observed = past[..., :others], zero_padding(backend, past[..., others:], encoder)
    last = _last(backend, observed, encoder)
    x = zero_padding(backend, observed - last, encoder)
    if kind == LAST_VALUE:
        return xp.concat([inputs, x], axis=2), RowScale(last)
    mean = _mean(backend, x, encoder)  # of differences to the last value: 0 in a constant row
    centred = zero_padding(backend, x - mean, encoder)
    variance = _mean(backend, centred * centred, encoder)
    scale = xp.sqrt(xp.where(variance > 0, variance, xp.ones_like(variance)))
    if kind == STANDARD:
        return xp.concat([inputs, centred / scale], axis=2), RowScale(last + mean, scale)
    location = _season_before(backend, observed, encoder, decoder, season)
    return xp.concat([inputs, x / scale], axis=2), RowScale(location, scale)


def _season_before(
    backend: Backend, x: Array, encoder: Lengths, decoder: Lengths, season: int
) -> Array:
    """Return the value one season before each step of the horizon, `(batch, time, targets)`."""
    xp = backend.xp
    count = encoder.to(backend, x)[:, None]
    steps = backend.arange_like(decoder.width, like=x)[None, :]
    index = xp.where(count >= season, count - season + steps % season, count - 1 + 0 * steps)
    return gather_steps(backend, x, index, decoder, alignment="left")


def _last(backend: Backend, x: Array, lengths: Lengths) -> Array:
    """Return the last valid step, `(batch, 1, targets)`; 0 of an empty row."""
    xp = backend.xp
    steps = backend.arange_like(lengths.width, like=x)[None, :]
    is_last = steps == lengths.to(backend, x)[:, None] - 1
    last = xp.sum(xp.where(is_last[..., None], x, xp.zeros_like(x)), axis=1, keepdims=True)
    return xp.astype(last, x.dtype)


def _mean(backend: Backend, x: Array, lengths: Lengths) -> Array:
    """Return the mean of the valid steps, `(batch, 1, targets)`; 0 of an empty row."""
    xp = backend.xp
    count = xp.astype(lengths.to(backend, x), x.dtype)[:, None, None]
    total = xp.sum(x, axis=1, keepdims=True)
    return xp.astype(total / xp.maximum(count, xp.ones_like(count)), x.dtype)
