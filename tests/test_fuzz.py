"""Every public function gives right numbers or a `RaggedError`, and never ends the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ragged
from ragged.losses import MaskedLoss

CASES = {"torch": 1200, "jax": 160}
NO_ARGUMENTS = {"RaggedError", "available_backends", "get_backend", "losses", "models"}


def public_names() -> set[str]:
    """What a user can call after `ragged.`."""
    losses = {f"losses.{n}" for n, v in vars(ragged.losses).items() if isinstance(v, MaskedLoss)}
    models = {
        f"models.{name}"
        for name in ragged.models.__all__
        if issubclass(getattr(ragged.models, name), ragged.models.Model) and name != "Model"
    }
    return (set(ragged.__all__) | losses | models) - NO_ARGUMENTS


@pytest.mark.parametrize("backend", CASES)
def test_any_argument_gives_right_numbers_or_is_refused(backend, tmp_path):
    pytest.importorskip("torch" if backend == "torch" else "flax")
    last = tmp_path / "last"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz_script", backend, str(CASES[backend]), "0", last],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = f"it ended with {done.returncode} at {last.read_text().strip()}"
    assert done.returncode == 0, f"{said}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert set(done.stdout.splitlines()[0].split()) == public_names()
    assert f"{CASES[backend]} cases on {backend}" in done.stdout
