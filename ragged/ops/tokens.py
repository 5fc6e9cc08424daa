"""Where the tokens of a batch lie: row after row, `(tokens, features)`, or two sides joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ragged.checks import as_size, shown
from ragged.errors import OptionError
from ragged.lengths import Lengths
from ragged.protocol import Array, Backend

SHARES = 8  # of a batch's steps, and so many programs of a shape


def token_capacity(tokens: Sequence[int], steps: Sequence[int]) -> tuple[int, ...]:
    """Return how many tokens a program is to have room for on each side of a batch.

    All sides get the same share of their steps, in eighths, so that few programs are compiled.

    Args:
        tokens: the number of valid steps of each side.
        steps: the number of all, `batch * width`.

    Example:
        >>> token_capacity((5, 40), (32, 96)), token_capacity((29, 1), (32, 32))
        ((16, 48), (32, 32))
    """
    sides = [(count, most) for count, most in zip(tokens, steps, strict=True) if most]
    share = max((-(-SHARES * count // most) for count, most in sides), default=SHARES)
    share = min(max(share, 1), SHARES)
    return tuple(-(-share * most // SHARES) for most in steps)


def as_token_capacity(function: str, capacity: Any, *sides: Lengths) -> tuple[int, ...] | None:
    """Return the room for tokens on each side of a batch; None where there is room for all steps.

    Raises:
        OptionError: not a size for each side, or less than the tokens, where their number is known.
    """
    if capacity is None:
        return None
    argument, expected = "token_capacity", f"{len(sides)} numbers of tokens"
    if not isinstance(capacity, (tuple, list)) or len(capacity) != len(sides):
        remedy = "Give the encoder's and the decoder's, or None."
        raise OptionError.of(function, argument, shown(capacity), expected, remedy)
    sizes = [as_size(function, argument, each) for each in capacity]
    known = [0 if side.is_traced else side.tokens for side in sides]
    if any(size < tokens for size, tokens in zip(sizes, known, strict=True)):
        remedy = "Raise it: no token is dropped."
        raise OptionError.of(function, argument, str(capacity), f"at least {known}", remedy)
    steps = [side.batch * side.width for side in sides]
    if all(size >= most for size, most in zip(sizes, steps, strict=True)):
        return None
    return tuple(map(min, sizes, steps))


def token_rows(lengths: Lengths) -> np.ndarray:
    """Return the row of each token, `(tokens,)`, int64.

    Example:
        >>> token_rows(Lengths([2, 0, 3])).tolist()
        [0, 0, 2, 2, 2]
    """
    return np.repeat(np.arange(lengths.batch), lengths.host)


def token_places(lengths: Lengths) -> np.ndarray:
    """Return the place of each token among all steps of the left-aligned batch, row * width + step.

    Example:
        >>> token_places(Lengths([2, 0, 3], width=4)).tolist()
        [0, 1, 8, 9, 10]
    """
    count = lengths.host
    gaps = np.arange(len(count)) * lengths.width - (np.cumsum(count) - count)
    return np.arange(lengths.tokens) + np.repeat(gaps, count)


def token_offsets(lengths: Lengths) -> np.ndarray:
    """Return where each row begins and where the last one ends, `(batch + 1,)`, int64.

    Example:
        >>> token_offsets(Lengths([2, 0, 3])).tolist()
        [0, 2, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(lengths.host)])


def joined_lengths(
    backend: Backend, first: Lengths, second: Lengths, *, like: Array = None
) -> Lengths:
    """Return the lengths of rows that continue those of one array by those of another."""
    width = first.width + second.width
    if first.is_traced or second.is_traced:
        return Lengths.unread(first.to(backend, like) + second.to(backend, like), width)
    joined = Lengths(first.host + second.host, width)
    if not (backend.owns(first.leaf) or backend.owns(second.leaf)):
        return joined
    return joined.placed(first.to(backend, like) + second.to(backend, like))


def joined_token_places(first: Lengths, second: Lengths) -> np.ndarray:
    """Return where each token stands once every row has its tokens of both arrays side by side.

    Returns:
        Integers `(tokens,)` for the first's tokens, then the second's, int64.

    Example:
        >>> joined_token_places(Lengths([2, 0, 1]), Lengths([1, 2, 0])).tolist()
        [0, 1, 5, 2, 3, 4]
    """
    n, m = first.host, second.host
    before_first, behind_second = np.cumsum(m) - m, n.sum() - np.cumsum(n)  # of the other's tokens
    moves = np.concatenate([np.repeat(before_first, n), np.repeat(-behind_second, m)])
    return np.arange(len(moves)) + moves


def joined_order(backend: Backend, first: Lengths, second: Lengths, *, like: Array = None) -> Array:
    """Return where each step of joined rows stands in the two padded arrays side by side.

    Returns:
        Integers `(batch, width)`, `width` that of both arrays; behind a row's end they are those of
        any step.
    """
    xp, width = backend.xp, first.width + second.width
    count, steps = first.to(backend, like)[:, None], backend.arange_like(width, like=like)[None]
    gap = first.width - count  # what lies between a row's first part and its second
    return xp.minimum(xp.where(steps < count, steps, steps + gap), steps[:, -1:])


def joined_places(
    backend: Backend, first: Lengths, second: Lengths, *, like: Array = None
) -> Array:
    """Return which step of a joined row each step of two padded arrays side by side is.

    Returns:
        Integers `(batch, width)`; at padding that of a step behind the row's end.
    """
    xp, width = backend.xp, first.width + second.width
    n, m = (each.to(backend, like)[:, None] for each in (first, second))
    steps = backend.arange_like(width, like=like)[None]
    is_first, step = steps < first.width, steps - first.width
    end = n + m  # below the width, where there is any padding
    places = xp.where(is_first, xp.where(steps < n, steps, end), xp.where(step < m, n + step, end))
    return xp.minimum(places, steps[:, -1:])
