"""Evaluating a function and its gradients many times over, quickly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np

from ragged_conformance.adapter import Adapter, JaxAdapter, TorchAdapter

Results = dict[str, np.ndarray]
Arrays = Mapping[str, Any]
Options = dict[str, Any]  # of XLA's compiler
# Of inputs and constants: a scalar to differentiate, and outputs by name.
Function = Callable[[Arrays, Arrays], tuple[Any, Mapping[str, Any]]]
Evaluate = Callable[[Arrays, Arrays], tuple[Results, Results]]

# XLA's simplifier makes a product with a mask a selection, which hides a NaN of padding.
KEEPS_NAN: Options = {"xla_disable_hlo_passes": "algsimp"}
FAST: Options = KEEPS_NAN | {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def evaluator(adapter: Adapter, function: Function, options: Options = FAST) -> Evaluate:
    """Make `evaluate(inputs, constants) -> (outputs, gradients by the inputs)`.

    On JAX it is one compiled program a shape; its constants, lengths too, are traced.
    """
    if isinstance(adapter, JaxAdapter):
        return _compiled(adapter, function, options)

    def evaluate(inputs: Arrays, constants: Arrays) -> tuple[Results, Results]:
        with one_thread(adapter):
            _, outputs = function(inputs, constants)
            gradients = adapter.gradients(lambda **arrays: function(arrays, constants)[0], inputs)
        return to_numpy(adapter, outputs), gradients

    return evaluate


def _compiled(adapter: Adapter, function: Function, options: Options) -> Evaluate:
    import jax

    program = compiled(adapter, jax.grad(function, has_aux=True), options)

    def evaluate(inputs: Arrays, constants: Arrays) -> tuple[Results, Results]:
        gradients, outputs = program(dict(inputs), dict(constants))
        return to_numpy(adapter, outputs), to_numpy(adapter, gradients)

    return evaluate


def compiled(
    adapter: Adapter, function: Callable[..., Any], options: Options = FAST
) -> Callable[..., Any]:
    """Compile for JAX; by default without optimisation, which takes longer here than running."""
    if not isinstance(adapter, JaxAdapter):
        return function
    import jax

    supported = _supported(*options.items()) if adapter.device == "cpu" else {}
    return jax.jit(function, compiler_options=supported or None)


@functools.cache
def _supported(*options: tuple[str, Any]) -> Options:
    """Leave out what this version's XLA does not have."""
    import jax

    supported = {}
    for name, value in options:
        with suppress(jax.errors.JaxRuntimeError):
            jax.jit(lambda: 0, compiler_options={name: value})()
            supported[name] = value
    return supported


def forward(adapter: Adapter, function: Callable[..., Arrays]) -> Callable[..., Results]:
    """Make a function that copies its outputs to the host; on JAX it is compiled."""
    function = compiled(adapter, function)

    def run(*arrays: Any) -> Results:
        with one_thread(adapter):
            return to_numpy(adapter, function(*arrays))

    return run


def shapes(
    adapter: Adapter, function: Callable[..., Arrays], *arrays: Any
) -> dict[str, tuple[int, ...]]:
    """The shapes of a function's outputs, for which JAX compiles nothing."""
    if isinstance(adapter, JaxAdapter):
        import jax

        outputs = jax.eval_shape(function, *arrays)
    else:
        outputs = function(*arrays)
    return {name: tuple(output.shape) for name, output in outputs.items()}


def native(adapter: Adapter, arguments: Arrays) -> dict[str, Any]:
    """Make arrays native and leave other values."""
    return {k: adapter.array(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}


def to_numpy(adapter: Adapter, arrays: Arrays) -> Results:
    """Copy arrays by name to the host."""
    return {name: adapter.to_numpy(value) for name, value in arrays.items()}


@contextmanager
def one_thread(adapter: Adapter) -> Iterator[None]:
    """Run torch on one thread, which is faster on arrays this small."""
    with one_torch_thread() if isinstance(adapter, TorchAdapter) else nullcontext():
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch on one thread inside a `with` block."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
