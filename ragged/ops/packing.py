"""Packing: the stated rule, the order of packed steps, and the public pack and unpack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ragged.backend import backend_of, to_host
from ragged.checks import as_array, as_host, as_width, shown
from ragged.errors import ArgumentError, LengthsError
from ragged.lengths import Lengths, check_lengths
from ragged.ops.alignment import align_sequences, validate_batch
from ragged.ops.masks import check_alignment
from ragged.protocol import Array, Backend

PACKED_FIELDS = ("batch_sizes", "sorted_indices", "unsorted_indices", "data")


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

    def pack(self, backend: Backend, x: Array) -> Array:
        """Lay the steps of `x (batch, time, *features)` end to end: `(tokens, *features)`."""
        xp = backend.xp
        flat = xp.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
        return xp.take(flat, backend.asarray(self.source, like=x), axis=0)

    def unpack(self, backend: Backend, data: Array) -> Array:
        """Undo `pack`: `(batch, time, *features)`, exactly 0 at padding."""
        place = np.zeros(len(self.lengths) * self.lengths.width, np.int64)
        place[self.source] = np.arange(1, len(self.source) + 1)
        return gather(backend, data, place.reshape(len(self.lengths), self.lengths.width))


def gather(backend: Backend, data: Array, source: Any) -> Array:
    """Take packed steps by their position `(batch, time)`, counted from 1; 0 reads zeros."""
    xp = backend.xp
    # Position 0 is the zero that padding reads; a gather keeps the backward pass a scatter.
    zero = xp.zeros_like(xp.astype(xp.sum(data, axis=0, keepdims=True), data.dtype))
    index = xp.reshape(backend.asarray(source, like=data), (-1,))
    flat = xp.take(xp.concat([zero, data]), index, axis=0)
    return xp.reshape(flat, (*source.shape, *data.shape[1:]))


class PackedRows:
    """What a packed sequence says of its rows: pure host data, whoever packed it.

    Args:
        batch_sizes: `(steps,)`, how many rows are alive at each step.
        unsorted_indices: `(rows,)`, at which sorted place each row stands; None = as sorted.
    """

    def __init__(self, batch_sizes: object, unsorted_indices: object) -> None:
        sizes = _indices("packed.batch_sizes", batch_sizes)
        places = np.arange(sizes.max(initial=0))
        self.starts = np.cumsum(sizes) - sizes
        self.places = places
        if unsorted_indices is not None:
            self.places = _indices("packed.unsorted_indices", unsorted_indices)
        is_order = np.array_equal(np.sort(self.places), places)
        if not is_order or (np.diff(sizes) > 0).any() or (sizes < 1).any():
            raise _not_packed("packed", "inconsistent")
        self.lengths = (sizes[None, :] > self.places[:, None]).sum(axis=1)

    def source(self, lengths: Lengths) -> np.ndarray:
        """The packed position, counted from 1, of each step `(batch, time)`; 0 at padding.

        Raises:
            LengthsError: the lengths are not those of the packed rows, in the order given.
        """
        given = lengths.host[lengths.host > 0]
        if given.tolist() != self.lengths.tolist():
            got = f"{_listed(given)} without empty rows"
            expected = f"those of `packed`, {_listed(self.lengths)}"
            remedy = "Give the lengths it was packed with, in the order of the rows."
            raise LengthsError.of("unpack_to_fixed_length", "lengths", got, expected, remedy)
        place = np.zeros(len(lengths), np.int64)
        place[lengths.host > 0] = self.places
        return self.source_of(lengths, place)

    def source_of(self, lengths: Lengths, place: Any) -> Any:
        """The same, given at which sorted place each row `(batch,)` stands, traced or not."""
        steps = np.arange(lengths.width)
        start = np.append(self.starts, 0)[np.minimum(steps, len(self.starts))]
        return (steps < lengths.host[:, None]) * (1 + start + place[:, None])


def _indices(argument: str, values: object) -> np.ndarray:
    host = as_host("unpack_to_fixed_length", argument, to_host(values))
    if host.dtype.kind not in "iu" or host.ndim != 1:
        raise _not_packed(argument, f"{host.dtype} of shape {host.shape}")
    return host


def _not_packed(argument: str, got: str) -> ArgumentError:
    expected, remedy = "what a packed sequence holds", "Pack with ragged.pack_sequences()."
    return ArgumentError.of("unpack_to_fixed_length", argument, got, expected, remedy)


def _listed(values: np.ndarray) -> str:
    shown = ", ".join(map(str, values[:20]))
    return f"[{shown}]" if len(values) <= 20 else f"[{shown}, ...] ({len(values)} rows)"


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


def pack_encoder_sequences(x: Array, lengths: object, *, alignment: str = "left") -> Any:
    """Pack encoder rows, moving right-aligned ones to the left first.

    Args:
        x: `(batch, time, *features)`.
        lengths: `(batch,)` integers.
        alignment: the side the data is on.
    """
    check_alignment("pack_encoder_sequences", "alignment", alignment)
    if alignment == "right":
        x = align_sequences(x, lengths, source="right", target="left")
    return pack_sequences(x, lengths)


def pack_decoder_sequences(x: Array, lengths: object) -> Any:
    """Pack decoder rows, which are left aligned."""
    return pack_sequences(x, lengths)


def unpack_to_fixed_length(packed: Any, lengths: object, max_length: int) -> Array:
    """Unpack to `(batch, max_length, *features)`, exactly 0 at padding and in empty rows.

    Rows come back in the order that was packed, which `packed.unsorted_indices` tells: torch's
    own packed sequences are read as well.

    Args:
        packed: what `pack_sequences` or torch's functions gave, or a packed layer's output.
        lengths: the `(batch,)` integers it was packed with; rows of length 0 are not in it.
        max_length: the output's width; at least the longest row.

    Raises:
        ArgumentError: `packed` is no packed sequence.
        LengthsError: lengths above `max_length`, or not those of `packed`, row by row. Under
            `jax.jit`, where a packed argument is traced, its number of steps alone is checked.
    """
    if not all(hasattr(packed, field) for field in PACKED_FIELDS):
        raise _not_packed("packed", shown(packed))
    backend = backend_of("unpack_to_fixed_length", packed=packed.data, lengths=lengths)
    return backend.unpack_to_fixed_length(packed, lengths, max_length)


def packed_fields(x: Array, lengths: object) -> tuple[Array, np.ndarray, Array, Array]:
    """Check and pack: data, batch sizes on the host, and the indices that sort and unsort."""
    backend, x, valid = validate_batch("pack_sequences", x, lengths)
    order = PackingOrder(valid)
    there = backend.asarray(order.sorted_indices, like=x)
    back = backend.asarray(order.unsorted_indices, like=x)
    return order.pack(backend, x), order.batch_sizes, there, back


def unpack(
    backend: Backend,
    packed: Any,
    lengths: object,
    max_length: Any,
    source: Callable[[Lengths], Any] | None = None,
) -> Array:
    """Check a packed sequence and the lengths beside it at the door, and undo `packed_fields`.

    Args:
        source: what tells the places of the steps; None = `PackedRows.source` of `packed`.
    """
    name = "unpack_to_fixed_length"
    width = as_width(backend, name, max_length)
    data = as_array(backend, name, "packed.data", packed.data)
    valid = Lengths.of(lengths, width, backend, function=name, batch=None)
    if data.ndim == 0 or data.shape[0] != valid.tokens:
        got = f"lengths of {valid.tokens} steps in all"
        expected = f"those of `packed`, whose data is of shape {tuple(data.shape)}"
        remedy = "Give the lengths it was packed with."
        raise LengthsError.of(name, "lengths", got, expected, remedy)
    as_width(backend, name, width, valid.batch, *data.shape[1:])
    source = source or PackedRows(packed.batch_sizes, packed.unsorted_indices).source
    return gather(backend, data, source(valid))
