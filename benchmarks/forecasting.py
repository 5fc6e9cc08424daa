"""Forecast public sets by our models, by naive rules, by statsmodels and by neuralforecast.

python -m benchmarks.forecasting --quick
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.forecasting_methods import KINDS, MODELS, STEPS, Forecasts, arima, ets, naive, ours
from benchmarks.forecasting_peers import NAMES as PEERS
from benchmarks.forecasting_peers import is_installed, neuralforecast
from benchmarks.forecasting_sets import Task, tasks
from benchmarks.report import table
from ragged.evaluation.metrics import pinball

RESULTS = Path(__file__).parent / "results"
NAIVE = ("persistence", "seasonal naive", "drift")
STATISTICAL: dict[str, Callable[[Task], Forecasts]] = {"ETS": ets, "ARIMA": arima}
SEEDS = (0, 1, 2)
QUICK_STEPS = 20


def main() -> None:
    """Run what is not in the results yet, one seed after the other, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three sets, one seed, few steps")
    parser.add_argument("--sets", nargs="+", default=None, help="names of files, without endings")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--only", default="", help="methods whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    path = chosen.out / f"forecasting{'_quick' if chosen.quick else ''}.json"
    found = [t for t in tasks(chosen.quick) if chosen.sets is None or t.name in chosen.sets]
    for seed in chosen.seeds[:1] if chosen.quick else chosen.seeds:
        for task in found:
            for method, run in methods(task, seed, QUICK_STEPS if chosen.quick else STEPS).items():
                if chosen.only in method:
                    _score(path, f"{task.name} | {method} | {seed}", task, run)
    text = page(read(path))
    path.with_suffix(".md").write_text(text)
    print(text)


def methods(task: Task, seed: int, steps: int) -> dict[str, Callable[[], Forecasts]]:
    """Return what runs each method; those without a seed run with the first one."""
    found: dict[str, Callable[[], Forecasts]] = {}
    if seed == SEEDS[0]:
        found |= {name: partial(naive, task, name) for name in NAIVE}
        found |= {name: partial(run, task) for name, run in STATISTICAL.items()}
    for model in MODELS:
        for kind in KINDS:
            found[f"{model}, {kind}"] = partial(ours, task, model, kind, seed, steps)
    for name in PEERS if is_installed() else ():
        found[name] = partial(neuralforecast, task, name, seed, steps)
    return found


def _score(path: Path, key: str, task: Task, run: Callable[[], Forecasts]) -> None:
    """Run a method and keep its scores, unless they are there."""
    if key in read(path)["scores"]:
        return
    start = time.perf_counter()
    score = scores(task, run())
    score["seconds"] = time.perf_counter() - start
    results = read(path)
    results["scores"][key] = score
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(key, score, flush=True)


def read(path: Path) -> dict[str, Any]:
    """Return the results so far."""
    if not path.exists():
        return {"machine": machine.describe("cpu"), "scores": {}}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def scores(task: Task, forecasts: Forecasts) -> dict[str, float | None]:
    """Return the errors over all test steps whose truth is known."""
    truth = task.truth
    known = ~np.isnan(truth)
    error = (forecasts.point - truth)[known]
    loss = None if forecasts.levels is None else pinball(truth, forecasts.levels)
    return {"rmse": float(np.sqrt(np.mean(error**2))), "pinball": loss}


def page(results: dict[str, Any]) -> str:
    """Return the table: errors beside those of persistence, and their geometric means."""
    by_method: dict[str, dict[str, list[dict[str, float]]]] = {}
    for key, score in results["scores"].items():
        task, method, _ = key.split(" | ")
        by_method.setdefault(method, {}).setdefault(task, []).append(score)
    unit = {s: found[0]["rmse"] for s, found in by_method.get("persistence", {}).items()}
    rows = sorted((row(method, by_method[method], unit) for method in by_method), key=by_error)
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    heads = ["method", "RMSE", "pinball", "seeds", *unit]
    return (
        "# Forecasts of public sets\n\n"
        f"`python -m benchmarks.forecasting`; {about}.\n\n"
        "Each error is a share of persistence's RMSE on the same test steps, the mean of the seeds "
        "that ran; the first two columns are geometric means over the sets, of methods that ran on "
        "all of them. The pinball loss is the mean of the levels 0.1, 0.5 and 0.9.\n\n"
        f"{table(heads, rows)}\n"
    )


def row(method: str, found: dict[str, list[dict[str, float]]], unit: dict[str, float]) -> list[str]:
    """Return a row of the table: geometric means, the fewest seeds of a set, and each set."""
    errors, losses = (
        {
            s: mean(score[name] for score in found[s]) / unit[s]
            for s in unit
            if s in found and found[s][0][name] is not None
        }
        for name in ("rmse", "pinball")
    )
    return [
        method,
        *(geometric(list(values.values())) if len(values) == len(unit) else "" for values in
          (errors, losses)),
        str(min(len(found.get(s, [])) for s in unit)),
        *(f"{errors[s]:.2f}" if s in errors else "" for s in unit),
    ]  # fmt: skip


def by_error(cells: list[str]) -> str:
    """Sort rows by their mean error, those without one last."""
    return cells[1] or "9"


def geometric(values: Sequence[float]) -> str:
    """Return the geometric mean of positive numbers."""
    return f"{float(np.exp(np.mean(np.log(values)))):.3f}"


if __name__ == "__main__":
    main()
