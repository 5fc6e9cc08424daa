"""Programs that JAX records, compiles and takes apart; a new one is a line of the table."""

from __future__ import annotations

import functools
from typing import Any

import jax

from ragged_conformance.evaluation import compiled
from ragged_conformance.transformations.jax_tools import native_lengths, run
from ragged_conformance.transformations.lines import (
    SOME,
    WAYS,
    Found,
    Transformation,
    program,
)
from ragged_conformance.transformations.problems import Arrays, Trial


def jit(trial: Trial) -> Found:
    def both(variables: Arrays, lengths: Arrays) -> Any:
        return trial.run(variables, lengths), jax.grad(trial.total)(variables, lengths)

    program = compiled(trial.adapter, both)
    outputs, gradient = program(trial.variables, native_lengths(trial))
    return {"outputs": outputs, "gradient": gradient}


def without_jit(trial: Trial) -> Found:
    with jax.disable_jit():
        return {"outputs": trial.run(trial.variables)}


def made_jaxpr(trial: Trial) -> Found:
    made, shapes = jax.make_jaxpr(trial.run, return_shape=True)(trial.variables)
    call = functools.partial(jax.core.eval_jaxpr, made.jaxpr, made.consts)
    found = run(trial, call, *jax.tree.leaves(trial.variables))
    return {"outputs": jax.tree.unflatten(jax.tree.structure(shapes), found)}


def eval_shape(trial: Trial) -> Found:
    found = jax.eval_shape(trial.run, trial.variables, native_lengths(trial))
    return {"shapes": {name: value.shape for name, value in found.items()}}


def exported(trial: Trial) -> Found:
    arguments = trial.variables, native_lengths(trial)
    program = jax.export.export(jax.jit(trial.run))(*arguments)
    again = jax.export.deserialize(program.serialize())
    return {"outputs": jax.jit(again.call)(*arguments)}


def exported_with_gradient(trial: Trial) -> Found:
    arguments = trial.variables, native_lengths(trial)
    # Of shapes: JAX itself derives no gradient of what was exported of arrays put on a device.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    program = jax.export.export(jax.jit(trial.total))(*shapes)
    again = jax.export.deserialize(program.serialize(vjp_order=1))
    return {"gradient": jax.grad(again.call)(*arguments)}


def debug_nans(trial: Trial) -> Found:
    with jax.debug_nans(True):
        outputs, gradient = trial.run(trial.variables), jax.grad(trial.total)(trial.variables)
    return {"outputs": outputs, "gradient": gradient}


def strict_promotion(trial: Trial) -> Found:
    with jax.numpy_rank_promotion("raise"):
        return eval_shape(trial)


def checking_leaks(trial: Trial) -> Found:
    with jax.checking_leaks():
        return {"gradient": jax.jit(jax.grad(trial.total))(trial.variables)}


LINES: dict[str, Transformation] = {
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
