"""`ragged conformance`: the suite on every installed backend, one process a dtype, one report."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ragged
from ragged.errors import BackendError, OptionError
from ragged_conformance import report
from ragged_conformance.adapter import ADAPTERS

DTYPES = ("float64", "float32", "bfloat16")  # float64 JAX takes a process of its own
DEVICES = ("cpu", "cuda")
NEEDED = ("pytest", "hypothesis", "chex")


def run(
    backend: str | None = None,
    dtypes: Sequence[str] = DTYPES,
    device: str = "cpu",
    folder: Path | None = None,
    exhaustive: bool = False,
) -> int:
    """Run the suite, print its results and return 0 if all tests pass, else 1.

    Args:
        backend: one backend, by name or import path; None = all that are installed.
        dtypes: of DTYPES or "float16".
        device: "cpu" or "cuda".
        folder: where `report.json` and `report.html` go; None = nowhere.
        exhaustive: many more random cases.

    Raises:
        OptionError: an unknown dtype or device.
        BackendError: no backend, or a package that the suite needs, is installed.
    """
    _check(dtypes, device)
    with tempfile.TemporaryDirectory() as scratch:
        codes, reports = [], []
        for index, options in enumerate(_runs(backend, dtypes)):
            run_folder = Path(scratch) / str(index)
            options = [*options, "--device", device, "--report", str(run_folder)]
            codes.append(_pytest(options + ["--exhaustive"] * exhaustive))
            if (run_folder / "report.json").exists():
                reports.append(json.loads((run_folder / "report.json").read_text()))
    merged = report.merge(reports)
    if folder is not None:
        report.write(folder, merged)
    _print(merged, folder)
    return 1 if any(codes) else 0


def _runs(backend: str | None, dtypes: Sequence[str]) -> list[list[str]]:
    """The options of each process: torch and jax together, since they are compared."""
    if backend is not None:
        chosen: list[list[str]] = [["--backend", backend]]
    else:
        available = ragged.available_backends()
        if not available:
            raise BackendError("conformance: no backend is installed. Install torch or jax.")
        bundled: list[list[str]] = [[]] if set(ADAPTERS) & set(available) else []
        chosen = bundled + [["--backend", name] for name in available if name not in ADAPTERS]
    return [[*options, "--dtype", dtype] for dtype in dtypes for options in chosen]


def _pytest(options: list[str]) -> int:
    settings = Path(__file__).with_name("suite.ini")
    command = [sys.executable, "-m", "pytest", "-c", str(settings), "--pyargs"]
    print(" ".join(["ragged conformance:", *options[:-2]]), flush=True)
    return subprocess.run([*command, *options, "ragged_conformance"], check=False).returncode


def _print(merged: dict[str, Any], folder: Path | None) -> None:
    print("\n".join(report.lines(merged)))
    for failure in merged["failures"]:
        print(f"\nFAILED {failure['test']}: {failure['reason']}\n{failure['reproduce']}")
    if folder is not None:
        print(f"\n{folder / 'report.html'}")


def _check(dtypes: Sequence[str], device: str) -> None:
    known = (*DTYPES, "float16")
    unknown = [dtype for dtype in dtypes if dtype not in known]
    if unknown:
        got = repr(unknown[0])
        raise OptionError.of("conformance", "dtype", got, f"one of {known}", "Name one.")
    if device not in DEVICES:
        got = repr(device)
        raise OptionError.of("conformance", "device", got, f"one of {DEVICES}", "Name one.")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BackendError(
            f"conformance: {', '.join(missing)} not installed; the suite needs them. "
            "Install them: pip install 'ragged-sequences[test]'."
        )
