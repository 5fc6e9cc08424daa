"""Rows dealt out over devices, on JAX: right numbers, and every row stays where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import jax

import ragged
from ragged import losses

COUNTS = [3, 0, 5, 2]
X = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
X[np.arange(5) >= np.array(COUNTS)[:, None]] = np.nan
WEIGHTS = [1.0, 2.0, 3.0, 4.0]
ROWWISE = {
    "align": lambda x, n: ragged.align_sequences(x, n, source="left", target="right", max_length=6),
    "elements": lambda x, n: losses.mse(x, x * 2, lengths=n, weights=WEIGHTS, reduction="none"),
    "gradient": lambda x, n: jax.grad(
        lambda x: losses.mae(ragged.flip_sequences(x, n), 0 * x, lengths=n)
    )(x),
}
WHOLE = {
    "mean": lambda x, n: losses.mse(x, x * 2, lengths=n),
    "packed": lambda x, n: ragged.pack_sequences(x, COUNTS).data,
}


@pytest.mark.skipif("SHARDED" in os.environ, reason="the process itself")
def test_two_devices_in_a_process_of_their_own():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "SHARDED": "1", "JAX_NUM_CPU_DEVICES": "2", "RAGGED_BACKEND": "jax"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.skipif("SHARDED" not in os.environ, reason="needs two devices")
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_rows_stay_on_their_devices(kind):
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    mesh = jax.make_mesh((2,), ("rows",), axis_types=(getattr(AxisType, kind),))
    sharding = NamedSharding(mesh, PartitionSpec("rows"))
    x, counts = jax.device_put((X, np.array(COUNTS, np.int32)), sharding)
    functions: dict[str, Any] = ROWWISE | WHOLE
    if kind == "Explicit":
        del functions["packed"]  # JAX takes no tokens across explicitly sharded rows
    with jax.set_mesh(mesh):
        for name, function in functions.items():
            calls = [function, jax.jit(function)] if name == "align" else [function]
            for call in calls:
                found = call(x, counts if name in ROWWISE else COUNTS)
                np.testing.assert_allclose(found, function(X, COUNTS), rtol=1e-5, atol=1e-6)
                if name in ROWWISE:
                    assert found.sharding.is_equivalent_to(sharding, found.ndim), name
        mask = ragged.create_padding_mask(counts, 5)
        assert mask.sharding.is_equivalent_to(sharding, 2)
        np.testing.assert_array_equal(mask, np.arange(5) < np.array(COUNTS)[:, None])
