"""JAX's programs for CUDA compute float32 in float32, and in TF32 if that is asked for."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp
from flax import nnx

import ragged
from ragged.backend import use_backend
from ragged.data import Sample, Series, collate
from ragged.training.optimizers import AdamW


def lower(run: Any, *args: Any, static: tuple[int, ...] = ()) -> str:
    """Lower a program for CUDA."""
    return (
        jax.jit(run, static_argnums=static)
        .trace(*args)
        .lower(lowering_platforms=("cuda",))
        .as_text()
    )


def precisions(program: str) -> set[str]:
    """The precisions of all products of a program, DEFAULT for what the process's decides."""
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    found = [re.search(r"precision = \[(\w+), (\w+)\]", line) for line in products]
    return {"DEFAULT" if match is None else ", ".join(match.groups()) for match in found}


@pytest.mark.parametrize("options", [{}, {"proj_size": 2}])
def test_layers_and_their_gradients(options):
    with use_backend("jax"):
        layer = ragged.LSTM(3, 4, seed=0, **options)
    graph, params = nnx.split(layer)

    def loss(params: Any, x: Any) -> Any:
        y, _ = nnx.merge(graph, params)(x, lengths=jnp.array([2, 4]))
        return y.sum()

    x = jnp.ones((2, 4, 3))
    assert precisions(lower(loss, params, x)) == {"HIGHEST, HIGHEST"}
    assert precisions(lower(jax.grad(loss, (0, 1)), params, x)) == {"HIGHEST, HIGHEST"}


def make_step(precision: str) -> tuple[Any, Any]:
    event = Series("0", np.arange(4.0), {})
    batch = collate([Sample(np.ones((3, 2)), np.ones((2, 1)), np.ones((2, 1)), event, 3)])
    model = ragged.models.AttentionLSTM(2, 1, output_size=1, hidden_size=4, num_heads=2, seed=0)
    backend, loss = ragged.get_backend(), ragged.losses.mse
    return backend.TrainingStep(model, loss, AdamW(), dtype=precision), batch


@pytest.mark.parametrize(
    ("precision", "expected"), [("float32", "HIGHEST, HIGHEST"), ("tf32", "HIGH, HIGH")]
)
def test_training_steps(precision, expected, monkeypatch):
    before = jax.config.jax_default_matmul_precision
    with use_backend("jax"):
        step, batch = make_step(precision)
        taken: list[set[str]] = []

        def lowered(*args: Any) -> Any:
            taken.append(precisions(lower(step._differentiated, *args, static=(2,))))
            return jnp.ones(()), args[0]

        monkeypatch.setattr(step, "_differentiate", lowered)  # nothing has to be compiled
        monkeypatch.setattr(step, "_apply", lambda *args: (args[:3], jnp.asarray(True)))
        step.step(batch)
    assert taken == [{expected}]
    assert jax.config.jax_default_matmul_precision == before
