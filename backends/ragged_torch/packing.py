"""Packing into torch's own `PackedSequence`, kept out of the compiler.

Dynamo cannot trace packed sequences (pytorch#155238, pytorch#162375), so these functions are
kept out of it: a compiled caller breaks its graph here and stays exact.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.nn.utils.rnn import PackedSequence

from ragged.backend import load_backend
from ragged.ops import packing
from ragged_torch.arrays import name

__all__ = ["pack_sequences", "unpack_to_fixed_length"]


Function = TypeVar("Function", bound=Callable[..., Any])


def disable_compiler(function: Function) -> Function:
    """Do what `torch.compiler.disable` does, without importing Dynamo for it.

    That import takes as long as torch's own, and a process that compiles nothing has no use for it.
    """
    disabled = functools.cache(torch.compiler.disable)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        run = disabled(function) if "torch._dynamo" in sys.modules else function
        return run(*args, **kwargs)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


@disable_compiler
def pack_sequences(x: torch.Tensor, lengths: object) -> PackedSequence:
    """Pack the rows that have steps; see `ragged.pack_sequences`."""
    data, batch_sizes, *indices = packing.packed_fields(x, lengths)
    return PackedSequence(data, torch.from_numpy(batch_sizes), *indices)


@disable_compiler
def unpack_to_fixed_length(
    packed: PackedSequence, lengths: object, max_length: int
) -> torch.Tensor:
    """Undo `pack_sequences`; see `ragged.unpack_to_fixed_length`."""
    return packing.unpack(load_backend(name), packed, lengths, max_length)
