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

HEADERS = ("run", "model", "backend", "parameters", "epochs", "seconds")
MEASURES = {"r2": "R²", "rmse": "RMSE", "mae": "MAE", "pinball": "pinball", "coverage": "in band"}


@dataclass(frozen=True)
class ComparedRun:
    """The compared values of a finished run, read from its files.

    Args:
        name: the last two folders of its path, the run's name and time.
        model: the model's name.
        backend: its name.
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
    runs = [_read_run(folder, parser) for folder in folders]
    targets = set(runs[0].scores)
    for folder, run in zip(folders, runs, strict=True):
        if set(run.scores) != targets:
            got = f"{str(folder)!r}, which forecasts {sorted(run.scores)}"
            expected = f"{sorted(targets)}, as {str(folders[0])!r} does"
            remedy = "Compare runs of the same targets."
            raise OptionError.of("compare", "folders", got, expected, remedy)
    return runs


def table(runs: Sequence[ComparedRun]) -> str:
    """Lay the runs out as text, a line each; the measures of a target are below its name.

    Example:
        >>> run = ComparedRun("a/1", "XTFT", "torch", 12, [], {"flow": {"r2": 0.5, "rmse": 1.0}})
        >>> print(table([run, run]))
        run  model  backend  parameters  epochs  seconds  flow
                                                             R²   RMSE
        a/1  XTFT   torch            12       0        0  0.500  1.000
        a/1  XTFT   torch            12       0        0  0.500  1.000
    """
    columns = [[HEADERS[0], "", *(run.name for run in runs)]]
    columns += [[name, "", *cells] for name, cells in zip(HEADERS[1:], _facts(runs), strict=True)]
    for target, measures in _measures(runs).items():
        for index, measure in enumerate(measures):
            values = [_cell(measure, run.scores[target].get(measure)) for run in runs]
            columns.append([target if index == 0 else "", MEASURES[measure], *values])
    lines = ["  ".join(line).rstrip() for line in zip(*map(_padded, columns), strict=True)]
    if any(run.persistence != runs[0].persistence for run in runs):
        lines.append("The runs are scored on different test steps: their baselines differ.")
    return "\n".join(lines)


def save_picture(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Draw the validation losses over the epochs, and R² beside them, a colour each run."""
    targets = list(runs[0].scores)
    names = [f"{index}  {run.model}, {run.backend}" for index, run in enumerate(runs, 1)]
    with style():
        figure = new_figure(12, 1.6 + max(2.6, 0.34 * len(targets) * len(runs)))
        left, right = figure.subplots(1, 2, width_ratios=(5, 4))
        _draw_losses(left, runs, names)
        _draw_scores(right, runs, names, targets)
        save(figure, path)


def _draw_losses(axis: Any, runs: Sequence[ComparedRun], names: Sequence[str]) -> None:
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        epochs = [record["epoch"] for record in run.metrics]
        losses = [record["validation_loss"] for record in run.metrics]
        axis.plot(epochs, losses, color=_color(index), marker=".", label=name)
    axis.set(title="validation loss, of each run's own kind", xlabel="epoch")
    whole_numbers(axis.xaxis)
    log_scale(axis, [record["validation_loss"] for run in runs for record in run.metrics])
    axis.legend()


def _draw_scores(
    axis: Any, runs: Sequence[ComparedRun], names: Sequence[str], targets: Sequence[str]
) -> None:
    """Bars of R², the runs of a target together, the first run on top."""
    ticks = {}
    for row, target in enumerate(targets):
        for index, run in enumerate(runs):
            position = row * (len(runs) + 1) + index
            value = run.scores[target]["r2"]
            axis.barh(position, np.nan_to_num(value), color=_color(index), height=0.8)
            axis.annotate(
                format_score(value), (max(0.0, np.nan_to_num(value)), position), (4, 0),
                textcoords="offset points", va="center",
            )  # fmt: skip
            ticks[position] = names[index] if len(targets) == 1 else f"{target}: {names[index]}"
    axis.set_yticks(list(ticks), list(ticks.values()))
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.grid(axis="y", visible=False)
    axis.axvline(0, color=MUTED, lw=0.7)
    axis.set(title="R² on the test events", xlabel="R²")


def _color(index: int) -> str:
    """Return a colour of the style's cycle."""
    import matplotlib

    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return str(cycle[index % len(cycle)])


def _facts(runs: Sequence[ComparedRun]) -> list[list[str]]:
    """The columns that HEADERS names, after the first."""
    return [
        [run.model for run in runs],
        [run.backend for run in runs],
        [f"{run.parameters:,}" for run in runs],
        [str(len(run.metrics)) for run in runs],
        [f"{run.seconds:.0f}" for run in runs],
    ]


def _measures(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Return the measures of each target that any run has."""
    return {
        target: [m for m in MEASURES if any(m in run.scores[target] for run in runs)]
        for target in runs[0].scores
    }


def _cell(measure: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.1%}" if measure == "coverage" else format_score(value)


def _padded(column: Sequence[str]) -> list[str]:
    """Pad the cells of a column to one width: numbers right aligned, names left aligned."""
    width = max(map(len, column))
    header, *cells = column
    numeric = header in HEADERS[3:] or bool(cells[0])
    return [header.ljust(width), *(c.rjust(width) if numeric else c.ljust(width) for c in cells)]


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
    model_scores = {}
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
        model_scores[target] = {
            name: math.nan if value is None else float(value) for name, value in measures.items()
        }
    return model_scores
