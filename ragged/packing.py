"""Packing: the stated rule, the order of packed steps, and the public pack and unpack."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ragged.alignment import align_sequences
from ragged.backend import Array, Backend, backend_of
from ragged.errors import LengthsError, refusal
from ragged.lengths import Lengths, check_lengths
from ragged.masks import check_alignment


def should_use_packing(lengths: object) -> bool:
    """Apply the stated packing rule.

    False for `None`, no rows or equal rows; else True if `(max - min) / max > 0.1` or there are
    at least 8 rows. It is `policy="rule"`; the default policy "auto" knows the hardware better.

    Example:
        >>> [should_use_packing(lengths) for lengths in ([10, 10], [10, 9], [9, 8])]
        [False, False, True]
    """
    if lengths is None:
        return False
    values = check_lengths(lengths, None, function="should_use_packing")
    if values.size == 0:
        return False
    longest, shortest = int(values.max()), int(values.min())
    return longest > shortest and (10 * (longest - shortest) > longest or len(values) >= 8)


@dataclass(frozen=True)
class PackingOrder:
    """Where each packed step comes from: pure host data, made from lengths alone.

    Rows are sorted by length, longest first, ties in the order given. Step after step, the rows
    still alive are laid end to end. Rows of length 0 have no step and are left out.
    """

    lengths: Lengths

    @cached_property
    def rows(self) -> np.ndarray:
        """The rows with at least one step, in the order given."""
        return np.flatnonzero(self.lengths.host)

    @cached_property
    def sorted_indices(self) -> np.ndarray:
        """Which of `rows` stands at each sorted place."""
        return np.argsort(-self.lengths.host[self.rows], kind="stable")

    @cached_property
    def unsorted_indices(self) -> np.ndarray:
        """At which sorted place each of `rows` stands."""
        return np.argsort(self.sorted_indices, kind="stable")

    @cached_property
    def batch_sizes(self) -> np.ndarray:
        """How many rows are alive at each step."""
        lengths = self.lengths.host
        steps = np.arange(lengths.max(initial=0))
        return (lengths[None, :] > steps[:, None]).sum(axis=1)

    @cached_property
    def source(self) -> np.ndarray:
        """The flat `(batch * time)` position of each packed step."""
        alive = np.concatenate([np.arange(n) for n in self.batch_sizes] or [np.empty(0, np.int64)])
        step = np.repeat(np.arange(len(self.batch_sizes)), self.batch_sizes)
        row = self.rows[self.sorted_indices][alive.astype(np.int64)]
        return row * self.lengths.width + step

    def check_packed(self, tokens: int, batch_sizes: np.ndarray | None) -> None:
        """Refuse a packed sequence of other lengths.

        Args:
            tokens: how many packed steps it holds.
            batch_sizes: its rows alive at each step; None where they are traced.

        Raises:
            LengthsError: they are not those of these lengths.
        """
        sizes = self.batch_sizes if batch_sizes is None else batch_sizes
        if self.batch_sizes.tolist() != sizes.tolist() or len(self.source) != tokens:
            raise LengthsError(
                refusal(
                    "unpack_to_fixed_length",
                    "lengths",
                    f"lengths with batch sizes {self.batch_sizes.tolist()}",
                    f"those of `packed`, {sizes.tolist()} with {tokens} steps",
                    "Give the lengths it was packed with.",
                )
            )

    def pack(self, backend: Backend, x: Array) -> Array:
        """Lay the steps of `x (batch, time, *features)` end to end: `(tokens, *features)`."""
        xp = backend.xp
        flat = xp.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
        return xp.take(flat, backend.asarray(self.source, like=x), axis=0)

    def unpack(self, backend: Backend, data: Array) -> Array:
        """Undo `pack`: `(batch, time, *features)`, exactly 0 at padding."""
        xp = backend.xp
        # Position 0 is the zero that padding reads; a gather keeps the backward pass a scatter.
        place = np.zeros(len(self.lengths) * self.lengths.width, np.int64)
        place[self.source] = np.arange(1, len(self.source) + 1)
        zero = xp.zeros_like(xp.astype(xp.sum(data, axis=0, keepdims=True), data.dtype))
        flat = xp.take(xp.concat([zero, data]), backend.asarray(place, like=data), axis=0)
        return xp.reshape(flat, (len(self.lengths), self.lengths.width, *data.shape[1:]))


def pack_sequences(x: Array, lengths: object) -> Any:
    """Pack a left-aligned batch.

    Torch gives `torch.nn.utils.rnn.PackedSequence`, ready for `torch.nn.LSTM`; JAX an equal
    `ragged_jax.PackedSequence`, a pytree. Rows of length 0, which torch refuses, have no step to
    pack: the packed sequence holds the others, `unpack_to_fixed_length` restores them as zeros.

    Args:
        x: `(batch, time, *features)`, left aligned.
        lengths: `(batch,)` integers.

    Raises:
        LengthsError: bad lengths, or lengths that are traced (packing needs their values).
    """
    return backend_of("pack_sequences", x=x, lengths=lengths).pack_sequences(x, lengths)


def pack_encoder_sequences(x: Array, lengths: object, *, alignment: str = "right") -> Any:
    """Pack encoder rows, moving right-aligned ones to the left first."""
    check_alignment("pack_encoder_sequences", "alignment", alignment)
    if alignment == "right":
        x = align_sequences(x, lengths, source="right", target="left")
    return pack_sequences(x, lengths)


def pack_decoder_sequences(x: Array, lengths: object) -> Any:
    """Pack decoder rows, which are left aligned."""
    return pack_sequences(x, lengths)


def unpack_to_fixed_length(packed: Any, lengths: object, max_length: int) -> Array:
    """Unpack to `(batch, max_length, *features)`, exactly 0 at padding and in empty rows.

    Args:
        packed: what `pack_sequences` gave, or a packed layer's output in the same order.
        lengths: the `(batch,)` integers it was packed with.
        max_length: the output's width; at least the longest row.

    Raises:
        LengthsError: lengths above `max_length`, or not those of `packed`.
    """
    backend = backend_of("unpack_to_fixed_length", packed=packed.data, lengths=lengths)
    return backend.unpack_to_fixed_length(packed, lengths, max_length)
