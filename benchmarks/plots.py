"""The plots beside the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from benchmarks.ratios import FLAX, all_points, geometric_mean, median, ratio

COMPARISONS = (
    ("PackedSequence / ours (torch)", ("torch PackedSequence",), "torch auto"),
    ("padded nn.LSTM / ours (torch)", ("torch padded",), "torch auto"),
    ("flax's better cell / ours (JAX)", FLAX, "jax auto"),
)
LINES = (
    ("ours, torch", ("torch auto",), "o"),
    ("padded nn.LSTM", ("torch padded",), "x"),
    ("ours, JAX", ("jax auto",), "s"),
    ("flax's better cell", FLAX, "+"),
)


def write(results: dict[str, Any], folder: Path, device: str) -> None:
    """Write `<device>_ratios.png` and `<device>_times.png`."""
    if results.get("grid"):
        _ratios(results["grid"], folder / f"{device}_ratios.png")
        _times(results["grid"], folder / f"{device}_times.png")


def _ratios(cases: list[dict[str, Any]], path: Path) -> None:
    """Bars: each case's geometric mean over its spreads of lengths, with the least and the most."""
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.7 * len(cases)), layout="constrained")
    height = 0.8 / len(COMPARISONS)
    for place, (label, over, under) in enumerate(COMPARISONS):
        found = [[ratio(p, over, under) for p in each["points"]] for each in cases]
        found = [[value for value in values if value == value] for values in found]
        means = [geometric_mean(values) for values in found]
        spread = [
            [m - min(v) if v else 0 for m, v in zip(means, found, strict=True)],
            [max(v) - m if v else 0 for m, v in zip(means, found, strict=True)],
        ]
        y = [row + place * height for row in range(len(cases))]
        axes.barh(y, means, height, xerr=spread, label=label, error_kw={"lw": 0.8})
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xscale("log")
    axes.set_xticks([0.7, 1, 2, 3, 5, 10, 20, 50], ["0.7", "1", "2", "3", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_yticks([row + height for row in range(len(cases))], [c["case"] for c in cases])
    axes.invert_yaxis()
    axes.set_xlabel("times faster than the peer; lines: least and most over the lengths")
    axes.set_ylabel("batch, width, in, hidden, layers")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _times(cases: list[dict[str, Any]], path: Path) -> None:
    """Points: time against tokens, one panel for each case; padded time does not fall with them."""
    columns = min(4, len(cases))
    rows = -(-len(cases) // columns)
    size = (3.2 * columns, 2.8 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat[len(cases) :]:
        axis.set_visible(False)
    for axis, each in zip(axes.flat, cases, strict=False):
        points = all_points([each])
        tokens = [point["tokens"] for point in points]
        for label, names, marker in LINES:
            times = [1e3 * median(point, *names) for point in points]
            axis.plot(tokens, times, marker, ms=5, label=label, alpha=0.8)
        axis.set_title(each["case"], fontsize=9)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(labelsize=7, which="both")
        axis.locator_params(axis="x", nbins=5)
    figure.supxlabel("tokens of the batch")
    figure.supylabel("forward and backward (ms)")
    axes.flat[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)
