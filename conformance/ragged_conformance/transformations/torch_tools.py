"""What torch's transformations share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ragged_conformance.transformations.problems import Trial

Tensors = dict[str, Tensor]


def leaves(trial: Trial) -> Tensors:
    """The variables as leaves of a graph."""
    return {name: value.clone().requires_grad_() for name, value in trial.variables.items()}


def pull(total: Tensor, variables: Tensors, **options: Any) -> Tensors:
    """The gradient of a scalar by name; a model need not read every parameter."""
    grads = torch.autograd.grad(total, list(variables.values()), materialize_grads=True, **options)
    return dict(zip(variables, grads, strict=True))


def stack(trial: Trial, points: tuple[str, ...]) -> Tensors:
    """The variables at several points, stacked."""
    variables = [trial.at(point) for point in points]
    return {name: torch.stack([v[name] for v in variables]) for name in variables[0]}


def native_lengths(trial: Trial) -> Tensors:
    """The lengths as tensors, as programs take them."""
    return trial.adapter.arrays(trial.point.batch.lengths)
