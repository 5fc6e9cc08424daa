"""Packing into an emulation of torch's `PackedSequence`: JAX has none of its own."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from ragged import packing
from ragged.alignment import open_batch
from ragged.backend import load_backend
from ragged.lengths import Lengths
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
    valid = Lengths.of(lengths, max_length, backend, function="unpack_to_fixed_length", batch=None)
    order = packing.PackingOrder(valid)
    traced = arrays.is_traced(packed.batch_sizes)
    order.check_packed(len(packed.data), None if traced else np.asarray(packed.batch_sizes))
    return order.unpack(backend, packed.data)
