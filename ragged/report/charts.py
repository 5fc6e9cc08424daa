"""The charts of the report, as figures of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ragged.report.errors import ErrorsBy
from ragged.report.explanations import Attention, coarsen
from ragged.report.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    Axes,
    Panel,
    draw_loop,
    draw_losses,
    draw_over_time,
    new_figure,
    whole_numbers,
)
from ragged.report.padding import PaddingCost

SPLITS = {"training": BLUE, "validation": ORANGE, "test": GREEN}
HALF, THIRD = 4.6, 3.2  # inches: of a wide page, and as wide as a phone
HEAT = (0.24, 0.51, 0.84)  # visible on light and on dark: an image cannot follow the theme
CELLS = 128  # of a side of a picture of attention


def percent(share: float) -> str:
    """Format a share, without a line break.

    Example:
        >>> percent(0.256)
        '26\\xa0%'
    """
    return f"{100 * share:.0f}\u00a0%"


def losses(records: Sequence[dict[str, Any]], best_epoch: int, loss: str) -> Any:
    """Training and validation loss over the epochs."""
    figure = new_figure(HALF, 2.9)
    draw_losses(figure.subplots(), records, best_epoch, loss)
    return figure


def throughput(records: Sequence[dict[str, Any]]) -> Any:
    """Tokens a second over the epochs."""
    figure = new_figure(HALF, 2.9)
    axis = figure.subplots()
    epochs = [record["epoch"] for record in records]
    speeds = [record["tokens_per_second"] for record in records]
    axis.plot(epochs, speeds, color=BLUE, marker="." if len(epochs) < 60 else "")
    axis.set(xlabel="epoch", ylabel="tokens per second", ylim=(0, 1.12 * max(speeds, default=1)))
    axis.yaxis.set_major_formatter("{x:,.0f}")
    whole_numbers(axis.xaxis)
    return figure


def lengths(side: str, splits: Mapping[str, np.ndarray], bins: np.ndarray) -> Any:
    """A histogram of the lengths of a side, the splits over one another."""
    figure = new_figure(HALF, 2.8)
    axis = figure.subplots()
    for name, counts in splits.items():
        color = SPLITS[name]
        axis.stairs(counts, bins, fill=True, color=color, alpha=0.18)
        axis.stairs(counts, bins, color=color, lw=1.4, label=name)
    axis.set(title=side, xlabel="length (steps)", ylabel="rows")
    whole_numbers(axis.yaxis)
    _legend_above(figure, axis, 3)
    return figure


def padding(costs: Sequence[PaddingCost]) -> Any:
    """The share of filler in each batch, each way's batches sorted, the worst first."""
    figure = new_figure(HALF, 3.3)
    axis = figure.subplots()
    for cost, color in zip(costs, (GREY, ORANGE, BLUE), strict=True):
        shares = 100 * np.sort(cost.padding_fraction)[::-1]
        label = f"{cost.name}: {percent(cost.total_fraction)}"
        edges = np.arange(len(shares) + 1)
        axis.stairs(shares, edges, baseline=None, color=color, lw=1.8, label=label)
    axis.set(xlabel="batches of an epoch, the worst first", ylabel="filler (% of what is computed)")
    axis.set(xlim=(0, len(shares)), ylim=(0, None))
    whole_numbers(axis.xaxis)
    _legend_above(figure, axis, 1)
    return figure


def error_by_step(errors: ErrorsBy, label: str) -> Any:
    """RMSE over the steps of the horizon, with how many truths each rests on."""
    figure = new_figure(HALF, 3.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    centers = (errors.first + errors.last) / 2
    for (name, values), color in zip(errors.rmse.items(), (ORANGE, GREEN, GREY), strict=False):
        upper.plot(centers, values, color=color, label=name)
    upper.set(ylabel=label, ylim=(0, None))
    _legend_above(figure, upper, 2)
    lower.fill_between(centers, errors.counts, color=MUTED, alpha=0.35, lw=0, step="mid")
    lower.set(xlabel="steps ahead", ylabel="truths", ylim=(0, None))
    return figure


def error_by_length(errors: ErrorsBy, label: str) -> Any:
    """RMSE of the rows of similar length."""
    figure = new_figure(HALF, 3.5)
    axis = figure.subplots()
    positions = np.arange(len(errors.counts))
    width = 0.8 / len(errors.rmse)
    for i, ((name, values), color) in enumerate(
        zip(errors.rmse.items(), (ORANGE, GREEN, GREY), strict=False)
    ):
        axis.bar(positions + i * width, values, width * 0.9, color=color, label=name)
    ticks = [
        f"{first}..{last}\n{count:,}" if first < last else f"{first}\n{count:,}"
        for first, last, count in zip(errors.first, errors.last, errors.counts, strict=True)
    ]
    axis.set_xticks(positions + width * (len(errors.rmse) - 1) / 2, ticks)
    axis.grid(axis="x", visible=False)
    axis.set(xlabel="length of the horizon (steps), and known truths", ylabel=label)
    _legend_above(figure, axis, 2)
    return figure


def forecast(panel: Panel, axes: Axes) -> Any:
    """One row over time."""
    figure = new_figure(HALF, 3.2)
    axis = figure.subplots()
    draw_over_time(axis, panel)
    axis.set(xlabel=axes.time, ylabel=axes.target)
    _legend_above(figure, axis, 2)
    return figure


def loop(panel: Panel, axes: Axes) -> Any:
    """The loop of one row's target over its driver."""
    figure = new_figure(HALF, 3.2)
    axis = figure.subplots()
    draw_loop(axis, panel)
    axis.set(xlabel=axes.driver, ylabel=axes.target)
    _legend_above(figure, axis, 3)
    return figure


def attention(row_attention: Attention, title: str) -> Any:
    """Attention of each step of the horizon: rows of an image, darker for more weight."""
    figure = new_figure(THIRD, 3.1)
    axis = figure.subplots()
    weights, _ = coarsen(row_attention, CELLS)
    max_weight = float(np.quantile(weights, 0.995)) or 1.0
    pixels = np.empty((*weights.shape, 4))
    pixels[..., :3] = HEAT
    pixels[..., 3] = np.clip(weights / max_weight, 0, 1)
    horizon, keys = row_attention.weights.shape
    extent = (0, keys, horizon, 0)
    axis.imshow(pixels, extent=extent, aspect="auto", interpolation="nearest")
    axis.axvline(row_attention.context, color=INK, lw=0.8, ls=":")
    axis.grid(visible=False)
    axis.set(title=title, xlabel="step of the row looked at", ylabel="step of the horizon")
    return figure


def selection(side: str, weights: Mapping[str, float]) -> Any:
    """Bars of the mean weight of each variable of an input."""
    figure = new_figure(HALF, 0.6 + 0.3 * len(weights))
    axis = figure.subplots()
    positions = np.arange(len(weights))
    axis.barh(positions, list(weights.values()), 0.62, color=BLUE)
    for position, value in zip(positions, weights.values(), strict=True):
        axis.annotate(percent(value), (value, position), (4, 0), textcoords="offset points",
                      va="center", fontsize=8.5)  # fmt: skip
    axis.set_yticks(positions, list(weights))
    limit = 1.15 * max(max(weights.values()), 0.1)
    axis.set(title=side, xlim=(0, limit), ylim=(len(weights) - 0.4, -0.6), xticks=[])
    axis.grid(visible=False)
    axis.spines["bottom"].set_visible(False)
    return figure


def _legend_above(figure: Any, axis: Any, columns: int) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=columns)
