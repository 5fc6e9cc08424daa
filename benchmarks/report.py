"""Write what was measured: JSON with everything, Markdown tables for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ratios import FLAX, all_points, ratio, resolve, summary

OTHERS = ("lstm_ref", "Keras", "cuDNN")


def write(results: dict[str, Any], folder: Path, device: str) -> str:
    """Write `<device>.json` and `<device>.md` and return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{device}.json").write_text(json.dumps(results, indent=1) + "\n")
    text = markdown(results, device)
    (folder / f"{device}.md").write_text(text)
    return text


def markdown(results: dict[str, Any], device: str) -> str:
    """Lay all tables out."""
    machine = ", ".join(f"{k} {v}" for k, v in results["machine"].items() if v is not None)
    parts = [f"# Benchmarks on {device}", f"{machine}. {results['seconds']:.0f} s in all."]
    if results.get("missing"):
        parts += [f"**Ended before its time: not all of {', '.join(results['missing'])} is here.**"]
    parts += [f"Without {name}: {why}." for name, why in results.get("left out", {}).items()]
    points = all_points(results.get("grid", []))
    if points:
        parts += ["## In one look", _summary(points)]
        parts += [f"![Ratios]({device}_ratios.png)", f"![Times]({device}_times.png)"]
        without = results.get("left out", {})
        if "torch" not in without:
            parts += ["## torch, forward and backward (ms)", _torch(points)]
        if "jax" not in without:
            parts += ["## JAX, forward and backward (ms)", _jax(points)]
        parts += ["## Forward only (ms)", _forward(points)]
        if "jax" not in without:
            parts += ["## Compiling on JAX", _compiling(results["grid"])]
    if "memory" in results:
        parts += ["## Peak memory of a training step (MiB)", _memory(results["memory"])]
    if "epochs" in results:
        parts += ["## Whole epochs", _epochs(results["epochs"])]
    return "\n\n".join(parts) + "\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _summary(points: list[dict[str, Any]]) -> str:
    rows = [(label, _number(value), where) for label, value, where in summary(points)]
    return table(("comparison", "times", "over"), rows)


def _torch(points: list[dict[str, Any]]) -> str:
    names = ("auto", "never", "always", "PackedSequence", "padded", "Keras", "floor")
    heads = [*_HEADS, *names, "packed / auto", "padded / auto", "auto / floor"]
    rows = []
    for point in points:
        cells = [_time(point, f"torch {name}") for name in names]
        ratios = (
            ratio(point, ("torch PackedSequence",), "torch auto"),
            ratio(point, ("torch padded",), "torch auto"),
            ratio(point, ("torch auto",), "torch floor"),
        )
        rows.append([*_lead(point), *cells, *map(_number, ratios)])
    return table(heads, rows)


def _jax(points: list[dict[str, Any]]) -> str:
    known = [name for name in OTHERS if any(f"jax {name}" in p["times"] for p in points)]
    names = ("auto", "never", "OptimizedLSTMCell", "LSTMCell", *known, "floor")
    heads = [*_HEADS, *names, "flax / auto", "auto / floor", "JAX / torch"]
    rows = []
    for point in points:
        cells = [_time(point, f"jax {name}") for name in names]
        ratios = (
            ratio(point, FLAX, "jax auto"),
            ratio(point, ("jax auto",), "jax floor"),
            ratio(point, ("jax auto",), "torch auto"),
        )
        rows.append([*_lead(point), *cells, *map(_number, ratios)])
    return table(heads, rows)


def _forward(points: list[dict[str, Any]]) -> str:
    names = ("torch auto", "torch PackedSequence", "torch padded", "jax auto", *FLAX)
    heads = [*_HEADS, *names, "padded / auto", "flax / auto"]
    rows = []
    for point in points:
        cells = [_time(point, name, of="forward") for name in names]
        ratios = (
            ratio(point, ("torch padded",), "torch auto", of="forward"),
            ratio(point, FLAX, "jax auto", of="forward"),
        )
        rows.append([*_lead(point), *cells, *map(_number, ratios)])
    return table(heads, rows)


def _compiling(cases: list[dict[str, Any]]) -> str:
    """The dearest first call, less a usual one; and how many programs served all the lengths."""
    rows = []
    for each in cases:
        for name, count in each["programs"].items():
            timings = [point["times"].get(name) for point in each["points"]]
            extra = [t["first"] - t["median"] for t in timings if t]
            seconds = f"{max(extra):.2f}" if extra else "-"
            rows.append([each["case"], name, str(count), str(len(extra)), seconds])
    return table(("case", "who", "programs", "for spreads of lengths", "longest compile (s)"), rows)


def _memory(found: list[dict[str, Any]]) -> str:
    base = {(e["case"], e["kind"], e["name"].split()[0]): e.get("mib") for e in found}
    for each in found:  # padded, what the saving is against
        if each["name"] in ("torch padded", "jax OptimizedLSTMCell"):
            base[each["case"], each["kind"], each["name"].split()[0]] = each.get("mib")
    rows = []
    for e in found:
        against = base[e["case"], e["kind"], e["name"].split()[0]]
        share = f"{e['mib'] / against:.0%}" if against and "mib" in e else "-"
        rows.append([e["case"], e["kind"], e["name"], str(e.get("mib", e.get("error"))), share])
    return table(("case", "lengths", "who", "MiB", "of padded nn.LSTM or flax"), rows)


def _epochs(found: dict[str, Any]) -> str:
    heads = ["backend", "ours (s)", "padded (s)", "padded / ours"]
    heads += ["loss before training: ours, padded", "computed beyond the tokens: ours, padded"]
    rows = []
    for each in found["storms"]:
        seconds = [" ".join(f"{s:.2f}" for s in each["seconds"][k]) for k in ("ours", "padded")]
        before = ", ".join(f"{v:.6f}" for v in each["loss before training"].values())
        filler = ", ".join(f"{v['computed']:.0%}" for v in each["waste"].values())
        rows.append([each["backend"], *seconds, f"{each['ratio']:.2f}", before, filler])
    text = "Epochs of `ragged train --config storms`:\n\n" + table(heads, rows)
    return text + (f"\n\n{_random_lengths(found)}" if "random lengths" in found else "")


def _random_lengths(found: dict[str, Any]) -> str:
    other = found["random lengths"]
    return (
        f"{other['batches']} batches of random lengths at hidden 128 on JAX: {other['programs']} "
        f"programs, {other['waste']['computed']:.1%} computed beyond the real tokens, first step "
        f"{other['first step']:.1f} s, then {1e3 * other['median step']:.0f} ms in the median."
    )


_HEADS = ("batch, width, in, hidden, layers", "lengths", "waste")


def _lead(point: dict[str, Any]) -> list[str]:
    return [point["case"], point["kind"], f"{point['waste']:.0%}"]


def _time(point: dict[str, Any], name: str, of: str = "times") -> str:
    """Median and quartiles in ms; "= x" where x does the same, "one run" where one was enough."""
    timing = point[of].get(name)
    if timing is None:
        twin = resolve(point, name)
        return f"= {twin.split()[1]}" if twin != name and of == "times" else "-"
    middle, low, high = (1e3 * timing[key] for key in ("median", "low", "high"))
    if timing["runs"] == 1:
        return f"{_short(middle)} one run"
    return f"{_short(middle)} [{_short(low)}, {_short(high)}]"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"
