"""Several runs side by side: one table, one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragged.errors import CheckpointError, OptionError
from ragged.evaluation.metrics import format_score
from ragged.io import checkpoint
from ragged.report.figures import MUTED, log_scale, new_figure, save, style, whole_numbers
from ragged.runs.folder import read_config, read_metrics, read_scores

HEADS = ("run", "model", "backend", "parameters", "epochs", "seconds")
MEASURES = {"r2": "R²", "rmse": "RMSE", "mae": "MAE", "pinball": "pinball", "coverage": "in band"}


@dataclass(frozen=True)
class ComparedRun:
    """What is compared of a finished run, read from its files.

    Args:
        name: the last two folders of its path, the run's name and time.
        model: the model's name.
        backend: what trained it.
        parameters: how many numbers the model has.
        metrics: the records of its epochs.
        scores: by target and measure, those of MEASURES that there are; NaN where undefined.
        persistence: by target the RMSE of persistence to three digits, which is equal where the
            test steps are.
    """

    name: str
    model: str
    backend: str
    parameters: int
    metrics: Sequence[dict[str, Any]]
    scores: dict[str, dict[str, float]]
    persistence: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the training took."""
        return sum(record["seconds"] for record in self.metrics)


def read_runs(folders: Sequence[Path], parser: Any) -> list[ComparedRun]:
    """Read finished runs, in the order given.

    Raises:
        OptionError: fewer than two runs, or runs that forecast different targets.
        CheckpointError: a file of a run that is missing or damaged; it is named.
    """
    if len(folders) < 2:
        got = "one run" if folders else "empty"
        raise OptionError.of("compare", "folders", got, "two runs or more", "Name another.")
    found = [_read_run(folder, parser) for folder in folders]
    first = set(found[0].scores)
    for folder, each in zip(folders, found, strict=True):
        if set(each.scores) != first:
            got = f"{str(folder)!r}, which forecasts {sorted(each.scores)}"
            expected = f"{sorted(first)}, as {str(folders[0])!r} does"
            remedy = "Compare runs of the same targets."
            raise OptionError.of("compare", "folders", got, expected, remedy)
    return found


def table(compared: Sequence[ComparedRun]) -> str:
    """Lay the runs out as text, a line each; the measures of a target stand below its name.

    Example:
        >>> run = ComparedRun("a/1", "XTFT", "torch", 12, [], {"flow": {"r2": 0.5, "rmse": 1.0}})
        >>> print(table([run, run]))
        run  model  backend  parameters  epochs  seconds  flow
                                                             R²   RMSE
        a/1  XTFT   torch            12       0        0  0.500  1.000
        a/1  XTFT   torch            12       0        0  0.500  1.000
    """
    columns = [[HEADS[0], "", *(each.name for each in compared)]]
    columns += [[head, "", *cells] for head, cells in zip(HEADS[1:], _facts(compared), strict=True)]
    for target, measures in _measures(compared).items():
        for place, measure in enumerate(measures):
            values = [_cell(measure, each.scores[target].get(measure)) for each in compared]
            columns.append([target if place == 0 else "", MEASURES[measure], *values])
    lines = ["  ".join(line).rstrip() for line in zip(*map(_padded, columns), strict=True)]
    if any(each.persistence != compared[0].persistence for each in compared):
        lines.append("The runs are scored on different test steps: their baselines differ.")
    return "\n".join(lines)


def save_picture(path: Path, compared: Sequence[ComparedRun]) -> None:
    """Draw the validation losses over the epochs, and R² beside them, a colour each run."""
    targets = list(compared[0].scores)
    names = [f"{place}  {each.model}, {each.backend}" for place, each in enumerate(compared, 1)]
    with style():
        figure = new_figure(12, 1.6 + max(2.6, 0.34 * len(targets) * len(compared)))
        left, right = figure.subplots(1, 2, width_ratios=(5, 4))
        _draw_losses(left, compared, names)
        _draw_scores(right, compared, names, targets)
        save(figure, path)


def _draw_losses(axis: Any, compared: Sequence[ComparedRun], names: Sequence[str]) -> None:
    for place, (each, name) in enumerate(zip(compared, names, strict=True)):
        epochs = [record["epoch"] for record in each.metrics]
        losses = [record["validation_loss"] for record in each.metrics]
        axis.plot(epochs, losses, color=_color(place), marker=".", label=name)
    axis.set(title="validation loss, of each run's own kind", xlabel="epoch")
    whole_numbers(axis.xaxis)
    log_scale(axis, [record["validation_loss"] for each in compared for record in each.metrics])
    axis.legend()


def _draw_scores(
    axis: Any, compared: Sequence[ComparedRun], names: Sequence[str], targets: Sequence[str]
) -> None:
    """Bars of R², the runs of a target together, the first run on top."""
    ticks = {}
    for row, target in enumerate(targets):
        for place, each in enumerate(compared):
            at = row * (len(compared) + 1) + place
            value = each.scores[target]["r2"]
            axis.barh(at, np.nan_to_num(value), color=_color(place), height=0.8)
            axis.annotate(
                format_score(value), (max(0.0, np.nan_to_num(value)), at), (4, 0),
                textcoords="offset points", va="center",
            )  # fmt: skip
            ticks[at] = names[place] if len(targets) == 1 else f"{target}: {names[place]}"
    axis.set_yticks(list(ticks), list(ticks.values()))
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.grid(axis="y", visible=False)
    axis.axvline(0, color=MUTED, lw=0.7)
    axis.set(title="R² on the test events", xlabel="R²")


def _color(place: int) -> str:
    """The colours of the style in turn."""
    import matplotlib

    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return str(cycle[place % len(cycle)])


def _facts(compared: Sequence[ComparedRun]) -> list[list[str]]:
    """The columns that HEADS names, after the first."""
    return [
        [each.model for each in compared],
        [each.backend for each in compared],
        [f"{each.parameters:,}" for each in compared],
        [str(len(each.metrics)) for each in compared],
        [f"{each.seconds:.0f}" for each in compared],
    ]


def _measures(compared: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Which measures of each target any of the runs has."""
    return {
        target: [m for m in MEASURES if any(m in each.scores[target] for each in compared)]
        for target in compared[0].scores
    }


def _cell(measure: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.1%}" if measure == "coverage" else format_score(value)


def _padded(column: Sequence[str]) -> list[str]:
    """Bring the cells of a column to one width: numbers to the right, names to the left."""
    width = max(map(len, column))
    head, *cells = column
    numeric = head in HEADS[3:] or bool(cells[0])
    return [head.ljust(width), *(c.rjust(width) if numeric else c.ljust(width) for c in cells)]


def _read_run(folder: Path, parser: Any) -> ComparedRun:
    config = read_config(folder, parser)
    best = checkpoint.read(folder / "checkpoints" / "best")
    saved, model = read_scores(folder), config.model.class_path.rpartition(".")[2]
    return ComparedRun(
        name="/".join(folder.resolve().parts[-2:]),
        model=model,
        backend=config.backend,
        parameters=sum(value.size for value in best.parameters.values()),
        metrics=read_metrics(folder),
        scores=_scores_of(model, saved, folder),
        persistence={
            target: f"{scores.get('persistence', {}).get('rmse') or math.nan:.3g}"
            for target, scores in saved["targets"].items()
        },
    )


def _scores_of(model: str, saved: dict[str, Any], folder: Path) -> dict[str, dict[str, float]]:
    """The model's own scores by target and measure; null is NaN."""
    found = {}
    for target, scores in saved["targets"].items():
        measures = scores.get(model) if isinstance(scores, dict) else None
        if not isinstance(measures, dict) or not {"r2", "rmse", "mae"} <= set(measures):
            raise CheckpointError(
                f"compare: {str(folder / 'scores.json')!r} has no r2, rmse and mae of {model} for "
                f"{target!r}; expected what training writes. Train the run again."
            )
        for name in ("pinball", "coverage"):
            if target in saved.get(name, {}):
                measures[name] = saved[name][target]
        found[target] = {
            name: math.nan if value is None else float(value) for name, value in measures.items()
        }
    return found
