"""From times to ratios: how many times faster ours is, point by point and over the grid."""

from __future__ import annotations

from typing import Any

import numpy as np

WASTEFUL = 0.3  # the share of padding from which a point counts in the means
FLAX = ("jax OptimizedLSTMCell", "jax LSTMCell")
TORCH = ("torch PackedSequence", "torch padded")
FLOOR_HIDDEN = 256


def all_points(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of the grid in one list, each with its hidden size."""
    return [{**point, "hidden": each["hidden"]} for each in cases for point in each["points"]]


def median(point: dict[str, Any], *names: str, of: str = "times") -> float:
    """The least median among the names that were timed, in seconds; NaN if none was."""
    times = point[of]
    found = [times[resolve(point, n)]["median"] for n in names if resolve(point, n) in times]
    return min(found, default=float("nan"))


def resolve(point: dict[str, Any], name: str) -> str:
    """Who was timed in a contestant's place because the two do the same work."""
    return point["twins"].get(name, name)


def ratio(point: dict[str, Any], over: tuple[str, ...], under: str, of: str = "times") -> float:
    """The time of the best of `over` as a multiple of that of `under`."""
    return median(point, *over, of=of) / median(point, under, of=of)


def geometric_mean(values: list[float]) -> float:
    """The geometric mean of those that are known."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.exp(np.mean(np.log(known)))) if known else float("nan")


def summary(points: list[dict[str, Any]]) -> list[tuple[str, float, str]]:
    """The headline: what is compared, the number, and the points it is taken over."""
    wasteful = [point for point in points if point["waste"] >= WASTEFUL]
    at_floor = [point for point in wasteful if point["hidden"] == FLOOR_HIDDEN]

    def mean(over: tuple[str, ...], under: str, of: str = "times") -> float:
        return geometric_mean([ratio(point, over, under, of) for point in wasteful])

    part = f"geometric mean of {len(wasteful)} points with {WASTEFUL:.0%} padding or more"
    rows = [
        ("torch: PackedSequence / ours", mean(TORCH[:1], "torch auto"), part),
        ("torch: padded nn.LSTM / ours", mean(TORCH[1:], "torch auto"), part),
        ("JAX: flax's better cell / ours", mean(FLAX, "jax auto"), part),
        ("ours: JAX / torch", mean(("jax auto",), "torch auto"), part),
        ("forward only, torch: padded / ours", mean(TORCH[1:], "torch auto", "forward"), part),
        ("forward only, JAX: flax / ours", mean(FLAX, "jax auto", "forward"), part),
    ]
    for framework, peers in (("torch", TORCH), ("jax", FLAX)):
        worst = _worst(points, peers, f"{framework} auto")
        if worst is not None:
            where = f"worst of {len(points)} points: {worst['case']}, {worst['kind']}"
            label = f"{framework}: ours / the best of {', '.join(p.split()[1] for p in peers)}"
            rows.append((label, 1 / ratio(worst, peers, f"{framework} auto"), where))
    for framework in ("torch", "jax"):
        floors = [ratio(p, (f"{framework} auto",), f"{framework} floor") for p in at_floor]
        where = f"geometric mean of {len(floors)} such points at hidden {FLOOR_HIDDEN}"
        rows.append((f"{framework}: ours / step floor", geometric_mean(floors), where))
    return rows


def _worst(points: list[dict[str, Any]], peers: tuple[str, ...], own: str) -> dict[str, Any] | None:
    known = [point for point in points if np.isfinite(ratio(point, peers, own))]
    return min(known, key=lambda point: ratio(point, peers, own), default=None)
