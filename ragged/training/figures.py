"""The pictures of a run: its losses, and its best, median and worst forecast."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragged.checkpoint import write_file

BLUE, ORANGE, GREY = "#1f5fa8", "#d95f02", "#8a8a8a"


@dataclass(frozen=True)
class Panel:
    """One event with its forecast, in the units of the axes; valid steps only."""

    title: str
    time: np.ndarray
    driver: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray  # of the last len(forecast) steps
    band: tuple[np.ndarray, ...] | None = None  # the lower and upper edge of 10..90 %


@dataclass(frozen=True)
class Axes:
    """What the axes of a panel show."""

    time: str
    driver: str
    target: str


def forecasts(path: Path, panels: Sequence[Panel], axes: Axes) -> None:
    """Draw each event over time, and its loop of target over driver beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 2, squeeze=False, width_ratios=(2, 1))
    for (left, right), panel in zip(grid, panels, strict=True):
        context = len(panel.time) - len(panel.forecast)
        left.axvspan(panel.time[0], panel.time[context], color=GREY, alpha=0.15, lw=0)
        left.plot(panel.time, panel.truth, color=BLUE, label="truth")
        left.plot(panel.time[context:], panel.forecast, color=ORANGE, label="forecast")
        if panel.band is not None:
            times, label = panel.time[context:], "10..90 % band"
            left.fill_between(times, *panel.band, color=ORANGE, alpha=0.25, lw=0, label=label)
        left.plot([], [], color=GREY, alpha=0.3, lw=8, label="context")
        left.set(title=panel.title, xlabel=axes.time, ylabel=axes.target)
        left.legend(loc="best", frameon=False)
        right.plot(panel.driver[:context], panel.truth[:context], color=GREY, label="context")
        right.plot(panel.driver[context:], panel.truth[context:], color=BLUE, label="truth")
        right.plot(panel.driver[context:], panel.forecast, color=ORANGE, label="forecast")
        right.set(title="hysteresis loop", xlabel=axes.driver, ylabel=axes.target)
        right.legend(loc="best", frameon=False)
    _save(figure, path)


def loss_curves(path: Path, records: Sequence[dict[str, Any]], best_epoch: int, loss: str) -> None:
    """Draw training and validation loss over the epochs, and the epoch that was kept."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    epochs = [record["epoch"] for record in records]
    axis.plot(epochs, [r["train_loss"] for r in records], color=BLUE, label="training")
    axis.plot(epochs, [r["validation_loss"] for r in records], color=ORANGE, label="validation")
    axis.axvline(best_epoch, color=GREY, ls="--", label=f"best epoch, {best_epoch}")
    axis.set(xlabel="epoch", ylabel=f"{loss} of the normalised target", yscale="log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_file(path, buffer.getvalue())
