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
    of_loss = []
    if batch.loss_lengths is not None:
        of_loss.append(Lengths(batch.loss_lengths, batch.target.shape[1]))
    arrays, lengths = _place(batch, device, [batch.target], of_loss)
    target = arrays.pop().to(target_dtype)
    return PlacedBatch(*_inputs(arrays, lengths, dtype), target, lengths[-1])


def place_inputs(
    batch: Any, device: torch.device | str, dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """Copy to a device what a model reads of a host batch: its arguments, by place and by name."""
    return _inputs(*_place(batch, device), dtype)


def _place(
    batch: Any,
    device: torch.device | str,
    more_arrays: Sequence[np.ndarray] = (),
    more_lengths: Sequence[Lengths] = (),
) -> tuple[list[Tensor], list[Lengths]]:
    """Copy past, future, static values if any, and more arrays; both lengths, and more of them."""
    statics = [] if batch.static is None else [batch.static]
    arrays = copy_together([batch.past, batch.future, *statics, *more_arrays], device)
    lengths = [batch.encoder_lengths, batch.decoder_lengths, *more_lengths]
    return arrays, place_lengths(lengths, device)


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
    tensors = [torch.from_numpy(array) for array in arrays]
    place = torch.device(device)
    if place.type == "cpu":
        return tensors
    sizes = [-(-tensor.numel() // ALIGNED) * ALIGNED for tensor in tensors]
    dtype, is_pinned = tensors[0].dtype, place.type == "cuda"
    host = torch.empty(sum(sizes), dtype=dtype, device="cpu", pin_memory=is_pinned)
    for part, tensor in zip(host.split(sizes), tensors, strict=True):
        part[: tensor.numel()].view(tensor.shape).copy_(tensor)
    there = host.to(place, non_blocking=True).split(sizes)
    return [p[: t.numel()].view(t.shape) for p, t in zip(there, tensors, strict=True)]


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
