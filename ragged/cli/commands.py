"""The commands: train, resume, evaluate, report, compare, export, predict, info."""

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
from ragged.kernels.cuda import verdicts
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

Forecasts = tuple[EncoderDecoderDataModule, RaggedDataset, list[RowForecast]]


def train(parser: Any, config: Any) -> Path:
    """Train from a parsed configuration and return the run's folder."""
    with use_backend(config.backend) as backend, backend.init_process_group() as workers:
        components, folder = instantiate(config, parser), None
        if workers.rank == 0:
            folder = create_folder(Path(config.runs), config.name)
            save_config(folder, parser, config)
        folder = workers.broadcast(folder)
        _train(_create_loop(components, folder, config))
    return folder


def resume(folder: Path, parser: Any) -> Path:
    """Resume a run from its last checkpoint."""
    config = read_config(folder, parser)
    with use_backend(config.backend) as backend, backend.init_process_group():
        loop = _create_loop(instantiate(config, parser), folder, config)
        loop.resume()
        _train(loop)
    return folder


def evaluate(parser: Any, run: Path, backend: str | None = None) -> dict[str, TargetScores]:
    """Print a run's scores on its test events beside the baselines' and return them by target."""
    with use_backend(backend or read_config(run, parser).backend):
        opened = open_run(run, parser)
        evaluation = evaluate_model(opened.module, opened.data, opened.trainer)
    print(scores_table(evaluation.targets))
    return evaluation.targets


def report(parser: Any, run: Path, backend: str | None = None) -> Path:
    """Write a run's report to its `report.html` and return the path."""
    from ragged.report import write_report

    with use_backend(backend or read_config(run, parser).backend):
        path = write_report(open_run(run, parser))
    print(f"report: {path}")
    return path


def compare(parser: Any, folders: Sequence[Path], output: Path) -> None:
    """Print one table of several runs, and draw their losses and scores into one picture."""
    runs = comparison.read_runs(folders, parser)
    comparison.save_picture(output, runs)
    print(comparison.table(runs))
    print(f"picture: {output}")


def export(parser: Any, run: Path, format: str, output: Path | None = None) -> Path:
    """Export a run's best model as a program and a JSON of its inputs; return the folder."""
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
        data, dataset, forecasts = _predict_exported(run, input, backend)
    else:
        data, dataset, forecasts = _predict_run(parser, run, input, backend)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row, forecast in zip(dataset.rows, forecasts, strict=True):
        columns = _columns(data, forecast)
        if buffer.tell() == 0:
            writer.writerow(["event", data.source.time_label, *columns])
        for step, time in enumerate(row.horizon_time):
            values = (f"{column[step]:.6g}" for column in columns.values())
            writer.writerow([row.event.name, f"{time:.15g}", *values])
    checkpoint.write_file(output, buffer.getvalue().encode())
    for note in data.source.notes:
        print(f"note: {note}")
    steps = sum(len(forecast.point) for forecast in forecasts)
    print(f"{steps:,} steps of {len(forecasts)} events forecast to {output}")


def _predict_run(parser: Any, run: Path, input: Path, backend: str | None) -> Forecasts:
    with use_backend(backend or read_config(run, parser).backend):
        opened = open_run(run, parser)
        data, trainer = opened.data, opened.trainer
        data.normalization = Normalization.from_dict(opened.normalization)
        dataset = data.rows_for(data.source.read(input))
        return data, dataset, forecast_rows(opened.module, dataset, data, trainer)


def _predict_exported(folder: Path, input: Path, backend: str | None) -> Forecasts:
    """Forecast with an exported model, importing only what its format needs."""
    if backend is not None:
        got, expected = repr(backend), "left out: an exported model's format decides"
        raise OptionError.of("predict", "backend", got, expected, "Leave it out.")
    bundle = open_bundle(folder)
    dataset = bundle.data.rows_for(bundle.data.source.read(input))
    return bundle.data, dataset, bundle.forecast(dataset)


def info() -> None:
    """Print versions, backends and devices."""
    print(f"ragged-sequences {version_of('ragged-sequences')}, Python {platform.python_version()}")
    for package in PACKAGES:
        print(f"{package:<10} {version_of(package)}")
    print(f"kernels    {kernels.describe()}")
    for line in verdicts.describe():
        print(f"on GPUs    {line}")
    for name in available_backends():
        print(f"backend {name:<6} devices: {', '.join(load_backend(name).devices())}")


def _create_loop(components: Any, folder: Path, config: Any) -> TrainLoop:
    """Create the training loop, with the data aligned as the model requires."""
    model = components.model.config
    for side in ("encoder_alignment", "decoder_alignment"):
        required, configured = getattr(model, side), getattr(components.data, side)
        if configured not in (None, required):
            expected = f"{required!r}, which {model.model} takes"
            remedy = f"Set data.{side} to {required}, or leave it out."
            raise OptionError.of("train", f"data.{side}", repr(configured), expected, remedy)
        setattr(components.data, side, required)
    components.data.setup()
    return TrainLoop(components.trainer, components.model, components.data, folder, config.seed)


def _train(loop: TrainLoop) -> None:
    """Train; the worker of rank 0 also prints progress and writes the evaluation."""
    if loop.is_writer:
        _train_and_evaluate(loop)
    else:
        loop.run()


def _train_and_evaluate(loop: TrainLoop) -> None:
    from tqdm import tqdm

    _print_header(loop)
    save_versions(loop.folder, describe_environment(loop.trainer.pick_device(get_backend())))
    per_epoch, state = loop.steps_per_epoch, loop.state
    initial = state.epoch * per_epoch + state.current.steps
    with tqdm(total=loop.trainer.max_epochs * per_epoch, initial=initial) as progress:
        loop.run(progress)
    backend = get_backend()
    best = checkpoint.read(loop.best).create_model(backend)
    evaluation = evaluate_model(best, loop.data, loop.trainer)
    checkpoint.write_file(loop.folder / "scores.json", to_json(evaluation.targets).encode())
    records, best_epoch = read_metrics(loop.folder), state.best_epoch + 1
    figures.save_loss_curves(loop.folder / "loss.png", records, best_epoch, loop.objective.name)
    figures.save_forecasts(loop.folder / "forecast.png", loop.data, evaluation)
    seconds = sum(record["seconds"] for record in records)
    print(f"best epoch {best_epoch} of {state.epoch}, {seconds:.0f} s of training")
    if loop.profile.first_epoch is not None:
        print(f"time: {loop.profile}")
    print(scores_table(evaluation.targets))
    print(f"run: {loop.folder}")


def _print_header(loop: TrainLoop) -> None:
    backend = get_backend()
    train = loop.data.train
    sizes = [
        f"{split}: {_count(rows, 'row')}, {_count(steps, 'step')}"
        for split, (rows, steps) in loop.data.sizes.items()
    ]
    padded = int(train.lengths.max(axis=0).sum()) * len(train)
    num_parameters = sum(value.size for value in backend.get_parameters(loop.model).values())
    print(
        f"{loop.description.model}, {num_parameters:,} parameters, {loop.trainer.precision}\n"
        f"backend {backend.name} {version_of(backend.framework)} on "
        f"{loop.trainer.pick_device(backend)}, ragged {version_of('ragged-sequences')}\n"
        f"{'; '.join(sizes)}\n"
        f"{len(train)} training rows, {train.tokens:,} tokens; padding all to the longest would "
        f"waste {1 - train.tokens / padded:.0%}",
        *(f"note: {note}" for note in loop.data.notes),
        f"run: {loop.folder}",
        sep="\n",
        flush=True,
    )


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def _columns(data: EncoderDecoderDataModule, forecast: RowForecast) -> dict[str, np.ndarray]:
    """Return the columns of a table of forecasts, in the units of the source's files."""
    columns = {}
    for i, name in enumerate(data.source.roles.target):
        header, values = data.source.raw_target(name, forecast.point[:, i])
        columns[f"{header}_forecast"] = values
        for level, quantile in forecast.levels.items():
            columns[f"{header}_q{level:g}"] = data.source.raw_target(name, quantile[:, i])[1]
    return columns
