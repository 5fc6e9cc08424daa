"""Compare our layers with what else there is, and write the tables and plots.

python -m benchmarks.run --quick
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PARTS = ("grid", "memory", "epochs")
POINT_SECONDS = 0.7  # repeats of a point: least rounds come on top
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="a few points; a minute or two")
    parser.add_argument("--only", default="", help="regular expression of cases' names")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--budget", type=float, default=POINT_SECONDS, help="seconds of a point")
    parser.add_argument("--no-keras", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    _settle(chosen.device)

    from benchmarks import machine

    started = time.perf_counter()
    missing = [part for part in PARTS if part in chosen.parts]
    chosen.frameworks, reasons = machine.find_frameworks(chosen.device)
    if not chosen.frameworks:
        sys.exit(f"no framework sees {chosen.device}: {reasons}")
    results: dict[str, Any] = {"machine": machine.describe(chosen.device), "missing": missing}
    results["left out"] = reasons
    for part in [*missing]:
        for found in _measure(part, chosen):
            results[part] = found
            _write(results, chosen, started)
        missing.remove(part)
        text = _write(results, chosen, started)
    print(text)
    print(f"written to {chosen.out}")


def _write(results: dict[str, Any], chosen: argparse.Namespace, started: float) -> str:
    """Write what there is, so that a run that is ended leaves it, and return the tables."""
    from benchmarks import plots, report

    results["seconds"] = round(time.perf_counter() - started, 1)
    text = report.write(results, chosen.out, chosen.device)
    plots.write(results, chosen.out, chosen.device)
    return text


def _measure(part: str, chosen: argparse.Namespace) -> Iterator[Any]:
    """Measure a part; what is there so far comes after each case of the grid."""
    from benchmarks import epochs, memory

    if part == "grid":
        yield from _grid(chosen)
    elif part == "memory":
        yield memory.measure(chosen.device, chosen.quick, chosen.frameworks)
    else:
        with get_context("spawn").Pool(1) as fresh:  # the grid leaves full caches behind
            told = chosen.device, chosen.quick, chosen.frameworks
            yield fresh.apply(epochs.measure, told)


def _grid(chosen: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    from benchmarks.cases import CASES, KINDS, QUICK_CASES, QUICK_KINDS, Case
    from benchmarks.grid import measure_case
    from benchmarks.peers_keras import Worker

    kinds = list(QUICK_KINDS if chosen.quick else KINDS)
    grid: tuple[Case, ...] = QUICK_CASES if chosen.quick else CASES
    cases = [case for case in grid if re.search(chosen.only, case.name)]
    with_keras = find_spec("keras") is not None and not chosen.no_keras
    names = chosen.frameworks if with_keras else ()
    keras = {name: Worker(name, chosen.device) for name in names}
    found: list[dict[str, Any]] = []
    try:
        for case in cases:
            told = kinds, chosen.device, keras, chosen.budget, chosen.frameworks
            found.append(measure_case(case, *told))
            yield found
    finally:
        for worker in keras.values():
            worker.close()


def _settle(device: str) -> None:
    """Let frameworks see the device that is measured, in this process and those it starts."""
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:  # or the first process to ask would take all memory
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


if __name__ == "__main__":
    main()
