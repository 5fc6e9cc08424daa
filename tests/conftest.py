"""What several test files share: a run of either backend, trained once."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ragged.backend
from ragged.cli import commands
from ragged.cli import main as cli
from ragged.export.program import FORMATS
from ragged.report import figures

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


@contextmanager
def _pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "figures", figures)
        yield


@pytest.fixture(scope="session")
def pictures() -> Callable[[], AbstractContextManager[None]]:
    """Draw the pictures of the runs inside a `with` block."""
    return _pictures


@pytest.fixture(scope="session", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Draw no other run's: that takes longer than to train a tiny one."""
    drawn = {name: lambda *_: None for name in ("save_loss_curves", "save_forecasts")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "figures", SimpleNamespace(**drawn))
        yield


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


@pytest.fixture(scope="session")
def any_backend() -> str:
    """A backend's name, for what knows no framework; torch, where it is: it compiles nothing."""
    return ragged.available_backends()[-1]


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
            with _pictures():
                found[backend] = _train(tmp_path_factory.mktemp(f"runs_{backend}"), backend)
        return found[backend]

    return run


@pytest.fixture(params=FORMATS)
def format(request, need):
    """A format that its backend has."""
    name = FORMATS[request.param].backend
    need(name)
    if request.param not in ragged.backend.load_backend(name).export_formats:
        pytest.skip(f"backend {name} does not write {request.param} yet")
    return request.param


@pytest.fixture
def copied(tiny_run, need, tmp_path) -> Path:
    """A copy of torch's finished tiny run, to do anything with."""
    need("torch")
    return Path(shutil.copytree(tiny_run("torch"), tmp_path / "run"))


@pytest.fixture
def installed() -> Path:
    """The installed command."""
    found = Path(sys.executable).with_name("ragged")
    if not found.exists():
        pytest.skip("the package is not installed")
    return found


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused with exit code 2, and give what it said."""

    def _refused(*arguments: object) -> str:
        capsys.readouterr()  # what was said before
        assert cli.main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert said.err.startswith("ragged: error: ")
        return said.err

    return _refused


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported."""
    mark = tmp_path / "imported"
    (tmp_path / "evil_module.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(mark)!r}).touch()\n"
        "from ragged.data import Storms\n"
        "class Evil(Storms):\n"
        "    def __init__(self, path: str | None = None) -> None:\n"
        "        super().__init__(path)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    sys.modules.pop("evil_module", None)


def _write_storms(
    path: Path, *, events: int = 10, steps: int = 24, known: int | None = None
) -> Path:
    """Write a table of storms; turbidity is left empty from step `known` on."""
    generator = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["event", "minute", "discharge_m3s", "turbidity_fnu"])
        for event in range(events):
            level = np.exp(np.sin(np.arange(steps + event % 3) / 4 + generator.random()))
            for step, value in enumerate(level):
                turbidity = "" if known is not None and step >= known else f"{2 * value:.6f}"
                writer.writerow([f"e{event}", 15 * step, f"{value:.6f}", turbidity])
    return path


def _write_magnet(path: Path, known: int = 12, steps: tuple[int, ...] = (35, 33)) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cycle", "step", "current_a", "field_t"])
        for cycle, count in enumerate(steps):
            for step in range(count):
                field = f"{0.1 * np.sin(step / 5):.5f}" if step < known else ""
                writer.writerow([f"c{cycle}", step, f"{50 * np.sin(step / 5):.5f}", field])
    return path


@pytest.fixture
def write_storms():
    """Give the function that writes a table of storms."""
    return _write_storms


@pytest.fixture
def write_magnet():
    """Give the function that writes a table of magnet cycles."""
    return _write_magnet


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show which conformance tests caught which fault, those of xdist's workers too."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found = [v for report in reports for n, v in report.user_properties if n == "mutants"]
    if found:
        terminalreporter.section("faults and the conformance tests that caught them")
        terminalreporter.write_line(_table(sorted(found)))


def _table(faults: list[tuple[str, str, list[str]]]) -> str:
    rows = [("fault", "backend", "caught by")]
    for fault, backend, caught in faults:
        first, *others = _by_function(caught) or ["NOTHING"]
        rows += [(fault, backend, first), *(("", "", test) for test in others)]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return "\n".join(f"{a:{widths[0]}} | {b:{widths[1]}} | {c}" for a, b, c in rows)


def _by_function(tests: list[str]) -> list[str]:
    cases: dict[str, list[str]] = {}
    for test in tests:
        cases.setdefault(test.partition("[")[0], []).append(test)
    return [
        ids[0] if len(ids) == 1 else f"{name} ({len(ids)} cases)" for name, ids in cases.items()
    ]
