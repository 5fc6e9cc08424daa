"""Parameters by canonical name: a torch module's own names are the canonical ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ragged.recurrent.init import Seed
from ragged_torch.arrays import is_traced, to_numpy

Device = torch.device | str | int | None


def draw_seed(seed: Seed) -> Seed:
    """Return the seed, or one drawn from torch's generator, as its modules would."""
    if seed is not None:
        return seed
    drawn = torch.randint(2**62, (), device="cpu")
    return 0 if is_traced(drawn) else int(drawn)  # under FakeTensorMode nothing has a value


def create_parameter(
    value: np.ndarray, device: Device = None, dtype: torch.dtype | None = None
) -> nn.Parameter:
    """Make a parameter of drawn values, by default of torch's default dtype and device."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    return nn.Parameter(torch.tensor(value, device=device, dtype=dtype))


def get_parameters(module: nn.Module) -> dict[str, np.ndarray]:
    """Copy a module's parameters to the host."""
    return {name: to_numpy(value).copy() for name, value in module.named_parameters()}


def set_parameters(module: nn.Module, parameters: Mapping[str, np.ndarray]) -> None:
    """Write checked parameters into a module, in its own dtype and device."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.from_numpy(np.array(parameters[name])))


def to(module: nn.Module, *, device: str, dtype: str) -> nn.Module:
    """Move a module to a device and a floating dtype."""
    return module.to(device=device, dtype=getattr(torch, dtype))


def spread(parameter: Tensor, like: Tensor) -> Tensor:
    """Expand a parameter with num_copies to the axes of `like`, whose first one they are."""
    if parameter.ndim == 1:
        return parameter
    return parameter.view(len(parameter), *(1 for _ in like.shape[2:]), -1)


def stretch_matrix(scale: Tensor, doubled: Tensor) -> Tensor:
    """Scale twice the matrix of an interpolation by `sigmoid(scale)`, for each copy."""
    return doubled * torch.sigmoid(scale).unsqueeze(-2)
