"""Attention under the transformations of torch and JAX: the oracle's numbers, whatever is around.

NaN stands at padding throughout.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import normal
from ragged_conformance.oracle_attention import attention
from ragged_conformance.test_attention import FORMS, LENGTHS, filled, named, options_of, values_of
from ragged_conformance.tolerances import MODEL, assert_all_close, assert_close

pytestmark = [
    pytest.mark.operation("attention"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning"),
]
FORM = "shared, causal, dropped"
COUNTS = LENGTHS["mixed"]
SCALE = 1 / 32  # of directions: short ones, over which `oracle.curvature` is exact
Values = dict[str, np.ndarray]
Run = Callable[..., Any]


class Expected:
    """What the oracle says of a weighted sum of the result."""

    def __init__(self) -> None:
        self.values = values_of(FORM, 4)
        self.directions = {
            name: SCALE * normal(*value.shape, seed=100) for name, value in self.values.items()
        }
        self.directions = filled(self.directions, COUNTS, 0.0)
        self.out = self.run(**self.values)
        self.weights = normal(*self.out.shape, seed=7)

    def run(self, **values: Any) -> np.ndarray:
        return attention(**values, **named(COUNTS), **options_of(FORM))[0]

    def total(self, **values: Any) -> Any:
        return (self.run(**values) * self.weights).sum()

    @functools.cached_property
    def gradient(self) -> Values:
        return oracle.gradient(self.total, self.values)

    @functools.cached_property
    def tangent(self) -> np.ndarray:
        moved = {n: value + 1e-30j * self.directions[n] for n, value in self.values.items()}
        return np.imag(self.run(**moved)) / 1e-30

    @functools.cached_property
    def curvature(self) -> float:
        return oracle.curvature(self.total, self.values, self.directions)


@functools.cache
def expected() -> Expected:
    return Expected()


class Trial:
    """Native arrays, and functions of them to transform."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        own = expected()
        self.values = adapter.arrays(filled(own.values, COUNTS))
        self.directions = adapter.arrays(filled(own.directions, COUNTS, np.nan))
        self.steps = adapter.arrays(own.directions)
        self.weights = adapter.array(own.weights)

    def run(self, values: Any, lengths: Any = None) -> Any:
        counts = named(COUNTS) if lengths is None else lengths
        return ragged.attention(**values, **counts, **options_of(FORM))

    def total(self, values: Any, lengths: Any = None) -> Any:
        return (self.run(values, lengths) * self.weights).sum()

    def counts(self) -> dict[str, Any]:
        return {name: self.adapter.array(np.array(n)) for name, n in named(COUNTS).items()}

    def along(self, arrays: Any) -> Any:
        return sum((arrays[name] * step).sum() for name, step in self.steps.items())

    def check(self, results: dict[str, Any]) -> None:
        own, dtype = expected(), self.adapter.dtype
        for what, value in results.items():
            if what.startswith("gradient"):
                arrays = {name: self.adapter.to_numpy(array) for name, array in value.items()}
                assert_all_close(arrays, own.gradient, dtype)
            else:
                array = self.adapter.to_numpy(value)
                assert_close(array, np.asarray(getattr(own, what.split()[0])), dtype, MODEL, what)


def torch_lines() -> dict[str, Callable[[Trial], dict[str, Any]]]:
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils.checkpoint import checkpoint

    ad = torch.autograd.forward_ad

    def leaves(t: Trial) -> Any:
        return {name: value.clone().requires_grad_() for name, value in t.values.items()}

    def pull(total: Any, variables: Any, **options: Any) -> Any:
        found = torch.autograd.grad(total, list(variables.values()), **options)
        return dict(zip(variables, found, strict=True))

    def around(t: Trial, run: Run) -> dict[str, Any]:
        variables = leaves(t)
        out = run(variables, t.counts())
        return {"out": out, "gradient": pull((out * t.weights).sum(), variables)}

    def dual(t: Trial) -> dict[str, Any]:
        with ad.dual_level():
            made = {n: ad.make_dual(value, t.directions[n]) for n, value in t.values.items()}
            return {"tangent": ad.unpack_dual(t.run(made)).tangent.clone()}

    def double_backward(t: Trial) -> dict[str, Any]:
        variables = leaves(t)
        gradient = pull(t.total(variables), variables, create_graph=True)
        return {"gradient": gradient, "curvature": t.along(pull(t.along(gradient), variables))}

    def record(t: Trial) -> Run:
        return make_fx(lambda values, counts: t.run(values, counts), tracing_mode="symbolic")

    def double_backward_of_a_program(t: Trial) -> dict[str, Any]:
        variables = leaves(t)
        program = record(t)(dict(t.values), t.counts())
        total = (program(variables, t.counts()) * t.weights).sum()
        gradient = pull(total, variables, create_graph=True)
        return {"gradient": gradient, "curvature": t.along(pull(t.along(gradient), variables))}

    def forward_over_reverse(t: Trial) -> dict[str, Any]:
        gradient = torch.func.grad(t.total)
        moved = torch.func.jvp(gradient, (t.values,), (t.directions,))[1]
        return {"curvature": t.along(moved)}

    def vmap(t: Trial) -> dict[str, Any]:
        stacked = {name: torch.stack([value, value]) for name, value in t.values.items()}
        out = torch.func.vmap(t.run)(stacked)
        gradient = torch.func.vmap(torch.func.grad(t.total))(stacked)
        first, second = ({n: array[k] for n, array in gradient.items()} for k in (0, 1))
        return {"out": out[0], "out 2": out[1], "gradient": first, "gradient 2": second}

    def compiled(t: Trial) -> dict[str, Any]:
        return around(t, torch.compile(t.run, fullgraph=True, dynamic=True, backend="aot_eager"))

    def exported(t: Trial) -> dict[str, Any]:
        module = torch.nn.Module()
        module.forward = t.run
        example = (dict(t.values), t.counts())
        return around(t, torch.export.export(module, example, strict=False).module())

    return {
        "autograd": lambda t: around(t, t.run),
        "grad": lambda t: {"gradient": torch.func.grad(t.total)(t.values)},
        "jvp": lambda t: {"tangent": torch.func.jvp(t.run, (t.values,), (t.directions,))[1]},
        "dual numbers": dual,
        "double backward": double_backward,
        "double backward of a program": double_backward_of_a_program,
        "forward over reverse": forward_over_reverse,
        "vmap": vmap,
        "compile": compiled,
        "export": exported,
        "make_fx": lambda t: around(t, record(t)(dict(t.values), t.counts())),
        "functionalize": lambda t: {"out": torch.func.functionalize(t.run)(t.values)},
        "checkpoint": lambda t: around(
            t, functools.partial(checkpoint, t.run, use_reentrant=False)
        ),
    }


def jax_lines() -> dict[str, Callable[[Trial], dict[str, Any]]]:
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, PartitionSpec

    def jit(t: Trial) -> dict[str, Any]:
        out, pull_back = jax.vjp(lambda values: jax.jit(t.run)(values, t.counts()), t.values)
        return {"out": out, "gradient": pull_back(t.weights)[0]}

    def vmap(t: Trial) -> dict[str, Any]:
        stacked = {name: jnp.stack([value, value]) for name, value in t.values.items()}
        both = jax.vmap(jax.grad(t.total), in_axes=({"q": 0, "k": 0, "v": 0},))(stacked)
        keys = {**t.values, "k": stacked["k"]}
        out = jax.vmap(t.run, in_axes=({"q": None, "k": 0, "v": None},))(keys)
        gradient = {name: array[1] for name, array in both.items()}
        return {"out": out[1], "gradient": gradient}

    def grad_of_vmap(t: Trial) -> dict[str, Any]:
        def total(values: Any) -> Any:
            scales = jnp.array([1.0, 2.0], t.weights.dtype)
            out = jax.vmap(lambda scale: t.run({**values, "v": values["v"] * scale}))(scales)
            return (out[1] * t.weights).sum() / 2

        return {"gradient": jax.grad(total)(t.values)}

    def forward_over_reverse(t: Trial) -> dict[str, Any]:
        moved = jax.jit(lambda v, d: jax.jvp(jax.grad(t.total), (v,), (d,))[1])
        return {"curvature": t.along(moved(t.values, t.directions))}

    def reverse_over_reverse(t: Trial) -> dict[str, Any]:
        again = jax.grad(lambda values: t.along(jax.grad(t.total)(values)))
        return {"curvature": t.along(jax.jit(again)(t.values))}

    def shard_map(t: Trial) -> dict[str, Any]:
        mesh = Mesh(np.array(jax.devices("cpu")[:1]), ("rows",))
        rows = PartitionSpec("rows")
        run = jax.shard_map(t.run, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
        return {"out": jax.jit(run)(t.values, t.counts())}

    def exported(t: Trial) -> dict[str, Any]:
        program = jax.export.export(jax.jit(t.run))(t.values, t.counts())
        assert "custom_call @attention" not in program.mlir_module()
        return {"out": program.call(t.values, t.counts())}

    def alone(t: Trial) -> dict[str, Any]:
        with jax.disable_jit():
            return {"out": t.run(t.values)}

    return {
        "jit": jit,
        "grad": lambda t: {"gradient": jax.grad(t.total)(t.values)},
        "jvp": lambda t: {"tangent": jax.jvp(t.run, (t.values,), (t.directions,))[1]},
        "linearize": lambda t: {"tangent": jax.linearize(t.run, t.values)[1](t.directions)},
        "vmap": vmap,
        "grad of vmap": grad_of_vmap,
        "forward over reverse": forward_over_reverse,
        "reverse over reverse": reverse_over_reverse,
        "checkpoint": lambda t: {"gradient": jax.grad(jax.checkpoint(t.total))(t.values)},
        "shard_map": shard_map,
        "export": exported,
        "disable_jit": alone,
    }


TORCH = (
    *("autograd", "grad", "jvp", "dual numbers", "double backward", "double backward of a program"),
    *("forward over reverse", "vmap", "compile", "export", "make_fx", "functionalize"),
    "checkpoint",
)
JAX = (
    *("jit", "grad", "jvp", "linearize", "vmap", "grad of vmap", "forward over reverse"),
    *("reverse over reverse", "checkpoint", "shard_map", "export", "disable_jit"),
)


@pytest.mark.parametrize("transformation", TORCH)
def test_torch(torch_adapter: Adapter, transformation: str, dtype: str) -> None:
    if dtype != "float64":
        pytest.skip("derivatives of every kind are compared in float64")
    lines, trial = torch_lines(), Trial(torch_adapter)
    assert set(lines) == set(TORCH)
    trial.check(lines[transformation](trial))


@pytest.mark.parametrize("transformation", JAX)
def test_jax(jax_adapter: Adapter, transformation: str, dtype: str) -> None:
    if dtype != "float64":
        pytest.skip("derivatives of every kind are compared in float64")
    lines, trial = jax_lines(), Trial(jax_adapter)
    assert set(lines) == set(JAX)
    trial.check(lines[transformation](trial))


def test_the_form_has_all_that_a_call_can_have() -> None:
    assert {"is_shared", "causal", "dropout", "seed"} == set(FORMS[FORM])
