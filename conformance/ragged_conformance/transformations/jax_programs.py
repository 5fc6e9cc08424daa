"""Programs that JAX traces, compiles and exports; a new one is a line of the table."""

from __future__ import annotations

import functools
from typing import Any

import jax

from ragged_conformance.evaluation import compiled
from ragged_conformance.transformations.jax_tools import native_lengths, run
from ragged_conformance.transformations.lines import (
    SOME,
    WAYS,
    Results,
    Transformation,
    program,
)
from ragged_conformance.transformations.problems import Arrays, Trial


def jit(trial: Trial) -> Results:
    def both(variables: Arrays, lengths: Arrays) -> Any:
        return trial.run(variables, lengths), jax.grad(trial.total)(variables, lengths)

    program = compiled(trial.adapter, both)
    outputs, gradient = program(trial.variables, native_lengths(trial))
    return {"outputs": outputs, "gradient": gradient}


def without_jit(trial: Trial) -> Results:
    with jax.disable_jit():
        return {"outputs": trial.run(trial.variables)}


def made_jaxpr(trial: Trial) -> Results:
    jaxpr, shapes = jax.make_jaxpr(trial.run, return_shape=True)(trial.variables)
    call = functools.partial(jax.core.eval_jaxpr, jaxpr.jaxpr, jaxpr.consts)
    outputs = run(trial, call, *jax.tree.leaves(trial.variables))
    return {"outputs": jax.tree.unflatten(jax.tree.structure(shapes), outputs)}


def eval_shape(trial: Trial) -> Results:
    shapes = jax.eval_shape(trial.run, trial.variables, native_lengths(trial))
    return {"shapes": {name: value.shape for name, value in shapes.items()}}


def exported(trial: Trial) -> Results:
    arguments = trial.variables, native_lengths(trial)
    program = jax.export.export(jax.jit(trial.run))(*arguments)
    again = jax.export.deserialize(program.serialize())
    return {"outputs": run(trial, again.call, *arguments)}


def exported_with_gradient(trial: Trial) -> Results:
    arguments = trial.variables, native_lengths(trial)
    # Of shapes: JAX has no gradient of programs exported with arrays that were put on a device.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    program = jax.export.export(jax.jit(trial.total))(*shapes)
    again = jax.export.deserialize(program.serialize(vjp_order=1))
    return {"gradient": run(trial, jax.grad(again.call), *arguments)}


def debug_nans(trial: Trial) -> Results:
    with jax.debug_nans(True):
        outputs, gradient = trial.run(trial.variables), jax.grad(trial.total)(trial.variables)
    return {"outputs": outputs, "gradient": gradient}


def strict_promotion(trial: Trial) -> Results:
    with jax.numpy_rank_promotion("raise"):
        return eval_shape(trial)


def checking_leaks(trial: Trial) -> Results:
    with jax.checking_leaks():
        return {"gradient": jax.jit(jax.grad(trial.total))(trial.variables)}


TRANSFORMATIONS: dict[str, Transformation] = {
    "jit": program(jit, *WAYS, *SOME),
    "disable_jit": program(without_jit, *SOME),
    "make_jaxpr": program(made_jaxpr, *SOME),
    "eval_shape": program(eval_shape),
    "export": program(exported, *WAYS, *SOME),
    "export with its gradient": program(exported_with_gradient, *SOME),
    "debug_nans": program(debug_nans, *WAYS),
    "numpy_rank_promotion": program(strict_promotion),
    "checking_leaks": program(checking_leaks, *SOME),
}
