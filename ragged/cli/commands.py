"""What the commands do: train, resume, evaluate, report, compare, export, predict, info."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragged import kernels
from ragged.backend import available_backends, get_backend, load_backend, use_backend
from ragged.data import EncoderDecoderDataModule, Normalization, RaggedDataset
from ragged.errors import OptionError
from ragged.evaluation.evaluate import evaluate_model
from ragged.evaluation.forecasts import RowForecast, forecast_rows
from ragged.evaluation.metrics import TargetScores, scores_table, to_json
from ragged.export.bundle import is_bundle, open_bundle
from ragged.export.program import FORMATS
from ragged.io import checkpoint
from ragged.report import comparison, figures
from ragged.runs.folder import (
    create_folder,
    instantiate,
    open_run,
    read_config,
    read_metrics,
    save_config,
    save_versions,
)
from ragged.runs.versions import PACKAGES, describe_environment, version_of
from ragged.training.loop import TrainLoop

Predicted = tuple[EncoderDecoderDataModule, RaggedDataset, list[RowForecast]]


def train(parser: Any, config: Any) -> Path:
    """Train from a parsed configuration and return the run's folder."""
    with use_backend(config.backend) as backend, backend.init_process_group() as workers:
        parts, folder = instantiate(config, parser), None
        if workers.rank == 0:
            folder = create_folder(Path(config.runs), config.name)
            save_config(folder, parser, config)
        folder = workers.broadcast(folder)
        _run(_fit(parts, folder, config))
    return folder


def resume(folder: Path, parser: Any) -> Path:
    """Go on with a run from its last checkpoint, whenever it was stopped."""
    config = read_config(folder, parser)
    with use_backend(config.backend) as backend, backend.init_process_group():
        fit = _fit(instantiate(config, parser), folder, config)
        fit.resume()
        _run(fit)
    return folder


def evaluate(parser: Any, run: Path, backend: str | None = None) -> dict[str, TargetScores]:
    """Print a run's scores on its test events beside the baselines' and return them by target."""
    with use_backend(backend or read_config(run, parser).backend):
        opened = open_run(run, parser)
        evaluation = evaluate_model(opened.module, opened.data, opened.trainer)
    print(scores_table(evaluation.targets))
    return evaluation.targets


def report(parser: Any, run: Path, backend: str | None = None) -> Path:
    """Write everything there is to see of a run into its `report.html` and return the path."""
    from ragged.report import write_report

    with use_backend(backend or read_config(run, parser).backend):
        path = write_report(open_run(run, parser))
    print(f"report: {path}")
    return path


def compare(parser: Any, folders: Sequence[Path], output: Path) -> None:
    """Print one table of several runs, and draw their losses and scores into one picture."""
    compared = comparison.read_runs(folders, parser)
    comparison.save_picture(output, compared)
    print(comparison.table(compared))
    print(f"picture: {output}")


def export(parser: Any, run: Path, format: str, output: Path | None = None) -> Path:
    """Write a run's best model as a program with a JSON of how to feed it; return the folder."""
    from ragged.export.run import export_run

    folder = run / "exports" / format if output is None else output
    with use_backend(FORMATS[format].backend) as backend:
        opened = open_run(run, parser)
        difference = export_run(opened, backend, folder, format=format)
    print(f"its forecasts differ from the checkpoint's by at most {difference:.2g}")
    print(f"exported: {folder}")
    return folder


def predict(parser: Any, run: Path, input: Path, output: Path, backend: str | None = None) -> None:
    """Forecast the events of a CSV file into another, in the units of the source."""
    if is_bundle(run):
        data, rows, found = _predict_exported(run, input, backend)
    else:
        data, rows, found = _predict_run(parser, run, input, backend)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row, forecast in zip(rows.rows, found, strict=True):
        columns = _columns(data, forecast)
        if buffer.tell() == 0:
            writer.writerow(["event", data.source.time_label, *columns])
        for step, time in enumerate(row.horizon_time):
            values = (f"{column[step]:.6g}" for column in columns.values())
            writer.writerow([row.event.name, f"{time:.15g}", *values])
    checkpoint.write_file(output, buffer.getvalue().encode())
    print(f"{sum(len(f.point) for f in found):,} steps of {len(found)} events forecast to {output}")


def _predict_run(parser: Any, run: Path, input: Path, backend: str | None) -> Predicted:
    with use_backend(backend or read_config(run, parser).backend):
        opened = open_run(run, parser)
        data, trainer = opened.data, opened.trainer
        data.normalization = Normalization.from_dict(opened.normalization)
        rows = data.rows_for(data.source.read(input))
        return data, rows, forecast_rows(opened.module, rows, data, trainer)


def _predict_exported(folder: Path, input: Path, backend: str | None) -> Predicted:
    """Forecast without a run, and with nothing of a framework that the format does not need."""
    if backend is not None:
        got, expected = repr(backend), "left out: an exported model's format decides"
        raise OptionError.of("predict", "backend", got, expected, "Leave it out.")
    opened = open_bundle(folder)
    rows = opened.data.rows_for(opened.data.source.read(input))
    return opened.data, rows, opened.forecast(rows)


def info() -> None:
    """Print versions, backends and devices."""
    print(f"ragged-sequences {version_of('ragged-sequences')}, Python {platform.python_version()}")
    for package in PACKAGES:
        print(f"{package:<10} {version_of(package)}")
    print(f"kernels    {kernels.describe()}")
    for name in available_backends():
        print(f"backend {name:<6} devices: {', '.join(load_backend(name).devices())}")


def _fit(parts: Any, folder: Path, config: Any) -> TrainLoop:
    """Bring model and data together, the alignment of both sides with them."""
    model = parts.model.config
    for side in ("encoder_alignment", "decoder_alignment"):
        needed, given = getattr(model, side), getattr(parts.data, side)
        if given not in (None, needed):
            expected = f"{needed!r}, which {model.model} takes"
            remedy = f"Set data.{side} to {needed}, or leave it out."
            raise OptionError.of("train", f"data.{side}", repr(given), expected, remedy)
        setattr(parts.data, side, needed)
    parts.data.setup()
    return TrainLoop(parts.trainer, parts.model, parts.data, folder, config.seed)


def _run(fit: TrainLoop) -> None:
    """Train; of several workers the first one speaks, and writes what the run came to."""
    if fit.is_writer:
        _finish(fit)
    else:
        fit.run()


def _finish(fit: TrainLoop) -> None:
    from tqdm import tqdm

    _introduce(fit)
    save_versions(fit.folder, describe_environment(fit.trainer.pick_device(get_backend())))
    per_epoch, standing = fit.steps_per_epoch, fit.standing
    done = standing.epoch * per_epoch + standing.current.steps
    with tqdm(total=fit.trainer.max_epochs * per_epoch, initial=done) as progress:
        fit.run(progress)
    backend = get_backend()
    best = checkpoint.read(fit.best).create_model(backend)
    evaluation = evaluate_model(best, fit.data, fit.trainer)
    checkpoint.write_file(fit.folder / "scores.json", to_json(evaluation.targets).encode())
    records, kept = read_metrics(fit.folder), standing.best_epoch + 1
    figures.save_loss_curves(fit.folder / "loss.png", records, kept, fit.objective.name)
    figures.save_forecasts(fit.folder / "forecast.png", fit.data, evaluation)
    seconds = sum(record["seconds"] for record in records)
    print(f"best epoch {kept} of {standing.epoch}, {seconds:.0f} s of training")
    if fit.profile.first is not None:
        print(f"time: {fit.profile}")
    print(scores_table(evaluation.targets))
    print(f"run: {fit.folder}")


def _introduce(fit: TrainLoop) -> None:
    backend = get_backend()
    train = fit.data.train
    padded = 0
    for side in (0, 1):
        padded += int(train.lengths[:, side].max()) * len(train)
    parameters = backend.get_parameters(fit.model)
    size = sum(value.size for value in parameters.values())
    print(
        f"{fit.description.model}, {size:,} parameters, {fit.trainer.precision}\n"
        f"backend {backend.name} {version_of(backend.framework)} on "
        f"{fit.trainer.pick_device(backend)}, ragged {version_of('ragged-sequences')}\n"
        f"{len(train)} training rows, {train.tokens:,} tokens; padding all to the longest would "
        f"waste {1 - train.tokens / padded:.0%}",
        *(f"note: {note}" for note in fit.data.notes),
        f"run: {fit.folder}",
        sep="\n",
        flush=True,
    )


def _columns(data: EncoderDecoderDataModule, forecast: RowForecast) -> dict[str, np.ndarray]:
    """The columns of a table of forecasts, in the units of the source's files."""
    columns = {}
    for i, name in enumerate(data.source.roles.target):
        head, values = data.source.raw_target(name, forecast.point[:, i])
        columns[f"{head}_forecast"] = values
        for level, each in forecast.levels.items():
            columns[f"{head}_q{level:g}"] = data.source.raw_target(name, each[:, i])[1]
    return columns
