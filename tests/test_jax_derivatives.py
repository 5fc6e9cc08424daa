"""All derivatives of JAX's layer, in float64: our kernels beside the scan that JAX differentiates.

That scan, `policy="never"`, is proved against finite differences by the conformance suite.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flax")

FOLDER = Path(__file__).parent


def run_script(script: str, *passed: str, **variables: str) -> None:
    """Run a script of this folder in a process of its own, whose precision and devices it sets."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / script), *passed],
        env={**os.environ, "JAX_ENABLE_X64": "1", **variables},
        capture_output=True, text=True, check=False, cwd=FOLDER.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("compiler", [{}, {"RAGGED_KERNELS": "0"}], ids=["kernels", "none"])
def test_every_derivative_is_that_of_the_scan(compiler: dict[str, str]) -> None:
    run_script("jax_derivatives.py", **compiler)


def test_rows_stay_on_their_devices() -> None:
    run_script("jax_devices.py", XLA_FLAGS="--xla_force_host_platform_device_count=2")
