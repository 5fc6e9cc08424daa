"""JAX's layer as an operator, beside the scan that JAX itself differentiates: `policy="never"`.

What every framework's transformation gives is a table of the conformance suite. Here is what that
leaves out: no compiler, several `vmap` around shared weights, other platforms, several devices.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp
import numpy as np

import ragged
from ragged.backend import use_backend
from tests.recurrent.jax_layers import LENGTHS, WIDTH, assert_equal, make_inputs, squares, total

ARRAYS = make_inputs()
COUNTS = jnp.asarray(LENGTHS)


@pytest.fixture(autouse=True)
def _on_jax() -> Any:
    with use_backend("jax"):
        yield


@pytest.fixture(params=["kernels", "no compiler"])
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let there be kernels of our own, or none."""
    if request.param == "no compiler":
        monkeypatch.setenv("RAGGED_KERNELS", "0")
    return str(request.param)


def differentiate_twice(function: Any) -> Any:
    return jax.grad(lambda *arrays: squares(jax.grad(function)(*arrays)), (0, 2))(*ARRAYS)


def differentiate_shared_weights(function: Any) -> Any:
    parameters, x, state = ARRAYS
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), (x, state))
    each = jax.vmap(jax.vmap(function, (None, 0, None)), (None, None, 0))
    return jax.grad(lambda *arrays: each(*arrays).sum(), (0, 1, 2))(parameters, *two)


@pytest.mark.parametrize("derive", [differentiate_twice, differentiate_shared_weights])
@pytest.mark.usefixtures("compiler")
def test_derivatives_are_those_of_the_scan(derive: Any) -> None:
    found, expected = (
        jax.jit(lambda policy=policy: derive(total(policy)))() for policy in ("auto", "never")
    )
    assert_equal(found, expected, derive.__name__)


def test_programs_for_other_platforms_call_no_kernel(compiler: str) -> None:
    run = jax.jit(jax.value_and_grad(total("auto")))
    here = run.lower(*ARRAYS, COUNTS).as_text()
    there = run.trace(*ARRAYS, COUNTS).lower(lowering_platforms=("cuda",)).as_text()
    assert ("recurrent_backward" in here) == (compiler == "kernels" and has_kernels())
    assert "recurrent_" not in there
    exported = jax.export.export(run, platforms=("cpu", "cuda"))(*ARRAYS, COUNTS)
    assert_equal(exported.call(*ARRAYS, COUNTS), run(*ARRAYS, COUNTS), "export")


def test_an_exported_tangent_reads_nothing_that_kernels_kept() -> None:
    tangents = jax.tree.map(jnp.ones_like, ARRAYS)
    push = jax.jit(jax.linearize(jax.jit(total("auto")), *ARRAYS)[1])
    exported = jax.export.export(push)(*tangents)
    assert_equal(exported.call(*tangents), push(*tangents), "an exported tangent")


def has_kernels() -> bool:
    from ragged_jax.recurrent import cpp

    return cpp.has_kernels("LSTM", "float32")


@pytest.mark.parametrize(("dtype", "wrong"), [("uint8", 255), ("uint32", 2**32 - 1), ("int8", -1)])
def test_traced_lengths_of_every_dtype_are_read_as_they_are(dtype: str, wrong: int) -> None:
    run = jax.jit(lambda lengths: ragged.lstm(*ARRAYS[:2], lengths, ARRAYS[2]))
    assert_equal(run(COUNTS.astype(dtype)), run(COUNTS), dtype)
    if has_kernels():
        with pytest.raises(Exception, match="`lengths` are not all between 0 and the width"):
            jax.block_until_ready(run(jnp.array([wrong, 1, 1, 1], dtype)))


@pytest.mark.parametrize("policy", ["auto", "never"])
def test_clean_data_stays_clean_under_the_strictest_settings(policy: str) -> None:
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), ARRAYS)
    lengths = ragged.Lengths(LENGTHS, WIDTH, policy)

    def run(parameters: Any, x: Any, state: Any) -> Any:
        return ragged.lstm(parameters, x, lengths, state)

    strict = jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict")
    with jax.debug_nans(True), strict[0], strict[1]:
        outputs, vjp = jax.vjp(run, *half)
        gradient = vjp(outputs)
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, gradient))} == {jnp.dtype("bfloat16")}
    expected = run(*jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half))
    for found, wanted in zip(*map(jax.tree.leaves, (outputs, expected)), strict=True):
        assert float(abs(found - wanted).max()) < 1e-2  # half precision is computed in float32


def test_what_kernels_leave_unwritten_is_no_nan() -> None:
    """The forward pass runs by itself, and gives what it keeps, in memory that has held NaN."""
    x, lengths = jnp.ones((8, 64, 3)), ragged.Lengths([5] * 8, 64)
    layer = ragged.LSTM(3, 16, seed=0)
    for _ in range(3):
        blocks = [np.full((8, 64, 5 * 16), np.nan, np.float32) for _ in range(8)]
        del blocks
        with jax.debug_nans(True):
            outputs, vjp = jax.vjp(lambda x: layer(x, lengths)[0], x)
            vjp(outputs)


def test_rows_stay_on_their_devices() -> None:
    folder = Path(__file__).parents[2]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.recurrent.jax_devices"],
        env={**os.environ, "JAX_ENABLE_X64": "1", "XLA_FLAGS": flags},
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
