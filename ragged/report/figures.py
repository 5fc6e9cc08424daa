"""The figures of a run, and the style and colours of all figures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragged.data import EncoderDecoderDataModule, Sample, Series
from ragged.evaluation.evaluate import Evaluation, label
from ragged.evaluation.metrics import format_score
from ragged.io.checkpoint import write_file

INK, MUTED, GRID = "#1c2024", "#66707a", "#e2e6ea"
BLUE, ORANGE, GREEN, GREY = "#1f5fa8", "#d95f02", "#1b8a6b", "#8a8f94"

STYLE = {
    "text.color": INK,
    "text.parse_math": False,  # a `$` in the name of a column is a `$`
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "axes.prop_cycle": f"cycler(color={[BLUE, ORANGE, GREEN, '#8a4fb5', '#b58b00', '#4f9bb5']})",
}


@contextmanager
def style(**options: Any) -> Iterator[None]:
    """Set the style of figures, and restore the user's at the end.

    Args:
        options: further settings of matplotlib, with `_` for the dots.
    """
    import matplotlib.style

    settings = {name.replace("_", "."): value for name, value in options.items()}
    with matplotlib.style.context(["default", {**STYLE, **settings}]):
        yield


@dataclass(frozen=True)
class Panel:
    """One row with its forecast, in the units of the axes; valid steps only.

    Args:
        title: of the panel.
        time: `(steps,)` of context and horizon, float64 or datetime64.
        driver: `(steps,)`, None where nothing is known over the horizon.
        truth: `(steps,)`, NaN where it is unknown.
        forecast: of the last `len(forecast)` steps.
        band: the lower and upper edge of 10..90 %, of the same steps.
    """

    title: str
    time: np.ndarray
    driver: np.ndarray | None
    truth: np.ndarray
    forecast: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def context(self) -> int:
        """How many steps the context has."""
        return len(self.time) - len(self.forecast)


@dataclass(frozen=True)
class Axes:
    """What the axes of a panel show."""

    time: str
    driver: str | None
    target: str


def make_panels(
    data: EncoderDecoderDataModule, evaluation: Evaluation, target: str
) -> tuple[list[Panel], Axes]:
    """Lay out the best, the median and the worst test row of a target, by RMSE."""
    roles = data.source.roles
    target_index, driver = roles.target.index(target), data.source.driver
    panels = []
    for rank, (index, rmse) in evaluation.examples(target).items():
        row, forecast = evaluation.rows[index], evaluation.forecasts[index].of_target(target_index)
        steps, columns = slice(row.start, row.stop), row.event.columns
        panels.append(
            Panel(
                f"{rank}: {_when(row)} (RMSE {format_score(rmse)})",
                _times(row.event)[steps],
                None if driver is None else columns[driver][steps],
                columns[target][steps],
                forecast.point,
                forecast.band,
            )
        )
    driver_label = None if driver is None else label(data, driver)
    has_dates = any(row.event.dates is not None for row in evaluation.rows[:1])
    time_label = data.source.time_column if has_dates else data.source.time_label
    return panels, Axes(time_label, driver_label, label(data, target))


def _times(event: Series) -> np.ndarray:
    """Return the time of each step, dates as the clock shows them."""
    if event.dates is None:
        return event.time
    return np.asarray(event.dates.tz_localize(None))


def _when(row: Sample) -> str:
    """Name a row: its series, and the steps that are forecast unless a whole event is a row."""
    if row.event.dates is None and row.start == 0 and row.stop == row.event.steps:
        return row.event.name
    stamps = _times(row.event)[row.split : row.stop]
    first, last = (_shown(stamp) for stamp in (stamps[0], stamps[-1]))
    span = first if first == last else f"{first} to {last}"
    return f"{row.event.name}, {span}"


def _shown(stamp: Any) -> str:
    if not isinstance(stamp, np.datetime64):
        return f"{stamp:.6g}"
    return str(stamp.astype("datetime64[m]")).removesuffix("T00:00").replace("T", " ")


def save_forecasts(path: Path, data: EncoderDecoderDataModule, evaluation: Evaluation) -> None:
    """Write a picture of each target's best, median and worst test row."""
    layouts = (make_panels(data, evaluation, target) for target in evaluation.targets)
    nonempty = [(panels, axes) for panels, axes in layouts if panels]
    rows = sum(len(panels) for panels, _ in nonempty)
    if not rows:
        return
    with style():
        figure = new_figure(12, 3.4 * rows)
        for subfigure, (panels, axes) in zip(
            np.atleast_1d(figure.subfigures(len(nonempty))), nonempty, strict=True
        ):
            draw_forecasts(subfigure, panels, axes)
        save(figure, path)


def save_loss_curves(
    path: Path, records: Sequence[dict[str, Any]], best_epoch: int, loss: str
) -> None:
    """Write a picture of the losses over the epochs, and of the epoch that was kept."""
    with style():
        figure = new_figure(7, 4)
        draw_losses(figure.subplots(), records, best_epoch, loss)
        save(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Create a figure without a window, of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_forecasts(figure: Any, panels: Sequence[Panel], axes: Axes) -> None:
    """Draw each row over time, and its loop of target over driver beside it."""
    columns = 1 if axes.driver is None else 2
    ratios = (2, 1)[:columns]
    grid = figure.subplots(len(panels), columns, squeeze=False, width_ratios=ratios)
    for (left, *right), panel in zip(grid, panels, strict=True):
        draw_over_time(left, panel)
        left.set(title=panel.title, xlabel=axes.time, ylabel=axes.target)
        for axis in right:
            draw_loop(axis, panel)
            axis.set(title="hysteresis loop", xlabel=axes.driver, ylabel=axes.target)
    grid[0, 0].legend(loc="best")


def draw_losses(axis: Any, records: Sequence[dict[str, Any]], best_epoch: int, loss: str) -> None:
    """Draw training and validation loss over the epochs, and the epoch that was kept."""
    epochs = [record["epoch"] for record in records]
    for key, name, color in (
        ("train_loss", "training", BLUE),
        ("validation_loss", "validation", ORANGE),
    ):
        axis.plot(epochs, [record[key] for record in records], color=color, label=name)
    axis.axvline(best_epoch, color=GREY, ls="--", lw=1, label=f"best epoch, {best_epoch}")
    axis.set(xlabel="epoch", ylabel=f"{loss} loss of the normalised target")
    whole_numbers(axis.xaxis)
    log_scale(
        axis, [record[key] for record in records for key in ("train_loss", "validation_loss")]
    )
    axis.legend()


def log_scale(axis: Any, values: Sequence[float]) -> None:
    """Give losses a logarithmic axis with plain numbers, unless one is not above 0."""
    from matplotlib.ticker import LogLocator, NullLocator

    if not all(value > 0 for value in values):
        return
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")


def whole_numbers(axis: Any) -> None:
    """Put the ticks of an axis at integers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def draw_over_time(axis: Any, panel: Panel) -> None:
    """Draw a row over time: truth, forecast and its band, the context shaded."""
    context, ahead = panel.context, panel.time[panel.context :]
    axis.axvspan(panel.time[0], panel.time[context], color=GREY, alpha=0.15, lw=0, label="context")
    if panel.band is not None and len(ahead) == 1:  # a band of one step has no area
        axis.vlines(ahead, *panel.band, color=ORANGE, alpha=0.25, lw=6, label="10..90 % band")
    elif panel.band is not None:
        axis.fill_between(ahead, *panel.band, color=ORANGE, alpha=0.25, lw=0, label="10..90 % band")
    axis.plot(panel.time, panel.truth, color=BLUE, label="truth")
    axis.plot(ahead, panel.forecast, color=ORANGE, label="forecast", marker=_marker(panel))
    if panel.time.dtype.kind == "M":
        _dates_below(axis)


def _dates_below(axis: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=2, maxticks=6)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def draw_loop(axis: Any, panel: Panel) -> None:
    """Draw the target of a row over its driver."""
    context, driver = panel.context, panel.driver
    assert driver is not None
    axis.plot(driver[: context + 1], panel.truth[: context + 1], color=GREY, label="context")
    marker = _marker(panel)
    axis.plot(driver[context:], panel.truth[context:], color=BLUE, label="truth", marker=marker)
    axis.plot(driver[context:], panel.forecast, color=ORANGE, label="forecast", marker=marker)


def _marker(panel: Panel) -> str | None:
    """Return a marker for a forecast of one step, which has no line."""
    return "o" if len(panel.forecast) == 1 else None


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    figure.set_dpi(110)
    FigureCanvasAgg(figure).print_png(buffer)  # `savefig` would draw it twice
    write_file(path, buffer.getvalue())
