"""The tests of this folder, and of the conformance suite those of layers, on a pretended device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda import pretended_device

ROOT = Path(__file__).parents[2]
SUITE = "conformance/ragged_conformance"
LAYERS = "not (compile or EncoderDecoder or Attention or Transformer or XTFT)"
CHOSEN = f"(oracle or alone or rows or cannot_speak or form_of_lengths) and {LAYERS}"
ON_CUDA = ["--backend", "torch", "--device", "cuda"]
# What is run there, and how many tests of it have to pass, not be skipped.
RUNS = {
    "own tests": (
        [f"tests/cuda/test_{each}.py" for each in ("kernels", "layers", "training")],
        105,
    ),
    "layers of the conformance suite": (
        [f"{SUITE}/test_promises.py", f"{SUITE}/test_recurrent.py", "-k", CHOSEN, *ON_CUDA],
        180,
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_on_the_pretended_device(run: str) -> None:
    if (reason := pretended_device.reason_against()) is not None:
        pytest.skip(reason)
    tests, least = RUNS[run]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cuda", *tests, "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= least
