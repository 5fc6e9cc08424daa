"""Measure the grid: all contestants of a point in turn, as many as its time allows."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.cases import Case, lengths_of
from benchmarks.machine import FRAMEWORKS
from benchmarks.passes import Run
from benchmarks.suite import Suite
from benchmarks.timing import Timing, interleave

FLAX = ("jax OptimizedLSTMCell", "jax LSTMCell")
# Whoever decides a ratio has at least three rounds at every point.
MAIN = ("torch auto", "torch padded", "torch floor", "jax auto", "jax floor", *FLAX)
# Dense over the whole width: the same program on the same shapes whatever the lengths, so that the
# first point of a case tells their time. Of flax's cells the better one is timed at every point.
ONCE = ("jax lstm_ref", "jax Keras", "torch Keras", "jax never", "jax cuDNN")
FORWARD = ("torch auto", "torch padded", "torch PackedSequence", "jax auto", *FLAX)
FORWARD_KINDS = ("log-normal", "equal")  # on JAX each is a program more to compile
SAME = 2e-3  # of the loss, a sum of many thousand terms of both signs
HEAVY = 4e8  # products of hidden by hidden times tokens; packed kernels then take ten seconds
RIVALS = {
    "torch PackedSequence": "torch auto",
    "torch always": "torch auto",
    "torch Keras": "torch auto",
}


def measure_case(
    case: Case,
    kinds: list[str],
    device: str,
    keras: Mapping[str, Any],
    budget: float,
    frameworks: Sequence[str] = FRAMEWORKS,
) -> dict[str, Any]:
    """Measure one case with all its spreads of lengths; the first one times everyone."""
    suite = Suite(case, device, keras, frameworks)
    kinds = sorted(kinds, key=lambda kind: kind != "log-normal")
    points: list[dict[str, Any]] = []
    for kind in kinds:
        points.append(_measure_point(suite, kind, points[0] if points else None, budget))
        print(_line(points[-1]), flush=True)
    programs = suite.programs()
    gc.collect()
    return {"case": case.name, "hidden": case.hidden, "programs": programs, "points": points}


def _measure_point(
    suite: Suite, kind: str, before: dict[str, Any] | None, budget: float
) -> dict[str, Any]:
    lengths = lengths_of(suite.case, kind)
    waste = 1 - lengths.mean() / suite.case.width
    names, reasons = _choose(suite, kind, lengths, before)
    started = time.perf_counter()
    losses: dict[str, float] = {}
    runs = {name: _remember(losses, name, suite.make(name, lengths)) for name in names}
    brief = [name for name in names if name not in MAIN]
    times = interleave(runs, budget=budget, brief=brief, rivals=RIVALS)
    wrong = _other_work(losses)
    times = {name: timing for name, timing in times.items() if name not in wrong}
    reasons |= dict.fromkeys(wrong, "its loss is not ours: it did other work")
    forward = _measure_forward(suite, kind, lengths, list(times), budget / 4)
    twins = suite.twins(suite.names(), lengths)
    return {
        "case": suite.case.name,
        "kind": kind,
        "tokens": int(lengths.sum()),
        "padded": suite.case.batch * suite.case.width,
        "waste": round(float(waste), 4),
        "times": {name: timing._asdict() for name, timing in times.items()},
        "forward": {name: timing._asdict() for name, timing in forward.items()},
        "twins": {name: twin for name, twin in twins.items() if name not in times},
        "left out": reasons,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _remember(losses: dict[str, float], name: str, run: Run) -> Run:
    def remembering() -> float:
        losses[name] = run()
        return losses[name]

    return remembering


def _other_work(losses: dict[str, float]) -> list[str]:
    """Name those whose loss is not ours; the floor has none, and padded states are never right."""
    own = next(losses[name] for name in ("torch auto", "jax auto") if name in losses)
    judged = [n for n in losses if not n.endswith("floor") and n != "torch padded"]
    return [name for name in judged if not abs(losses[name] - own) <= SAME * (1 + abs(own))]


def _choose(
    suite: Suite, kind: str, lengths: np.ndarray, before: dict[str, Any] | None
) -> tuple[list[str], dict[str, str]]:
    """Say who is timed at a point, and why the others are not."""
    names = suite.names()
    reasons = {
        name: f"the same work as {twin}" for name, twin in suite.twins(names, lengths).items()
    }
    work = int(lengths.sum()) * suite.case.hidden**2 * len(suite.case.layer_inputs)
    if suite.device == "cpu" and work > HEAVY:
        reasons["torch always"] = "the kernels of PackedSequence, too slow here to time twice"
        if kind in ("equal", "uniform", "third..full"):
            reasons["torch PackedSequence"] = "ten seconds and more a pass"
    if before is not None:
        times = before["times"]
        found = {name: times[name]["median"] for name in FLAX if name in times}
        worse = [name for name in found if found[name] > min(found.values())]
        once = [*(name for name in ONCE if name in times), *worse]
        reasons |= dict.fromkeys(once, f"dense: as at {before['kind']}")
    return [name for name in names if name not in reasons], reasons


def _measure_forward(
    suite: Suite, kind: str, lengths: np.ndarray, names: list[str], budget: float
) -> dict[str, Timing]:
    chosen = [name for name in FORWARD if name in names]
    if kind not in FORWARD_KINDS:
        chosen = [name for name in chosen if name.startswith("torch")]
    runs = {name: suite.make(name, lengths, backward=False) for name in chosen}
    brief = [name for name in chosen if name not in MAIN]
    return interleave(runs, budget=budget, brief=brief, rivals=RIVALS)


def _line(point: dict[str, Any]) -> str:
    medians = {name: 1e3 * timing["median"] for name, timing in point["times"].items()}
    shown = "  ".join(f"{name} {value:.1f}" for name, value in medians.items())
    head = f"{point['case']} | {point['kind']} | waste {point['waste']:.0%}"
    return f"{head} | {point['seconds']:.0f} s\n    ms: {shown}"
