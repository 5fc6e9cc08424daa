"""Packing: the rule, the order of packed steps, and the public functions."""

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
    at least 8 rows. It is `policy="rule"`; the default policy "auto" also considers the hardware.

    Args:
        lengths: `(batch,)` integers, or None.

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
    """The order of packed steps, computed on the host from the lengths.

    Rows are sorted by length, longest first, ties in the order given. Step after step, the values
    of the rows that have this step are concatenated. Rows of length 0 are left out.
    """

    lengths: Lengths

    @cached_property
    def rows(self) -> np.ndarray:
        """The rows with at least one step, in the order given."""
        return np.flatnonzero(self.lengths.host)

    @cached_property
    def sorted_indices(self) -> np.ndarray:
        """The index into `rows` of each sorted row."""
        return np.argsort(-self.lengths.host[self.rows], kind="stable")

    @cached_property
    def unsorted_indices(self) -> np.ndarray:
        """The sorted index of each of `rows`."""
        return np.argsort(self.sorted_indices, kind="stable")

    @cached_property
    def batch_sizes(self) -> np.ndarray:
        """The number of rows that have each step."""
        ended = np.bincount(self.lengths.host).cumsum()  # rows that end at each step or before
        return (len(self.lengths) - ended)[:-1]

    @cached_property
    def source(self) -> np.ndarray:
        """The flat `(batch * time)` position of each packed step."""
        sizes = self.batch_sizes
        step = np.repeat(np.arange(len(sizes)), sizes)
        rank = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
        row = self.rows[self.sorted_indices][rank]
        return row * self.lengths.width + step

    def pack(self, backend: Backend, x: Array) -> Array:
        """Pack the steps of `x (batch, time, *features)`: `(tokens, *features)`."""
        xp = backend.xp
        flat = xp.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
        return xp.take(flat, backend.asarray(self.source, like=x), axis=0)

    def unpack(self, backend: Backend, data: Array) -> Array:
        """Undo `pack`: `(batch, time, *features)`, exactly 0 at padding."""
        position = np.zeros(len(self.lengths) * self.lengths.width, np.int64)
        position[self.source] = np.arange(1, len(self.source) + 1)
        return gather(backend, data, position.reshape(len(self.lengths), self.lengths.width))


def gather(backend: Backend, data: Array, source: Any) -> Array:
    """Gather packed steps by their position `(batch, time)`, counted from 1; 0 gives zeros."""
    xp = backend.xp
    # Position 0 is a zero row for padding.
    zero = xp.zeros_like(xp.astype(xp.sum(data, axis=0, keepdims=True), data.dtype))
    index = xp.reshape(backend.asarray(source, like=data), (-1,))
    flat = xp.take(xp.concat([zero, data]), index, axis=0)
    return xp.reshape(flat, (*source.shape, *data.shape[1:]))


class PackedRows:
    """The rows of a packed sequence, computed on the host from its fields.

    Args:
        batch_sizes: `(steps,)`, the number of rows that have each step.
        unsorted_indices: `(rows,)`, the sorted index of each row; None = already sorted.
    """

    def __init__(self, batch_sizes: object, unsorted_indices: object) -> None:
        sizes = _indices("packed.batch_sizes", batch_sizes)
        identity = np.arange(sizes.max(initial=0))
        self.starts = np.cumsum(sizes) - sizes
        self.sorted_index = identity
        if unsorted_indices is not None:
            self.sorted_index = _indices("packed.unsorted_indices", unsorted_indices)
        is_order = np.array_equal(np.sort(self.sorted_index), identity)
        if not is_order or (np.diff(sizes) > 0).any() or (sizes < 1).any():
            raise _not_packed("packed", "inconsistent")
        self.lengths = (sizes[None, :] > self.sorted_index[:, None]).sum(axis=1)

    def source(self, lengths: Lengths) -> np.ndarray:
        """Return the packed position, counted from 1, of each step `(batch, time)`; 0 at padding.

        Raises:
            LengthsError: the lengths are not those of the packed rows, in the order given.
        """
        nonempty = lengths.host[lengths.host > 0]
        if nonempty.tolist() != self.lengths.tolist():
            got = f"{_listed(nonempty)} without empty rows"
            expected = f"those of `packed`, {_listed(self.lengths)}"
            remedy = "Give the lengths it was packed with, in the order of the rows."
            raise LengthsError.of("unpack_to_fixed_length", "lengths", got, expected, remedy)
        sorted_index = np.zeros(len(lengths), np.int64)
        sorted_index[lengths.host > 0] = self.sorted_index
        return self.source_of(lengths, sorted_index)

    def source_of(self, lengths: Lengths, sorted_index: Any) -> Any:
        """Return the same from the sorted index of each row `(batch,)`, traced or not."""
        steps = np.arange(lengths.width)
        start = np.append(self.starts, 0)[np.minimum(steps, len(self.starts))]
        return (steps < lengths.host[:, None]) * (1 + start + sorted_index[:, None])


def _indices(argument: str, values: object) -> np.ndarray:
    host = as_host("unpack_to_fixed_length", argument, to_host(values))
    if host.dtype.kind not in "iu" or host.ndim != 1:
        raise _not_packed(argument, f"{host.dtype} of shape {host.shape}")
    return host


def _not_packed(argument: str, got: str) -> ArgumentError:
    expected, remedy = "what a packed sequence holds", "Pack with ragged.pack_sequences()."
    return ArgumentError.of("unpack_to_fixed_length", argument, got, expected, remedy)


def _listed(values: np.ndarray) -> str:
    listed = ", ".join(map(str, values[:20]))
    return f"[{listed}]" if len(values) <= 20 else f"[{listed}, ...] ({len(values)} rows)"


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

    Example:
        >>> import numpy as np, ragged
        >>> packed = ragged.pack_sequences(np.ones((3, 5, 2)), [2, 0, 3])
        >>> tuple(packed.data.shape), packed.batch_sizes.tolist()
        ((5, 2), [2, 2, 1])
    """
    return backend_of("pack_sequences", x=x, lengths=lengths).pack_sequences(x, lengths)


def pack_encoder_sequences(x: Array, lengths: object, *, alignment: str = "left") -> Any:
    """Pack encoder rows, moving right-aligned ones to the left first.

    Args:
        x: `(batch, time, *features)`.
        lengths: `(batch,)` integers.
        alignment: the side the data is on.

    Raises:
        OptionError: an unknown alignment; and the errors of `pack_sequences`.

    Example:
        >>> import numpy as np, ragged
        >>> x = np.array([[[0.0], [1.0]], [[2.0], [3.0]]])
        >>> ragged.pack_encoder_sequences(x, [1, 2], alignment="right").data[:, 0].tolist()
        [2.0, 1.0, 3.0]
    """
    check_alignment("pack_encoder_sequences", "alignment", alignment)
    if alignment == "right":
        x = align_sequences(x, lengths, source="right", target="left")
    return pack_sequences(x, lengths)


def pack_decoder_sequences(x: Array, lengths: object) -> Any:
    """Pack decoder rows, which are left aligned: `pack_sequences` by another name.

    Args:
        x: `(batch, time, *features)`, left aligned.
        lengths: `(batch,)` integers.

    Example:
        >>> import numpy as np, ragged
        >>> ragged.pack_decoder_sequences(np.ones((2, 3, 1)), [3, 1]).batch_sizes.tolist()
        [2, 1, 1]
    """
    return pack_sequences(x, lengths)


def unpack_to_fixed_length(packed: Any, lengths: object, max_length: int) -> Array:
    """Unpack to `(batch, max_length, *features)`, exactly 0 at padding and in empty rows.

    Rows are returned in their order before packing, by `packed.unsorted_indices`; torch's packed
    sequences are accepted too.

    Args:
        packed: the result of `pack_sequences` or torch's functions, or a packed layer's output.
        lengths: the `(batch,)` integers it was packed with; rows of length 0 are not in it.
        max_length: the output's width; at least the longest row.

    Raises:
        ArgumentError: `packed` is no packed sequence.
        LengthsError: lengths above `max_length`, or not those of `packed`, row by row. Under
            `jax.jit`, where a packed argument is traced, its number of steps alone is checked.

    Example:
        >>> import numpy as np, ragged
        >>> packed = ragged.pack_sequences(np.ones((3, 5, 2)), [2, 0, 3])
        >>> ragged.unpack_to_fixed_length(packed, [2, 0, 3], 4)[..., 0].tolist()
        [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
    """
    if not all(hasattr(packed, field) for field in PACKED_FIELDS):
        raise _not_packed("packed", shown(packed))
    backend = backend_of("unpack_to_fixed_length", packed=packed.data, lengths=lengths)
    return backend.unpack_to_fixed_length(packed, lengths, max_length)


def packed_fields(x: Array, lengths: object) -> tuple[Array, np.ndarray, Array, Array]:
    """Check and pack: return data, batch sizes on the host, sorted and unsorted indices."""
    backend, x, valid = validate_batch("pack_sequences", x, lengths)
    order = PackingOrder(valid)
    sorted_indices = backend.asarray(order.sorted_indices, like=x)
    unsorted_indices = backend.asarray(order.unsorted_indices, like=x)
    return order.pack(backend, x), order.batch_sizes, sorted_indices, unsorted_indices


def unpack(
    backend: Backend,
    packed: Any,
    lengths: object,
    max_length: Any,
    source: Callable[[Lengths], Any] | None = None,
) -> Array:
    """Check a packed sequence and its lengths, and undo `packed_fields`.

    Args:
        source: a function of the lengths, as `PackedRows.source` of `packed`, the default.
    """
    function = "unpack_to_fixed_length"
    width = as_width(backend, function, max_length)
    data = as_array(backend, function, "packed.data", packed.data)
    valid = Lengths.of(lengths, width, backend, function=function, batch=None)
    if data.ndim == 0 or data.shape[0] != valid.tokens:
        got = f"lengths of {valid.tokens} steps in all"
        expected = f"those of `packed`, whose data is of shape {tuple(data.shape)}"
        remedy = "Give the lengths it was packed with."
        raise LengthsError.of(function, "lengths", got, expected, remedy)
    as_width(backend, function, width, valid.batch, *data.shape[1:])
    source = source or PackedRows(packed.batch_sizes, packed.unsorted_indices).source
    return gather(backend, data, source(valid))
