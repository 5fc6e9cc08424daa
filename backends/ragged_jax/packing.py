"""Packing into an emulation of torch's `PackedSequence`: JAX has none of its own."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops import packing
from ragged_jax import arrays

__all__ = ["PackedSequence", "pack_sequences", "unpack_to_fixed_length"]


class PackedSequence(NamedTuple):
    """Torch's packed sequence, field by field and value by value; a pytree.

    Args:
        data: `(tokens, *features)`, step by step the rows that have it, longest first.
        batch_sizes: `(steps,)`, the number of rows at each step.
        sorted_indices: `(rows,)`, the rows in their order within `data`.
        unsorted_indices: `(rows,)`, where each row is within that order.

    Example:
        >>> packed = pack_sequences(jnp.array([[1, 0], [2, 3]]), [1, 2])
        >>> packed.data.tolist(), packed.batch_sizes.tolist(), packed.sorted_indices.tolist()
        ([2, 1, 3], [2, 1], [1, 0])
    """

    data: jax.Array
    batch_sizes: jax.Array
    sorted_indices: jax.Array
    unsorted_indices: jax.Array


def pack_sequences(x: jax.Array, lengths: object) -> PackedSequence:
    """Pack the rows that have steps; see `ragged.pack_sequences`."""
    data, batch_sizes, *indices = packing.packed_fields(x, lengths)
    return PackedSequence(data, arrays.asarray(batch_sizes, like=data), *indices)


def unpack_to_fixed_length(packed: PackedSequence, lengths: object, max_length: int) -> jax.Array:
    """Undo `pack_sequences`; see `ragged.unpack_to_fixed_length`."""
    order, source = packed.unsorted_indices, None
    if arrays.is_traced(packed.batch_sizes) or arrays.is_traced(order):
        source = functools.partial(_traced_source, order)
    backend = load_backend(arrays.name)
    unpacked: jax.Array = packing.unpack(backend, packed, lengths, max_length, source)
    return unpacked


def _traced_source(unsorted_indices: jax.Array, lengths: Lengths) -> jax.Array:
    """Return `PackedRows.source` of rows whose order is traced."""
    known = packing.PackedRows(packing.PackingOrder(lengths).batch_sizes, None)
    row = np.cumsum(lengths.host > 0) - 1
    return known.source_of(lengths, jnp.append(unsorted_indices, 0)[row])
