"""The commands: train, resume, evaluate, report, compare, export, predict, info."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragged import kernels
from ragged.backend import available_backends, get_backend, load_backend, use_backend
from ragged.checks import as_size
from ragged.data import Series, Source, Tables
from ragged.data.horizons import cut_to_forecast
from ragged.data.tables.future import Future
from ragged.errors import OptionError
from ragged.evaluation.calibration import calibration_of
from ragged.evaluation.evaluate import evaluate_model
from ragged.evaluation.metrics import TargetScores, scores_table, to_json
from ragged.export.bundle import is_bundle, open_bundle
from ragged.export.program import FORMATS
from ragged.forecasting import backtest as backtesting
from ragged.forecasting.backtest import (
    Origins,
    seen_note,
    trained_until,
)
from ragged.forecasting.rolling import Predictor, forecast_cuts, left_out_note, rolling_note
from ragged.forecasting.tables import (
    check_not_read,
    check_output,
    column_names,
    forecast_table,
    write_table,
)
from ragged.forecasting.training import create_loop, prepare
from ragged.forecasting.training import train as run_to_end
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


def train(parser: Any, config: Any) -> Path:
    """Train from a parsed configuration and return the run's folder."""
    with use_backend(config.backend) as backend, backend.init_process_group() as workers:
        components, folder = instantiate(config, parser), None
        if workers.rank == 0:
            folder = create_folder(Path(config.runs), config.name)
            save_config(folder, parser, config)
        folder = workers.broadcast(folder)
        _train(create_loop(components, folder, config), folder)
    return folder


def resume(folder: Path, parser: Any) -> Path:
    """Resume a run from its last checkpoint."""
    config = read_config(folder, parser)
    with use_backend(config.backend) as backend, backend.init_process_group():
        loop = prepare(config, parser, folder)
        loop.resume()
        _train(loop, folder)
    return folder


def evaluate(parser: Any, run: Path, backend: str | None = None) -> dict[str, TargetScores]:
    """Print a run's scores on its test events beside the baselines' and return them by target."""
    with open_run(run, parser, backend) as opened:
        given = opened.module, opened.data, opened.trainer
        evaluation = evaluate_model(*given, opened.calibration)
    print(scores_table(evaluation.targets))
    return evaluation.targets


def report(parser: Any, run: Path, backend: str | None = None) -> Path:
    """Write a run's report to its `report.html` and return the path."""
    from ragged.report import write_report

    with open_run(run, parser, backend) as opened:
        path = write_report(opened)
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
    with open_run(run, parser, FORMATS[format].backend) as opened:
        difference = export_run(opened, get_backend(), folder, format=format)
    print(f"its forecasts differ from the checkpoint's by at most {difference:.2g}")
    print(f"exported: {folder}")
    return folder


def predict(
    parser: Any,
    run: Path,
    input: Path,
    output: Path,
    backend: str | None = None,
    horizon: int | None = None,
) -> None:
    """Forecast the series of a table into another, in the units of the source."""
    check_output("predict", output)
    check_not_read("predict", output, input)
    with _predictor(parser, run, backend) as predictor:
        data = predictor.data
        events = _read(data.source, input, horizon)
        cuts = cut_to_forecast(data, events)
        forecasts = forecast_cuts(predictor, events, cuts)
        notes = left_out_note(events, cuts), rolling_note(predictor, events, cuts)
    write_table(output, forecast_table(data, events, cuts, forecasts, for_file=True))
    for text in (*data.source.notes, *filter(None, notes)):
        print(f"note: {text}")
    steps = int((cuts[:, 3] - cuts[:, 2]).sum())
    print(f"{steps:,} steps of {len(set(cuts[:, 0]))} events forecast to {output}")


def backtest(
    parser: Any,
    run: Path,
    output: Path,
    input: Path | None = None,
    origins: int = 12,
    stride: int = 1,
    horizon: int | None = None,
    refit: bool = False,
    backend: str | None = None,
) -> None:
    """Forecast the series of a table from several origins of the past, beside the truth."""
    check_output("backtest", output)
    wanted = Origins(origins, stride, horizon)
    with open_run(run, parser, backend) as model:
        data = model.data
        if table := input or getattr(data.source, "path", None):
            check_not_read("backtest", output, Path(table))
        events = data.events if input is None else data.source.read(input)
        options = {"is_backtest": True, "for_file": True}
        column_names("backtest", data.source, model.levels, **options)
        found = backtesting.backtest(model, events, wanted, refit=refit)
        until = {} if refit or input is not None else trained_until(data)
    table = forecast_table(data, events, found.cuts, found.forecasts, **options)
    write_table(output, table)
    note = seen_note(until, events, found)
    for text in (*data.source.notes, *([note] if note else [])):
        print(f"note: {text}")
    print(f"{len(found.cuts):,} forecasts of {len(events)} events from the past in {output}")


def _read(source: Source, input: Path, horizon: int | None) -> list[Series]:
    """Read a table to forecast, with the steps that follow its rows if a horizon is given."""
    if horizon is None:
        return source.read(input)
    as_size("predict", "horizon", horizon, minimum=1, maximum=None)
    if not isinstance(source, Tables):
        got, expected = f"given for a source of {type(source).__name__}", "left out"
        remedy = "Give the rows to forecast in the table."
        raise OptionError.of("predict", "horizon", got, expected, remedy)
    return source.read(input, Future(horizon))


@contextmanager
def _predictor(parser: Any, run: Path, backend: str | None) -> Iterator[Predictor]:
    """Open a run, or an exported model, of which only what its format needs is imported."""
    if not is_bundle(run):
        with open_run(run, parser, backend) as opened:
            yield opened
        return
    if backend is not None:
        got, expected = repr(backend), "left out: an exported model's format decides"
        raise OptionError.of("predict", "backend", got, expected, "Leave it out.")
    yield open_bundle(run)


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


def _train(loop: TrainLoop, folder: Path) -> None:
    """Train; the worker of rank 0 also prints progress and writes the evaluation."""
    if loop.is_writer:
        _train_and_evaluate(loop, folder)
    else:
        loop.run()


def _train_and_evaluate(loop: TrainLoop, folder: Path) -> None:
    _print_header(loop)
    save_versions(folder, describe_environment(loop.trainer.pick_device(get_backend())))
    run_to_end(loop)
    saved = loop.best_checkpoint()
    best = saved.create_model(get_backend())
    calibration = calibration_of(saved, loop.trainer, best.config)
    evaluation = evaluate_model(best, loop.data, loop.trainer, calibration)
    checkpoint.write_file(folder / "scores.json", to_json(evaluation.targets).encode())
    records, best_epoch = read_metrics(folder), loop.state.best_epoch + 1
    figures.save_loss_curves(folder / "loss.png", records, best_epoch, loop.objective.name)
    figures.save_forecasts(folder / "forecast.png", loop.data, evaluation)
    seconds = sum(record["seconds"] for record in records)
    print(f"best epoch {best_epoch} of {loop.state.epoch}, {seconds:.0f} s of training")
    if loop.profile.first_epoch is not None:
        print(f"time: {loop.profile}")
    print(scores_table(evaluation.targets))
    print(f"run: {folder}")


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
        f"{loop.data.layout.description}\n"
        f"{len(train)} training rows, {train.tokens:,} tokens; padding all to the longest would "
        f"waste {1 - train.tokens / padded:.0%}",
        *(f"note: {note}" for note in loop.data.notes),
        f"run: {loop.folder}",
        sep="\n",
        flush=True,
    )


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
