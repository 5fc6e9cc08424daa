"""Derivatives of every kind, batched too; a new one is a line of the table."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ragged_conformance.transformations.comparison import MEMBERS, RAGGED_BATCHES
from ragged_conformance.transformations.jax_tools import run, stack, stacked_lengths
from ragged_conformance.transformations.lines import (
    LAYERS,
    SOME,
    WAYS,
    Results,
    Transformation,
    derivative,
)
from ragged_conformance.transformations.problems import Arrays, Trial


def grad(trial: Trial) -> Results:
    return {"gradient": run(trial, jax.grad(trial.total), trial.variables)}


def eager(trial: Trial) -> Results:
    """Compile nothing but what a layer itself compiles."""
    outputs, moved = jax.jvp(trial.run, (trial.variables,), (trial.tangents,))
    gradient = jax.grad(trial.total)(trial.variables)
    return {"outputs": outputs, "tangent": moved, "gradient": gradient}


def vjp(trial: Trial) -> Results:
    def pull(variables: Arrays) -> Any:
        outputs, pull_back = jax.vjp(trial.run, variables)
        return outputs, pull_back(trial.weights)[0]

    outputs, gradient = run(trial, pull, trial.variables)
    return {"outputs": outputs, "gradient": gradient}


def jvp(trial: Trial) -> Results:
    def push(variables: Arrays, tangents: Arrays) -> Any:
        return jax.jvp(trial.run, (variables,), (tangents,))

    outputs, moved = run(trial, push, trial.variables, trial.tangents)
    return {"outputs": outputs, "tangent": moved}


def linearize(trial: Trial) -> Results:
    def push(variables: Arrays, tangents: Arrays) -> Any:
        outputs, linear = jax.linearize(trial.run, variables)
        return outputs, linear(tangents)

    outputs, moved = run(trial, push, trial.variables, trial.tangents)
    return {"outputs": outputs, "tangent": moved}


def linear_transpose(trial: Trial) -> Results:
    def pull(variables: Arrays) -> Any:
        _, linear = jax.linearize(trial.run, variables)
        return jax.linear_transpose(linear, variables)(trial.weights)[0]

    return {"gradient": run(trial, pull, trial.variables)}


def jacrev(trial: Trial) -> Results:
    return {"Jacobian": run(trial, jax.jacrev(trial.vary), trial.variables[trial.small])}


def jacfwd(trial: Trial) -> Results:
    return {"Jacobian": run(trial, jax.jacfwd(trial.vary), trial.variables[trial.small])}


def grad_of_grad(trial: Trial) -> Results:
    def slope(variables: Arrays) -> Any:
        return trial.along(jax.grad(trial.total)(variables))

    return {"curvature": run(trial, lambda v: trial.along(jax.grad(slope)(v)), trial.variables)}


def jvp_of_grad(trial: Trial) -> Results:
    def push(variables: Arrays) -> Any:
        moved = jax.jvp(jax.grad(trial.total), (variables,), (trial.directions,))[1]
        return trial.along(moved)

    return {"curvature": run(trial, push, trial.variables)}


def grad_of_jvp(trial: Trial) -> Results:
    def slope(variables: Arrays) -> Any:
        return jax.jvp(trial.total, (variables,), (trial.directions,))[1]

    return {"curvature": run(trial, lambda v: trial.along(jax.grad(slope)(v)), trial.variables)}


def hessian(trial: Trial) -> Results:
    return {"Hessian": run(trial, jax.hessian(trial.weigh_varied), trial.variables[trial.small])}


def vmap_batches(trial: Trial) -> Results:
    batched = jax.vmap(trial.run)
    return {
        "outputs of ragged batches": run(
            trial, batched, stack(trial, RAGGED_BATCHES), stacked_lengths(trial)
        )
    }


def vmap_grad_batches(trial: Trial) -> Results:
    batched = jax.vmap(jax.grad(trial.total))
    return {
        "gradient of ragged batches": run(
            trial, batched, stack(trial, RAGGED_BATCHES), stacked_lengths(trial)
        )
    }


def vmap_jacrev(trial: Trial) -> Results:
    batched = jax.vmap(jax.jacrev(trial.vary))
    value = trial.point.variables[trial.small]
    jacobians = run(trial, batched, trial.adapter.array(np.stack([value] * 2)))
    return {"Jacobian": {name: np.asarray(value)[1] for name, value in jacobians.items()}}


def vmap_ensemble(trial: Trial) -> Results:
    stacked = {**stack(trial, MEMBERS), **trial.inputs}
    axes = {name: None if name in trial.inputs else 0 for name in stacked}

    def member(variables: Arrays) -> Any:
        return trial.run(variables), jax.grad(trial.total)(variables)

    outputs, gradient = run(trial, jax.vmap(member, in_axes=(axes,)), stacked)
    return {"outputs of members": outputs, "gradient of members": gradient}


def scan_ensemble(trial: Trial) -> Results:
    """Loop over stacked parameters, as `nnx.scan` does over the layers of a deep network."""
    stacked = stack(trial, MEMBERS)

    def loop(stacked: Arrays) -> Any:
        def step(total: Any, variables: Arrays) -> Any:
            outputs = trial.run(variables)
            return total + trial.weigh(outputs), outputs

        return jax.lax.scan(step, jnp.zeros((), trial.adapter.dtype), stacked)

    gradient, outputs = run(trial, jax.grad(loop, has_aux=True), stacked)
    return {"outputs of members": outputs, "gradient of members": gradient}


def map_batches(trial: Trial) -> Results:
    def one(arguments: Any) -> Any:
        return trial.run(*arguments)

    arguments = stack(trial, RAGGED_BATCHES), stacked_lengths(trial)
    return {"outputs of ragged batches": run(trial, lambda a: jax.lax.map(one, a), arguments)}


def conditional(trial: Trial) -> Results:
    def either(variables: Arrays, flag: Any) -> Any:
        return jax.lax.cond(flag, trial.total, lambda v: 0 * trial.total(v), variables)

    return {"gradient": run(trial, jax.grad(either), trial.variables, True)}


def remat(trial: Trial) -> Results:
    return {"gradient": run(trial, jax.grad(jax.checkpoint(trial.total)), trial.variables)}


TRANSFORMATIONS: dict[str, Transformation] = {
    "grad": derivative(grad, *LAYERS, *SOME),
    "grad and jvp, eager": derivative(eager, "LSTM"),
    "vjp": derivative(vjp, *SOME),
    "jvp": derivative(jvp, *LAYERS, *SOME, "AttentionLSTM", "XTFT"),
    "linearize": derivative(linearize, *SOME),
    "linear_transpose": derivative(linear_transpose, *SOME),
    "jacrev": derivative(jacrev, *WAYS, *SOME),
    "jacfwd": derivative(jacfwd, *WAYS, *SOME),
    "grad of grad": derivative(grad_of_grad, "LSTM", "lstm, projection", "GRU", "RNN_TANH"),
    "jvp of grad": derivative(jvp_of_grad, *WAYS, "RNN_TANH"),
    "grad of jvp": derivative(grad_of_jvp, "LSTM, tied", "lstm, projection", "GRU"),
    "hessian": derivative(hessian, "LSTM", "RNN_RELU"),
    "vmap over batches": derivative(vmap_batches, *LAYERS, *SOME),
    "vmap of grad": derivative(vmap_grad_batches, *WAYS, *SOME, "AttentionLSTM"),
    "vmap of jacrev": derivative(vmap_jacrev, "LSTM"),
    "vmap over an ensemble": derivative(vmap_ensemble, *SOME, "XTFT"),
    "scan over an ensemble": derivative(scan_ensemble, *SOME),
    "lax.map": derivative(map_batches, *SOME),
    "lax.cond": derivative(conditional, *SOME),
    "remat": derivative(remat, *SOME),
}
