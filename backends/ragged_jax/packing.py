"""Packing into an emulation of torch's `PackedSequence`: JAX has none of its own."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops import packing
from ragged.ops.alignment import open_batch
from ragged_jax import arrays

__all__ = ["PackedSequence", "pack_sequences", "unpack_to_fixed_length"]


class PackedSequence(NamedTuple):
    """Torch's packed sequence, field by field and value by value; a pytree.

    `data (tokens, *features)` holds step after step the rows still alive, longest first;
    `batch_sizes (steps,)` how many they are; the indices sort and unsort the rows.
    """

    data: jax.Array
    batch_sizes: jax.Array
    sorted_indices: jax.Array
    unsorted_indices: jax.Array


def pack_sequences(x: jax.Array, lengths: object) -> PackedSequence:
    """Pack the rows that have steps; see `ragged.pack_sequences`."""
    backend, x, valid = open_batch("pack_sequences", x, lengths)
    order = packing.PackingOrder(valid)
    return PackedSequence(
        order.pack(backend, x),
        arrays.asarray(order.batch_sizes, like=x),
        arrays.asarray(order.sorted_indices, like=x),
        arrays.asarray(order.unsorted_indices, like=x),
    )


def unpack_to_fixed_length(packed: PackedSequence, lengths: object, max_length: int) -> jax.Array:
    """Undo `pack_sequences`; see `ragged.unpack_to_fixed_length`."""
    backend = load_backend(arrays.name)
    data, valid = packing.open_packed(backend, packed, lengths, max_length)
    order = packed.unsorted_indices
    if arrays.is_traced(packed.batch_sizes) or arrays.is_traced(order):
        return packing.gather(backend, data, _traced_source(valid, order))
    return packing.gather(
        backend, data, packing.PackedRows(packed.batch_sizes, order).source(valid)
    )


def _traced_source(lengths: Lengths, unsorted_indices: jax.Array) -> jax.Array:
    """`PackedRows.source` of rows whose order is known only as the program runs."""
    known = packing.PackedRows(packing.PackingOrder(lengths).batch_sizes, None)
    row = np.cumsum(lengths.host > 0) - 1
    place = jnp.append(unsorted_indices, 0)[row]
    return known.source_of(lengths, place)
