"""A batch on its way to a device, and a number on its way back; nothing here waits for the device.

A copy costs its launch and, of memory that is not pinned, a wait: so a batch takes two, one of its
arrays and one of its lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ragged.lengths import Lengths

ALIGNED = 64  # elements: no array begins inside what a GPU reads at once


class PlacedBatch(NamedTuple):
    """A batch on a device: a model's arguments, and what its loss compares.

    Args:
        arrays: past, future, and the lengths of both.
        static: static values by their argument's name, if any.
        target: what is forecast.
        loss_lengths: of the rows that the loss counts.
    """

    arrays: tuple[Any, ...]
    static: dict[str, Tensor]
    target: Tensor
    loss_lengths: Lengths


def place_batch(
    batch: Any, device: torch.device | str, dtype: torch.dtype, target_dtype: torch.dtype
) -> PlacedBatch:
    """Copy a host batch to a device, its target in another dtype perhaps."""
    arrays = copy_together(_arrays_of(batch), device)
    return _placed(arrays, place_lengths(_lengths_of(batch), device), dtype, target_dtype)


def place_inputs(
    batch: Any, device: torch.device | str, dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """Copy to a device what a model reads of a host batch: its arguments, by place and by name."""
    arrays = copy_together(_read_of(batch), device)
    lengths = [batch.encoder_lengths, batch.decoder_lengths]
    return _inputs(arrays, place_lengths(lengths, device), dtype)


def shapes_of(batch: Any) -> tuple[Any, ...]:
    """Return what batches have in common that fit the same memory."""
    return (*(array.shape for array in _arrays_of(batch)), len(_lengths_of(batch)))


class BatchBuffers:
    """Memory of a device for the batches of one shape, which come one after the other.

    Args:
        batch: one of them.
        device: where.
        dtype: of a model's arguments.
        target_dtype: of the target.
    """

    def __init__(
        self, batch: Any, device: torch.device, dtype: torch.dtype, target_dtype: torch.dtype
    ) -> None:
        self._dtypes = dtype, target_dtype
        self._arrays, self._lengths = (Block(each, device) for each in _on_host(batch))
        self._widths = [each.width for each in _lengths_of(batch)]

    def fill(self, batch: Any) -> None:
        """Copy a batch there."""
        for block, arrays in zip((self._arrays, self._lengths), _on_host(batch), strict=True):
            block.fill(arrays)

    @property
    def placed(self) -> PlacedBatch:
        """The batch that is there; its lengths are read on the device alone."""
        leaves = zip(self._lengths.tensors, self._widths, strict=True)
        lengths = [Lengths.unread(leaf, width) for leaf, width in leaves]
        return _placed(self._arrays.tensors, lengths, *self._dtypes)


def _arrays_of(batch: Any) -> list[np.ndarray]:
    """What a model reads, and the target."""
    return [*_read_of(batch), batch.target]


def _read_of(batch: Any) -> list[np.ndarray]:
    """Past, future, and static values if any: a batch to predict may have no target."""
    statics = [] if batch.static is None else [batch.static]
    return [batch.past, batch.future, *statics]


def _lengths_of(batch: Any) -> list[Lengths]:
    """The lengths of past and future, and those of the loss if it has its own."""
    of_loss = []
    if batch.loss_lengths is not None:
        of_loss.append(Lengths(batch.loss_lengths, batch.target.shape[1]))
    return [batch.encoder_lengths, batch.decoder_lengths, *of_loss]


def _on_host(batch: Any) -> tuple[list[Tensor], list[Tensor]]:
    counts = [each.host.copy() for each in _lengths_of(batch)]
    arrays, lengths = ([*map(torch.from_numpy, each)] for each in (_arrays_of(batch), counts))
    return arrays, lengths


def _placed(
    arrays: Sequence[Tensor],
    lengths: Sequence[Lengths],
    dtype: torch.dtype,
    target_dtype: torch.dtype,
) -> PlacedBatch:
    *inputs, target = arrays
    return PlacedBatch(*_inputs(inputs, lengths, dtype), target.to(target_dtype), lengths[-1])


def _inputs(
    arrays: Sequence[Tensor], lengths: Sequence[Lengths], dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    past, future, *static = (array.to(dtype) for array in arrays)
    return (past, future, *lengths[:2]), {"static": static[0]} if static else {}


def place_lengths(lengths: Sequence[Lengths], device: torch.device | str) -> list[Lengths]:
    """Give lengths whose arrays lie on a device; on a CPU they stay as they are."""
    if torch.device(device).type == "cpu":
        return list(lengths)
    leaves = copy_together([each.host.copy() for each in lengths], device)
    return [each.placed(leaf) for each, leaf in zip(lengths, leaves, strict=True)]


def copy_together(arrays: Sequence[np.ndarray], device: torch.device | str) -> list[Tensor]:
    """Copy arrays of one dtype to a device, all at once and while the host goes on."""
    tensors, place = [torch.from_numpy(array) for array in arrays], torch.device(device)
    if place.type == "cpu":
        return tensors
    block = Block(tensors, place)
    block.fill(tensors)
    return block.tensors


class Block:
    """Tensors of one dtype side by side on a device, so that one copy fills them all.

    Args:
        like: tensors of their shapes and dtype.
        device: where.
    """

    def __init__(self, like: Sequence[Tensor], device: torch.device) -> None:
        self._sizes = [-(-tensor.numel() // ALIGNED) * ALIGNED for tensor in like]
        self._memory = torch.empty(sum(self._sizes), dtype=like[0].dtype, device=device)
        parts = zip(self._memory.split(self._sizes), like, strict=True)
        self.tensors = [part[: each.numel()].view(each.shape) for part, each in parts]

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Copy the values of tensors of the host."""
        memory = self._memory
        host = torch.empty_like(memory, device="cpu", pin_memory=memory.is_cuda)
        for part, tensor in zip(host.split(self._sizes), tensors, strict=True):
            part[: tensor.numel()].view(tensor.shape).copy_(tensor)
        memory.copy_(host, non_blocking=True)


class LateNumber:
    """A number of a device; `float` waits until it is there, but for nothing launched after it."""

    def __init__(self, value: Tensor) -> None:
        self._value, self._event = value, None
        if value.is_cuda:
            self._value = torch.empty((), dtype=value.dtype, device="cpu", pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._event = torch.Event(device=value.device)
            self._event.record()

    def __float__(self) -> float:
        if self._event is not None:
            self._event.synchronize()
        return float(self._value)
