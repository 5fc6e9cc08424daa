"""What several test files share: a run of either backend, trained once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ragged.backend
from ragged import cli

BACKENDS = ("torch", "jax")
TINY = {
    "config": "magnet",
    "name": "tiny",
    "data.source.init_args.cycles": "12",
    "data.source.init_args.min_steps": "20",
    "data.source.init_args.max_steps": "40",
    "data.batch_size": "4",
    "model.init_args.hidden_size": "4",
    "model.init_args.num_layers": "2",
    "model.init_args.dropout": "0.3",
    "trainer.max_epochs": "3",
    "trainer.device": "cpu",
}


def tiny_arguments(runs: Path, backend: str, **changed: str) -> list[str]:
    """The command line that trains a tiny model; `changed` takes `__` for the dots of a key."""
    options = {**TINY, "runs": str(runs), "backend": backend}
    options |= {name.replace("__", "."): value for name, value in changed.items()}
    return ["train", *(part for key, value in options.items() for part in (f"--{key}", value))]


def train_tiny(runs: Path, backend: str, **changed: str) -> Path:
    """Train a tiny model in this process and return the run's folder."""
    assert cli.main(tiny_arguments(runs, backend, **changed)) == 0
    (folder,) = (path for path in runs.glob("*/*") if path.is_dir())
    return folder


def skip_without(backend: str) -> None:
    """Skip the test where the backend's framework is not installed."""
    pytest.importorskip("torch" if backend == "torch" else "flax")


@pytest.fixture
def no_backend_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start with nothing chosen, and give back what was."""
    monkeypatch.setattr(ragged.backend, "_default", None)
    monkeypatch.delenv("RAGGED_BACKEND", raising=False)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a backend's finished tiny run, which no test may change."""
    found: dict[str, Path] = {}

    def run(backend: str) -> Path:
        skip_without(backend)
        if backend not in found:
            found[backend] = train_tiny(tmp_path_factory.mktemp(f"runs_{backend}"), backend)
        return found[backend]

    return run


def read_losses(folder: Path) -> list[tuple[Any, ...]]:
    """The epochs of a run with their losses, without their durations."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["epoch"], r["train_loss"], r["validation_loss"]) for r in records]
