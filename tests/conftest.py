"""What several test files share: a run of either backend, trained once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ragged.backend
from ragged import cli

TINY = {
    "config": "magnet",
    "name": "tiny",
    "data.source.init_args.cycles": "12",
    "data.source.init_args.min_steps": "33",  # to 36: rows differ, and batches have one shape
    "data.source.init_args.max_steps": "36",
    "data.batch_size": "4",
    "model.init_args.hidden_size": "4",
    "model.init_args.num_layers": "2",
    "model.init_args.dropout": "0.3",
    "trainer.max_epochs": "3",
    "trainer.device": "cpu",
}


def _arguments(runs: Path, backend: str, **changed: object) -> list[str]:
    options: dict[str, object] = {**TINY, "runs": runs, "backend": backend}
    options |= {name.replace("__", "."): value for name, value in changed.items()}
    return ["train", *(str(part) for key, value in options.items() for part in (f"--{key}", value))]


def _train(runs: Path, backend: str, **changed: object) -> Path:
    assert cli.main(_arguments(runs, backend, **changed)) == 0
    (folder,) = (path for path in runs.glob("*/*") if path.is_dir())
    return folder


def _losses(folder: Path) -> list[tuple[Any, ...]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["epoch"], r["train_loss"], r["validation_loss"]) for r in records]


def _need(*backends: str) -> None:
    for name in backends:
        pytest.importorskip("torch" if name == "torch" else "flax")


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """Skip the test where a backend's framework is not installed: `need("torch", "jax")`."""
    return _need


@pytest.fixture(scope="session")
def tiny_arguments() -> Callable[..., list[str]]:
    """Give the command line of a tiny training; keywords take `__` for the dots of a key."""
    return _arguments


@pytest.fixture(scope="session")
def train_tiny() -> Callable[..., Path]:
    """Train a tiny model in this process and return the run's folder."""
    return _train


@pytest.fixture(scope="session")
def read_losses() -> Callable[[Path], list[tuple[Any, ...]]]:
    """Read the epochs of a run with their losses, without their durations."""
    return _losses


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
        _need(backend)
        pytest.importorskip("jsonargparse")
        if backend not in found:
            found[backend] = _train(tmp_path_factory.mktemp(f"runs_{backend}"), backend)
        return found[backend]

    return run
