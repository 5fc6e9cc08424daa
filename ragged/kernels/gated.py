"""What a gated residual network's kernels are given: see `gated.hpp`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

Array = TypeVar("Array")
WIDEST_ALONE = 64  # wider, one network's products of all tokens are as fast by its framework
NARROWEST_KEPT = 48  # narrower, what is between takes as long to read as to compute again
LINE = 64  # bytes of the widest vectors that there are


class Given(NamedTuple, Generic[Array]):
    """What the tokens have.

    Args:
        x: `(..., inputs)`, or `(..., features, inputs)` with weights; where it is embedded, each
            feature is a number, `(..., features)`.
        weights: `(..., features)`, of what a network of each feature's own makes of it; None =
            there is one network.
        added: `(..., hidden)`, to the hidden units before they are activated.
        residual: `(..., size)`, where it is neither x nor x stretched.
    """

    x: Array
    weights: Array | None = None
    added: Array | None = None
    residual: Array | None = None


class Networks(NamedTuple, Generic[Array]):
    """What the networks learn, in the kernels' order, of each feature where there are some.

    All of one is None: both of the embedding where x is not embedded, the four after them where x
    itself is what is gated, `scale` and the two after it where the residual is not x stretched.
    """

    embed: Array | None
    embed_bias: Array | None
    hidden: Array | None
    hidden_bias: Array | None
    output: Array | None
    output_bias: Array | None
    gate: Array
    gate_bias: Array
    scale: Array | None
    inner_weight: Array | None
    inner_bias: Array | None
    weight: Array
    bias: Array


def kept_size(tokens: int, hidden: int, size: int, itemsize: int) -> int:
    """Count the numbers that one network's forward pass keeps for its backward pass; 0 = none.

    Those of features keep none, which would be as many of each feature.

    Args:
        tokens: that go through it.
        hidden: its hidden units; 0 = what is gated is x.
        size: of the result.
        itemsize: bytes of a number.
    """
    if size < NARROWEST_KEPT:
        return 0
    lanes = LINE // itemsize
    wide, narrow = (-(-each // lanes) * lanes for each in (size, hidden))
    return tokens * (2 * wide + (wide + narrow if hidden else 0)) + 1  # which says that it did


def split(arrays: Sequence[Any]) -> tuple[Given[Any], Networks[Any]]:
    """Tell what tokens have from what networks learn, in a list of both."""
    count = len(Given._fields)
    return Given(*arrays[:count]), Networks(*arrays[count:])
