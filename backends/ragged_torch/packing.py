"""Packing into torch's own `PackedSequence`, kept out of the compiler.

Dynamo cannot trace packed sequences (pytorch#155238, pytorch#162375), so these functions are
`torch.compiler.disable`d: a compiled caller breaks its graph here and stays exact.
"""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import PackedSequence

from ragged.backend import load_backend
from ragged.ops import packing
from ragged.ops.alignment import open_batch
from ragged_torch import arrays

__all__ = ["pack_sequences", "unpack_to_fixed_length"]


@torch.compiler.disable
def pack_sequences(x: torch.Tensor, lengths: object) -> PackedSequence:
    """Pack the rows that have steps; see `ragged.pack_sequences`."""
    backend, x, valid = open_batch("pack_sequences", x, lengths)
    order = packing.PackingOrder(valid)
    return PackedSequence(
        order.pack(backend, x),
        torch.from_numpy(order.batch_sizes),
        arrays.asarray(order.sorted_indices, like=x),
        arrays.asarray(order.unsorted_indices, like=x),
    )


@torch.compiler.disable
def unpack_to_fixed_length(
    packed: PackedSequence, lengths: object, max_length: int
) -> torch.Tensor:
    """Undo `pack_sequences`; see `ragged.unpack_to_fixed_length`."""
    backend = load_backend(arrays.name)
    data, valid = packing.open_packed(backend, packed, lengths, max_length)
    order = packed.unsorted_indices
    rows = packing.PackedRows(
        arrays.to_numpy(packed.batch_sizes), None if order is None else arrays.to_numpy(order)
    )
    return packing.gather(backend, data, rows.source(valid))
