"""The diagrams of the site, drawn for light and for dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

ROWS = ["#4c72b0", "#c86a35", "#3f8f55", "#8172b3", "#b5485a"]
INK = {"light": "#333333", "dark": "#d8d8d8"}
PADDING = {"light": "#e4e4e4", "dark": "#43464f"}
IMAGE = re.compile(r"!\[([^\]]*)\]\(((?:\.\./)*diagrams/[\w-]+)\.svg\)")


def files() -> dict[str, str]:
    """Draw all: `diagrams/NAME-light.svg` and `diagrams/NAME-dark.svg`."""
    return {
        f"diagrams/{name}-{theme}.svg": _svg(draw, theme)
        for name, draw in DIAGRAMS.items()
        for theme in INK
    }


def in_both_themes(markdown: str) -> str:
    """Show of each diagram the one for the reader's theme."""
    each = "".join(rf"![\1](\2-{theme}.svg#only-{theme})" for theme in INK)
    return IMAGE.sub(each, markdown)


def _svg(draw: Callable[[str], Figure], theme: str) -> str:
    ink = INK[theme]
    names = "text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"
    settings = {**dict.fromkeys(names, ink), "svg.hashsalt": "ragged", "font.size": 9}
    settings |= {"svg.fonttype": "path", "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(settings):
        written = io.StringIO()
        figure = draw(theme)
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return written.getvalue()


def padding(theme: str) -> Figure:
    """A batch of storms with its padding, and the state that a layer gives that reads it."""
    import ragged_torch
    import torch

    from ragged.data import Storms

    lengths = np.array([event.steps for event in Storms().events()])
    batch = np.random.default_rng(0).choice(lengths, 16, replace=False)
    width = batch.max()
    figure = Figure((9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    left.barh(range(16), np.full(16, width), color=PADDING[theme], height=0.8)
    left.barh(range(16), batch, color=ROWS[0], height=0.8)
    share = 1 - batch.sum() / (16 * width)
    left.set_title(f"16 storms in one array: {share:.0%} of it is padding", loc="left")
    left.set(xlabel="step", ylabel="row", yticks=[], xlim=(0, width))

    torch.manual_seed(0)
    row, steps = torch.randn(1, 20, 4), range(0, 41, 2)
    theirs = torch.nn.LSTM(4, 16, batch_first=True)
    ours = ragged_torch.LSTM(4, 16, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    alone = theirs(row)[1][0]
    wrong, right_ones = [], []
    with torch.no_grad():
        for count in steps:
            padded = torch.nn.functional.pad(row, (0, 0, 0, count))
            for found, state in (
                (wrong, theirs(padded)[1][0]),
                (right_ones, ours(padded, lengths=[20])[1][0]),
            ):
                found.append(float((state - alone).norm() / alone.norm()))
    right.plot(steps, wrong, color=ROWS[1], label="torch.nn.LSTM over the padding")
    right.plot(steps, right_ones, color=ROWS[0], label="ragged_torch.LSTM with lengths")
    right.set_title("error of a row's last state", loc="left")
    right.set(xlabel="steps of padding behind its 20", xlim=(0, 40), ylim=(-0.03, None))
    right.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    right.legend(frameon=False)
    return figure


def layouts(theme: str) -> Figure:
    """The same four rows in each layout."""
    lengths = [4, 2, 0, 3]
    figure = Figure((9, 3.7), layout="constrained")
    axes = figure.subplots(2, 3, height_ratios=[5, 2]).flatten()
    valid = [(row, step) for row in range(4) for step in range(lengths[row])]
    packed = sorted(valid, key=lambda token: (token[1], -lengths[token[0]]))
    padded = {(s, r): (r, s) for r, s in valid}
    drawings = {
        "padded, left aligned": (padded, 5, 4, "step", "row"),
        "padded, right aligned": (
            {(s + 5 - lengths[r], r): (r, s) for r, s in valid}, 5, 4, "step", "row"),
        "time-major": ({(r, s): (r, s) for r, s in valid}, 4, 5, "row", "step"),
        "packed": ({(n, 0): token for n, token in enumerate(packed)}, 9, 1, "token", ""),
        "jagged": ({(n, 0): token for n, token in enumerate(valid)}, 9, 1, "token", ""),
    }  # fmt: skip
    for ax, (title, (cells, columns, lines, x, y)) in zip(axes, drawings.items(), strict=False):
        _cells(ax, cells, columns, lines, theme)
        ax.set_title(title, loc="left")
        ax.set(xlabel=x, ylabel=y)
    axes[3].text(0, -0.5, "batch_sizes  3 3 2 1", ha="left")
    axes[4].text(0, -0.5, "offsets  0 4 6 6 9", ha="left")
    axes[5].axis("off")
    notes = ("a0: row a, step 0", "rows a, b, c, d have 4, 2, 0 and 3 steps",
             "grey cells are padding")  # fmt: skip
    for number, note in enumerate(notes):
        axes[5].text(0, 0.7 - 0.15 * number, note, transform=axes[5].transAxes)
    return figure


def kernels(theme: str) -> Figure:
    """What is computed when, of five rows on two workers, in three ways."""
    lengths = [7, 4, 3, 2, 1]
    dense, packed = _by_step(lengths, [7] * 5), _by_step(lengths, lengths)
    drawings = {
        "padded: all rows at each step, and all wait for it": dense,
        "packed: the rows that go on at each step, and all wait for it": packed,
        "kernels: each row from its first to its last step, nobody waits": (_by_row(lengths), []),
    }
    figure = Figure((9, 3.6), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    for ax, (title, (cells, waits)) in zip(axes, drawings.items(), strict=True):
        for (begin, worker), (row, step) in cells.items():
            _cell(ax, begin, worker, (row, step) if step < lengths[row] else None, theme)
        for end in waits:
            ax.plot([end, end], [-0.1, 2.1], color=INK[theme], linewidth=2)
        ax.set_title(title, loc="left")
        ax.set(xlim=(-0.1, 21.1), ylim=(-0.1, 2.1), xticks=[])
        ax.set(yticks=[0.5, 1.5], yticklabels=["worker 2", "worker 1"])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    axes[2].set_xlabel("time")
    return figure


def _by_step(lengths: list[int], computed: list[int]) -> tuple[dict[Any, Any], list[int]]:
    """Place the rows that are computed at each step, and say when each step ends."""
    cells, ends = {}, [0]
    for step in range(max(computed)):
        rows = [row for row in range(len(lengths)) if computed[row] > step]
        for place, row in enumerate(rows):
            cells[ends[-1] + place // 2, 1 - place % 2] = row, step
        ends.append(ends[-1] + (len(rows) + 1) // 2)
    return cells, ends[1:]


def _by_row(lengths: list[int]) -> dict[Any, Any]:
    """Place whole rows, each with the worker that is free first."""
    cells, ends = {}, [0, 0]
    for row, length in enumerate(lengths):
        worker = int(np.argmin(ends))
        for step in range(length):
            cells[ends[worker] + step, 1 - worker] = row, step
        ends[worker] += length
    return cells


def model(theme: str) -> Figure:
    """Where the tokens of two rows go in an encoder-decoder with attention."""
    figure = Figure((9, 3.6), layout="constrained")
    ax = figure.subplots()
    context, horizon, start = [4, 2], [2, 3], 6.5
    ax.set(xlim=(-0.6, 12.6), ylim=(-0.5, 4.5), aspect="equal")
    ax.axis("off")
    for row in (0, 1):
        y = 2.2 - 1.9 * row
        for step in range(5):
            _cell(ax, step, y, (row, step) if step < context[row] else None, theme)
        for step in range(4):
            real = (row, context[row] + step) if step < horizon[row] else None
            _cell(ax, start + step, y, real, theme)
        last = context[row] - 1
        ax.plot([0.05, last + 0.95], [y + 1.1, y + 1.1], color=ROWS[row])
        for step in range(horizon[row]):
            attends = FancyArrowPatch((last / 2 + 0.5, y + 1.1), (start + step + 0.5, y + 0.97),
                                      connectionstyle="arc3,rad=-0.15", color=ROWS[row],
                                      arrowstyle="-|>", mutation_scale=8)  # fmt: skip
            ax.add_patch(attends)
        state = FancyArrowPatch((last + 0.95, y + 0.45), (start, y + 0.45), color=INK[theme],
                                arrowstyle="-|>", mutation_scale=12, linewidth=1.5)  # fmt: skip
        ax.add_patch(state)
        ax.text(start + 4.2, y + 0.45, f"loss over {horizon[row]}", va="center")
    ax.text(0, 4.2, "encoder: the context", weight="bold")
    ax.text(start, 4.2, "decoder: the horizon", weight="bold")
    note = (
        "straight: the state after each row's last valid step; curved: attention over valid steps"
    )
    ax.text(0, -0.4, note)
    return figure


def models(theme: str) -> Figure:
    """What the tokens of the past and of the future go through in each model."""
    figure = Figure((9, 5.2), layout="constrained")
    axes = figure.subplots(3, 2).flatten()
    for ax, (name, (select, attend, head, static)) in zip(axes, MODELS.items(), strict=True):
        ax.set_title(name, loc="left")
        ax.set(xlim=(-0.9, 7.6), ylim=(-0.1, 3.0))
        ax.axis("off")
        columns = [text for text in (select, "LSTM", attend) if text is not None]
        for lane, label in ((1, "past"), (0, "future")):
            ax.text(-0.15, lane + 0.4, label, ha="right", va="center")
        for place, text in enumerate(columns):
            for lane in (0, 1):
                if text == attend:
                    _block(ax, 2 * place, 0, text, ROWS[3], height=1.8)
                    break
                _block(ax, 2 * place, lane, text, ROWS[1] if text == "LSTM" else ROWS[2])
        lstm = 2 * columns.index("LSTM")
        _arrow(ax, (lstm + 0.75, 1), (lstm + 0.75, 0.8), theme)
        for place in range(len(columns) - 1):
            for lane in (0, 1):
                _arrow(ax, (2 * place + 1.5, lane + 0.4), (2 * place + 2, lane + 0.4), theme)
        _arrow(ax, (2 * len(columns) - 0.5, 0.4), (2 * len(columns), 0.4), theme)
        _block(ax, 2 * len(columns), 0, head, ROWS[0])
        if static is not None:
            ax.text(-0.15, 2.4, "static", ha="right", va="center")
            _block(ax, 0, 2, static, ROWS[2])
            _arrow(ax, (0.75, 2), (0.75, 1.8), theme)
            _arrow(ax, (1.5, 2.4), (lstm + 0.75, 1.8), theme)
            _arrow(ax, (1.5, 2.4), (lstm + 2.75, 1.8), theme)
    return figure


# What selects features, what attends, the head, and what is static.
MODELS = {
    "EncoderDecoderLSTM": (None, None, "Linear, MLP", None),
    "AttentionLSTM": (None, "attention", "Linear", None),
    "TransformerLSTM": ("GRN", "attention,\nin blocks", "Linear", None),
    "TemporalFusionTransformer": ("selection", "attention", "quantiles", "row's length"),
    "PFTemporalFusionTransformer": ("selection", "attention", "quantiles", "its share"),
    "XTFT": ("selection", "attention", "quantiles", None),
}


def _block(ax: Any, x: float, y: float, text: str, colour: str, height: float = 0.8) -> None:
    ax.add_patch(Rectangle((x, y), 1.5, height, color=colour, linewidth=0))
    ax.text(x + 0.75, y + height / 2, text, ha="center", va="center", color="white", fontsize=7)


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], theme: str) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch(start, end, color=INK[theme], **style))


def _cells(ax: Any, cells: dict[Any, Any], columns: int, lines: int, theme: str) -> None:
    """Draw a grid; `cells[column, line]` is the row and step there, the others are padding."""
    for column in range(columns):
        for line in range(lines):
            if (column, line) not in cells:
                _cell(ax, column, lines - 1 - line, None, theme)
    for (column, line), token in cells.items():
        _cell(ax, column, lines - 1 - line, token, theme)
    ax.set(xlim=(-0.1, columns + 0.1), ylim=(-0.9 if lines == 1 else -0.1, lines + 0.1))
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)


def _cell(ax: Any, x: float, y: float, token: tuple[int, int] | None, theme: str) -> None:
    colour = PADDING[theme] if token is None else ROWS[token[0]]
    ax.add_patch(Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, color=colour, linewidth=0))
    if token is not None:
        name = f"{'abcde'[token[0]]}{token[1]}"
        ax.text(x + 0.5, y + 0.48, name, ha="center", va="center", color="white", fontsize=8)


DIAGRAMS = {
    "padding": padding,
    "layouts": layouts,
    "kernels": kernels,
    "model": model,
    "models": models,
}
