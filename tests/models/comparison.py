"""What both files of gated networks' tests compare with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def gradients(y: Tensor, of: Sequence[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """Differentiate a sum in which every element of `y` counts differently."""
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    total = (weights * y).sum() + y.square().sum()
    return torch.autograd.grad(total, of, create_graph=create_graph, retain_graph=True)


def close(found: Iterable[Tensor], expected: Iterable[Tensor], tolerance: float = 1e-12) -> None:
    """Compare tensors, each within a share of its largest element."""
    for one, other in zip(found, expected, strict=True):
        scale = other.abs().max().item() or 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale)
