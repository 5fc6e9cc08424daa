"""This folder's tests, and parts of the conformance suite, on what stands in for a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from ragged import kernels
from tests.cuda import conformance, pretended_device

TESTS = [f"tests/cuda/test_{each}.py" for each in ("graphs", "kernels", "layers", "training")]
PASS, PROVED = 115, 180  # at least, and are not skipped
LAUNCHES = 300


@pytest.fixture
def pretended() -> None:
    """Skip where there can be no pretended device."""
    if (reason := pretended_device.reason_against()) is not None:
        pytest.skip(reason)


def test_this_folder_on_the_pretended_device(pretended: None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.cuda", *TESTS, "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=conformance.ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert _number(r"(\d+) passed", done.stdout) >= PASS


def test_layers_of_the_conformance_suite_on_the_pretended_device(pretended: None) -> None:
    report, output = conformance.run("cuda: a pretended device")
    (row,) = (each for each in report["devices"] if each["backend"] == "torch")
    assert row["device"] == "cuda: a pretended device"
    assert (row["failed"], row["passed"] >= PROVED) == (0, True), output
    assert {"LSTM", "GRU", "RNN"} <= set(row["operations"])
    assert _number(r"products in TF32: (\d+)", output) == 0, "nobody has turned it off"


@pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
def test_cuda_kernels_on_host_threads_in_the_conformance_suite() -> None:
    pytest.importorskip("torch")
    report, output = conformance.run(conformance.HOST_THREADS)
    (row,) = (each for each in report["devices"] if each["backend"] == "torch")
    assert (row["device"], row["failed"]) == (conformance.HOST_THREADS, 0), output
    assert _number(r"played launches: (\d+)", output) > LAUNCHES


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, text
    return int(found[1])
