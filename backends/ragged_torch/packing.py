"""Packing into torch's own `PackedSequence`, kept out of the compiler.

Dynamo cannot trace packed sequences (pytorch#155238, pytorch#162375), so these functions are
`torch.compiler.disable`d: a compiled caller breaks its graph here and stays exact.
"""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import PackedSequence

from ragged.backend import load_backend
from ragged.ops import packing
from ragged_torch.arrays import name

__all__ = ["pack_sequences", "unpack_to_fixed_length"]


@torch.compiler.disable
def pack_sequences(x: torch.Tensor, lengths: object) -> PackedSequence:
    """Pack the rows that have steps; see `ragged.pack_sequences`."""
    data, batch_sizes, *indices = packing.packed_fields(x, lengths)
    return PackedSequence(data, torch.from_numpy(batch_sizes), *indices)


@torch.compiler.disable
def unpack_to_fixed_length(
    packed: PackedSequence, lengths: object, max_length: int
) -> torch.Tensor:
    """Undo `pack_sequences`; see `ragged.unpack_to_fixed_length`."""
    return packing.unpack(load_backend(name), packed, lengths, max_length)
