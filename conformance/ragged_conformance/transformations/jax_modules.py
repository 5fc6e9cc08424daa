"""What JAX does to modules and arrays; a new one is a line of the table."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from ragged_conformance.evaluation import compiled
from ragged_conformance.runner import lengths_of
from ragged_conformance.transformations.comparison import RAGGED_BATCHES
from ragged_conformance.transformations.jax_tools import native_lengths, run, stack
from ragged_conformance.transformations.lines import (
    SOME,
    WAYS,
    Results,
    Transformation,
    of_module,
    program,
)
from ragged_conformance.transformations.problems import Arrays, Trial


def mesh() -> Mesh:
    """A mesh of one device."""
    return Mesh(np.array(jax.devices()[:1]), ("batch",))


def shard_map(trial: Trial) -> Results:
    """Shard rows over devices; the gradient of the parameters is the sum over them."""
    rows, everywhere = PartitionSpec("batch"), PartitionSpec()
    specs = {name: rows if name in trial.inputs else everywhere for name in trial.variables}
    outputs_specs = dict.fromkeys(trial.weights, rows)

    def part(variables: Arrays, lengths: Arrays, weights: Arrays) -> Any:
        outputs = trial.run(variables, lengths)
        total = sum((value * weights[name]).sum() for name, value in outputs.items())
        return jax.lax.psum(total, "batch"), outputs

    lengths = native_lengths(trial)
    sharded = jax.shard_map(
        part,
        mesh=mesh(),
        in_specs=(specs, dict.fromkeys(lengths, rows), outputs_specs),
        out_specs=(everywhere, outputs_specs),
    )
    program = compiled(trial.adapter, jax.grad(sharded, has_aux=True))
    gradient, outputs = program(trial.variables, lengths, trial.weights)
    return {"outputs": outputs, "gradient": gradient}


def sharded(trial: Trial) -> Results:
    """Run on arrays that are placed on the devices of a mesh."""
    sharding = jax.sharding.NamedSharding(mesh(), PartitionSpec())
    variables = jax.device_put(trial.variables, sharding)
    outputs = run(trial, lambda variables: trial.run(variables), variables)
    gradient = run(trial, jax.grad(trial.total), variables)
    return {"outputs": outputs, "gradient": gradient}


def pmap(trial: Trial) -> Results:
    arguments = trial.variables, native_lengths(trial)
    arguments = jax.tree.map(lambda array: np.asarray(array)[None], arguments)
    outputs = jax.pmap(lambda variables, lengths: trial.run(variables, lengths))(*arguments)
    return {"outputs": {name: np.asarray(value)[0] for name, value in outputs.items()}}


def mapped(function: Callable[[Any], Any]) -> Callable[[Trial], Results]:
    """`jax.tree.map` over every argument, `Lengths` too, by a function that changes nothing."""

    def run_mapped(trial: Trial) -> Results:
        variables, lengths = jax.tree.map(function, (trial.variables, dict(trial.lengths)))
        return {"outputs": run(trial, trial.run, variables, lengths)}

    return run_mapped


def repeated(leaf: Any) -> Any:
    """Repeat the elements of a leaf, and drop the copies again."""
    return jnp.repeat(leaf, 2, axis=-1)[..., ::2]


def stacked_trees(trial: Trial) -> Results:
    """`Lengths` of two batches, stacked by `jax.tree.map` and unstacked by `vmap`."""
    points = trial.problem.points
    batches = [lengths_of(points[point].batch, trial.problem.policy) for point in RAGGED_BATCHES]
    lengths = jax.tree.map(lambda *counts: jnp.stack(counts), *batches)
    outputs = run(trial, jax.vmap(trial.run), stack(trial, RAGGED_BATCHES), lengths)
    return {"outputs of ragged batches": outputs}


def trees_of_gradients(trial: Trial) -> Results:
    """The gradient of every argument, lengths too, which have none."""
    arguments = trial.variables, dict(trial.lengths)
    differentiate = jax.grad(lambda both: trial.total(*both), allow_int=True)
    gradient, of_lengths = run(trial, differentiate, arguments)
    assert all(leaf.dtype == jax.dtypes.float0 for leaf in jax.tree.leaves(of_lengths))
    return {"gradient": gradient}


def deep_copy(trial: Trial) -> Results:
    return {"outputs": trial.call(copy.deepcopy(trial.module))}


def clone(trial: Trial) -> Results:
    return {"outputs": trial.call(nnx.clone(trial.module))}


def pickled(trial: Trial) -> Results:
    return {"outputs": trial.call(pickle.loads(pickle.dumps(trial.module)))}


def nnx_jit(trial: Trial) -> Results:
    call = nnx.jit(lambda module, inputs, lengths: trial.subject.call(module, inputs, lengths))
    return {"outputs": call(trial.module, trial.inputs, dict(trial.lengths))}


def nnx_grad(trial: Trial) -> Results:
    def total(module: Any, inputs: Arrays) -> Any:
        return trial.weigh(trial.subject.call(module, inputs, trial.lengths))

    differentiate = nnx.jit(nnx.grad(total, argnums=(0, 1)))
    of_module, of_inputs = differentiate(trial.module, trial.inputs)
    leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(of_module))
    of_parameters = {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}
    return {"gradient": {**of_inputs, **of_parameters}}


def nnx_remat(trial: Trial) -> Results:
    call = nnx.remat(lambda module, inputs: trial.subject.call(module, inputs, trial.lengths))
    return {"outputs": nnx.jit(call)(trial.module, trial.inputs)}


def to_linen(trial: Trial) -> Results:
    """A module of nnx inside one of linen."""
    graph, state = nnx.split(trial.module)
    linen = nnx.bridge.ToLinen(lambda: nnx.merge(graph, state), skip_rng=True)
    variables = linen.init(jax.random.key(0), *_positional(trial))
    return {"outputs": trial.call(lambda *arguments: linen.apply(variables, *arguments))}


def _positional(trial: Trial) -> tuple[Any, ...]:
    """The arguments with which a subject calls its module."""
    recorded: list[Any] = []

    def module(*arguments: Any) -> Any:
        recorded.extend(arguments)
        return trial.module(*arguments)

    trial.call(module)
    return tuple(recorded)


TRANSFORMATIONS: dict[str, Transformation] = {
    "shard_map": program(shard_map, *WAYS, *SOME),
    "arrays on a mesh": program(sharded, *SOME),
    "pmap": program(pmap, *SOME),
    "tree.map": program(mapped(lambda leaf: leaf), *WAYS, *SOME),
    "tree.map of device_put": program(mapped(jax.device_put), *SOME),
    "tree.map of repeat": program(mapped(jax.jit(repeated)), "LSTM"),
    "tree.map of stack": program(stacked_trees, *SOME),
    "grad of every argument": program(trees_of_gradients, *SOME),
    "deepcopy": of_module(deep_copy, *SOME, "LSTM, tied"),
    "nnx.clone": of_module(clone, *SOME),
    "pickle": of_module(pickled, *SOME),
    "nnx.jit": of_module(nnx_jit, *SOME, "LSTM, tied"),
    "nnx.grad": of_module(nnx_grad, *SOME, "LSTM, tied"),
    "nnx.remat": of_module(nnx_remat, *SOME),
    "nnx.bridge.ToLinen": of_module(to_linen, *SOME),
}
