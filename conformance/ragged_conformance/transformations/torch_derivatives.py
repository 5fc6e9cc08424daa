"""Derivatives of every kind, batched too; a new one is a line of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ragged_conformance.transformations.comparison import BATCHES, MEMBERS
from ragged_conformance.transformations.lines import (
    FROZEN,
    LAYERS,
    Results,
    Transformation,
    derivative,
)
from ragged_conformance.transformations.problems import Trial
from ragged_conformance.transformations.torch_tools import Tensors, leaves, pull, stack


def autograd(trial: Trial) -> Results:
    variables = leaves(trial)
    outputs = trial.run(variables)
    return {"outputs": outputs, "gradient": pull(trial.weigh(outputs), variables)}


def func_grad(trial: Trial) -> Results:
    return {"gradient": torch.func.grad(trial.total)(trial.variables)}


def func_vjp(trial: Trial) -> Results:
    outputs, pull_back, *_ = torch.func.vjp(trial.run, trial.variables)
    return {"outputs": outputs, "gradient": pull_back(trial.weights)[0]}


def func_jvp(trial: Trial) -> Results:
    outputs, moved, *_ = torch.func.jvp(trial.run, (trial.variables,), (trial.tangents,))
    return {"outputs": outputs, "tangent": moved}


def func_linearize(trial: Trial) -> Results:
    outputs, push = torch.func.linearize(trial.run, trial.variables)
    return {"outputs": outputs, "tangent": push(trial.tangents)}


def dual_numbers(trial: Trial) -> Results:
    ad = torch.autograd.forward_ad
    with ad.dual_level():
        dual = {n: ad.make_dual(v, trial.tangents[n]) for n, v in trial.variables.items()}
        moved = {name: ad.unpack_dual(y).tangent for name, y in trial.run(dual).items()}
        zeros = {name: torch.zeros_like(value) for name, value in trial.weights.items()}
        return {"tangent": {n: zeros[n] if t is None else t.clone() for n, t in moved.items()}}


def dual_numbers_without_grad(trial: Trial) -> Results:
    with torch.no_grad():
        return dual_numbers(trial)


def func_jacrev(trial: Trial) -> Results:
    return {"Jacobian": torch.func.jacrev(trial.vary)(trial.variables[trial.small])}


def func_jacfwd(trial: Trial) -> Results:
    return {"Jacobian": torch.func.jacfwd(trial.vary)(trial.variables[trial.small])}


def jacobian(**options: Any) -> Callable[[Trial], Results]:
    """`torch.autograd.functional.jacobian`, all outputs in one tuple."""

    def run(trial: Trial) -> Results:
        def vary(value: Tensor) -> tuple[Tensor, ...]:
            return tuple(trial.vary(value)[name] for name in trial.weights)

        point = trial.variables[trial.small]
        jacobians = torch.autograd.functional.jacobian(vary, point, **options)
        return {"Jacobian": dict(zip(trial.weights, jacobians, strict=True))}

    return run


def batched_gradients(trial: Trial) -> Results:
    variables = leaves(trial)
    factors = torch.tensor([1.0, 2.0], dtype=next(iter(variables.values())).dtype)
    gradients = pull(trial.total(variables), variables, grad_outputs=factors, is_grads_batched=True)
    for name, value in gradients.items():
        torch.testing.assert_close(value[1], 2 * value[0], msg=name)
    return {"gradient": {name: value[0] for name, value in gradients.items()}}


def double_backward(trial: Trial) -> Results:
    variables = leaves(trial)
    slope = trial.along(pull(trial.total(variables), variables, create_graph=True))
    return {"curvature": trial.along(pull(slope, variables))}


def grad_of_grad(trial: Trial) -> Results:
    def slope(variables: Tensors) -> Tensor:
        return trial.along(torch.func.grad(trial.total)(variables))

    return {"curvature": trial.along(torch.func.grad(slope)(trial.variables))}


def jvp_of_grad(trial: Trial) -> Results:
    gradient = torch.func.grad(trial.total)
    moved = torch.func.jvp(gradient, (trial.variables,), (trial.directions,))[1]
    return {"curvature": trial.along(moved)}


def grad_of_jvp(trial: Trial) -> Results:
    def slope(variables: Tensors) -> Tensor:
        return torch.func.jvp(trial.total, (variables,), (trial.directions,))[1]

    return {"curvature": trial.along(torch.func.grad(slope)(trial.variables))}


def func_hessian(trial: Trial) -> Results:
    return {"Hessian": torch.func.hessian(trial.weigh_varied)(trial.variables[trial.small])}


def reverse_hessian(trial: Trial) -> Results:
    twice = torch.func.jacrev(torch.func.jacrev(trial.weigh_varied))
    return {"Hessian": twice(trial.variables[trial.small])}


def autograd_hessian(trial: Trial) -> Results:
    point = trial.variables[trial.small]
    hessian = torch.autograd.functional.hessian(trial.weigh_varied, point, vectorize=True)
    return {"Hessian": hessian}


def vmap_batches(trial: Trial) -> Results:
    return {"outputs of batches": torch.func.vmap(trial.run)(stack(trial, BATCHES))}


def vmap_grad_batches(trial: Trial) -> Results:
    batched = torch.func.vmap(torch.func.grad(trial.total))
    return {"gradient of batches": batched(stack(trial, BATCHES))}


def vmap_jacrev(trial: Trial) -> Results:
    batched = torch.func.vmap(torch.func.jacrev(trial.vary))
    jacobians = batched(torch.stack([trial.variables[trial.small]] * 2))
    return {"Jacobian": {name: value[1] for name, value in jacobians.items()}}


def vmap_ensemble(trial: Trial) -> Results:
    stacked = {**stack(trial, MEMBERS), **trial.inputs}
    axes = {name: None if name in trial.inputs else 0 for name in stacked}
    outputs = torch.func.vmap(trial.run, in_dims=(axes,))(stacked)
    batched = torch.func.vmap(torch.func.grad(trial.total), in_dims=(axes,))
    return {"outputs of members": outputs, "gradient of members": batched(stacked)}


TRANSFORMATIONS: dict[str, Transformation] = {
    "autograd.grad": derivative(autograd),
    "func.grad": derivative(func_grad),
    "func.vjp": derivative(func_vjp),
    "func.jvp": derivative(func_jvp),
    "func.linearize": derivative(func_linearize, "LSTM"),  # records thousands of operations
    "forward_ad": derivative(dual_numbers),
    "forward_ad under no_grad": derivative(dual_numbers_without_grad),
    "func.jacrev": derivative(func_jacrev),
    "func.jacfwd": derivative(func_jacfwd),
    "functional.jacobian": derivative(jacobian(), *LAYERS),
    "functional.jacobian, vectorised": derivative(jacobian(vectorize=True)),
    "functional.jacobian, forward": derivative(jacobian(vectorize=True, strategy="forward-mode")),
    "is_grads_batched": derivative(batched_gradients),
    "double backward": derivative(double_backward),
    "func.grad of func.grad": derivative(grad_of_grad),
    "func.jvp of func.grad": derivative(jvp_of_grad),
    "func.grad of func.jvp": derivative(grad_of_jvp),
    "func.hessian": derivative(func_hessian),
    "func.jacrev of func.jacrev": derivative(reverse_hessian, *LAYERS),
    "functional.hessian": derivative(autograd_hessian),
    "func.vmap over batches": derivative(vmap_batches),
    "func.vmap of func.grad": derivative(vmap_grad_batches),
    "func.vmap of func.jacrev": derivative(vmap_jacrev),
    "func.vmap over an ensemble": derivative(vmap_ensemble, without=FROZEN),
}
