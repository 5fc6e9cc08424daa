"""Where the tokens of a batch lie, row after row: `(tokens, features)`."""

from __future__ import annotations

import numpy as np

from ragged.lengths import Lengths


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
    starts = np.cumsum(count) - count
    return np.arange(lengths.tokens) + np.repeat(np.arange(len(count)) * lengths.width - starts, count)


def token_offsets(lengths: Lengths) -> np.ndarray:
    """Return where each row begins and where the last one ends, `(batch + 1,)`, int64.

    Example:
        >>> token_offsets(Lengths([2, 0, 3])).tolist()
        [0, 2, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(lengths.host)])
