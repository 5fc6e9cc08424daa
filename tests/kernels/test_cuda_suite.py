"""The conformance suite on the CUDA kernels, which host threads run in the place of the CPU's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ragged import kernels

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
PARTS = ("recurrent", "jagged")


def test_the_suite_is_green(need):
    need("torch")
    parts = [f"ragged_conformance.test_{part}" for part in PARTS]
    options = ["--pyargs", "--backend", "torch", "--dtype", "float32", "-k", "not many_rows"]
    plugins = ["-p", "tests.kernels.played_suite", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *options, *parts],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"played launches: (\d+)", done.stdout)[1]) > 300
