"""What the commands do: train, resume, evaluate, predict, info."""

from __future__ import annotations

import csv
import io
import json
import platform
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ragged import checkpoint
from ragged.backend import available_backends, get_backend, load_backend, use_backend
from ragged.data import EncoderDecoderDataModule, Normalization
from ragged.errors import OptionError, refusal
from ragged.training import figures, runs, scores
from ragged.training.fit import Fit
from ragged.training.forecasts import RowForecast, forecast_rows
from ragged.training.scores import Score


def train(parser: Any, config: Any) -> Path:
    """Train from a parsed configuration and return the run's folder."""
    with use_backend(config.backend):
        parts = runs.instantiate(config, parser)
        folder = runs.create_folder(Path(config.runs), config.name)
        runs.save_config(folder, parser, config)
        _finish(_fit(parts, folder, config))
    return folder


def resume(folder: Path, parser: Any) -> Path:
    """Go on with a run from its last checkpoint, whenever it was stopped."""
    config = runs.read_config(folder, parser)
    with use_backend(config.backend):
        fit = _fit(runs.instantiate(config, parser), folder, config)
        fit.resume()
        _finish(fit)
    return folder


def evaluate(parser: Any, run: Path, backend: str | None = None) -> dict[str, Score]:
    """Print a run's scores on its test events beside the baselines' and return them."""
    with use_backend(backend or runs.read_config(run, parser).backend):
        opened = runs.open_run(run, parser)
        results, calibration, _ = _score(opened.module, opened.data, opened.trainer)
    print(table(results, _target_name(opened.data)))
    _print_calibration(calibration)
    return results


def predict(parser: Any, run: Path, input: Path, output: Path, backend: str | None = None) -> None:
    """Forecast the events of a CSV file into another, in the units of the source."""
    with use_backend(backend or runs.read_config(run, parser).backend):
        opened = runs.open_run(run, parser)
        data, trainer = opened.data, opened.trainer
        data.normalization = Normalization.from_dict(opened.normalization)
        rows = data.rows_for(data.source.read(input))
        found = forecast_rows(opened.module, rows, data, trainer)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row, forecast in zip(rows.rows, found, strict=True):
        columns = _columns(data, forecast)
        if buffer.tell() == 0:
            writer.writerow(["event", data.source.time_label, *columns])
        for step, time in enumerate(row.horizon_time):
            values = (f"{column[step]:.6g}" for column in columns.values())
            writer.writerow([row.event.name, f"{time:g}", *values])
    checkpoint.write_file(output, buffer.getvalue().encode())
    print(f"{sum(len(f.point) for f in found):,} steps of {len(found)} events forecast to {output}")


def info() -> None:
    """Print versions, backends and devices."""
    print(f"ragged-sequences {_version('ragged-sequences')}, Python {platform.python_version()}")
    for package in ("numpy", "torch", "jax", "flax", "optax"):
        print(f"{package:<10} {_version(package)}")
    for name in available_backends():
        print(f"backend {name:<6} devices: {', '.join(load_backend(name).devices())}")


def table(results: dict[str, Score], target: str) -> str:
    """Lay scores out as a table, best first."""
    lines = [f"{f'test events, {target}':<46}{'R²':>8}{'RMSE':>8}{'MAE':>8}"]
    for name, score in sorted(results.items(), key=lambda item: -item[1].r2):
        lines.append(f"{name:<46}{score.r2:>8.3f}{score.rmse:>8.3f}{score.mae:>8.3f}")
    return "\n".join(lines)


def _fit(parts: Any, folder: Path, config: Any) -> Fit:
    """Bring model and data together, the encoder's alignment with them."""
    needed, given = parts.model.config.encoder_alignment, parts.data.encoder_alignment
    if given not in (None, needed):
        raise OptionError(
            refusal(
                "train",
                "data.encoder_alignment",
                repr(given),
                f"{needed!r}, which {type(parts.model.config).__name__} takes",
                f"Set data.encoder_alignment to {needed}, or leave it out.",
            )
        )
    parts.data.encoder_alignment = needed
    parts.data.setup()
    return Fit(parts.trainer, parts.model, parts.data, folder, config.seed)


def _finish(fit: Fit) -> None:
    from tqdm import tqdm

    _introduce(fit)
    per_epoch, standing = fit.steps_per_epoch, fit.standing
    done = standing.epoch * per_epoch + standing.current.steps
    with tqdm(total=fit.trainer.max_epochs * per_epoch, initial=done) as progress:
        fit.run(progress)
    backend = get_backend()
    best = checkpoint.read(fit.best).create_model(backend)
    results, calibration, found = _score(best, fit.data, fit.trainer)
    name = _target_name(fit.data)
    content = json.dumps({k: asdict(v) for k, v in results.items()} | calibration, indent=2)
    checkpoint.write_file(fit.folder / "scores.json", content.encode())
    records = runs.read_metrics(fit.folder)
    figures.loss_curves(
        fit.folder / "loss.png", records, standing.best_epoch + 1, fit.objective.name
    )
    figures.forecasts(fit.folder / "forecast.png", *_panels(fit.data, found))
    seconds = sum(record["seconds"] for record in records)
    print(f"best epoch {standing.best_epoch + 1} of {standing.epoch}, {seconds:.0f} s of training")
    print(f"time: {fit.profile}")
    print(table(results, name))
    _print_calibration(calibration)
    print(f"run: {fit.folder}")


def _introduce(fit: Fit) -> None:
    backend = get_backend()
    train = fit.data.train
    padded = 0
    for side in (0, 1):
        padded += int(train.lengths[:, side].max()) * len(train)
    parameters = backend.get_parameters(fit.model)
    size = sum(value.size for value in parameters.values())
    print(
        f"{type(fit.description).__name__}, {size:,} parameters, {fit.trainer.precision}\n"
        f"backend {backend.name} {_version(backend.framework)} on "
        f"{fit.trainer.pick_device(backend)}, ragged {_version('ragged-sequences')}\n"
        f"{len(train)} training rows, {train.tokens:,} tokens; padding all to the longest would "
        f"waste {1 - train.tokens / padded:.0%}\nrun: {fit.folder}",
        flush=True,
    )


def _score(
    module: Any, data: EncoderDecoderDataModule, trainer: Any
) -> tuple[dict[str, Score], dict[str, float], list[RowForecast]]:
    """Score the model and the baselines on the same steps, in the target's units."""
    found = forecast_rows(module, data.test, data, trainer)
    whole = RowForecast.joined(found)
    rows = list(data.test.rows)
    fit_rows = [*data.train.rows, *data.validation.rows]
    name = data.source.roles.target[0]
    forecasts = {type(module.config).__name__: whole.point[:, 0]}
    for key, values in scores.baselines(fit_rows, rows).items():
        in_units = map(partial(data.normalization.inverse, name), values, rows)
        forecasts[key] = np.concatenate(list(in_units))
    truth = np.concatenate([row.truth(name) for row in rows])
    results = {key: Score.of(truth, values) for key, values in forecasts.items()}
    return results, _calibrate(truth, whole), found


def _calibrate(truth: np.ndarray, whole: RowForecast) -> dict[str, float]:
    """What quantile forecasts are worth on the test events; nothing of a point forecast."""
    result = {}
    if whole.levels:
        first = {level: values[:, 0] for level, values in whole.levels.items()}
        result["pinball"] = scores.pinball(truth, first)
    if whole.band is not None:
        lower, upper = whole.band
        result["coverage"] = scores.coverage(truth, lower[:, 0], upper[:, 0])
    return result


def _print_calibration(calibration: dict[str, float]) -> None:
    if "pinball" in calibration:
        print(f"pinball loss {calibration['pinball']:.3f}, the mean over the quantiles")
    if "coverage" in calibration:
        print(
            f"{calibration['coverage']:.1%} of the truths lie in the 10..90 % band, made for 80 %"
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


def _panels(
    data: EncoderDecoderDataModule, found: list[RowForecast]
) -> tuple[list[figures.Panel], figures.Axes]:
    """Pick the best, the median and the worst test event by RMSE."""
    target, driver = data.source.roles.target[0], data.source.roles.known[0]
    units = data.source.units
    panels = []
    for row, forecast in zip(data.test.rows, found, strict=True):
        event, values = row.event, forecast.point[:, 0]
        band = None if forecast.band is None else tuple(edge[:, 0] for edge in forecast.band)
        truth = event.columns[target]
        panel = figures.Panel("", event.time, event.columns[driver], truth, values, band)
        panels.append((Score.of(row.truth(target), values).rmse, panel, row))
    panels.sort(key=lambda item: item[0])
    chosen = {"best": panels[0], "median": panels[len(panels) // 2], "worst": panels[-1]}
    titled = [
        replace(panel, title=f"{rank} test event: {row.event.name} (RMSE {rmse:.2f})")
        for rank, (rmse, panel, row) in chosen.items()
    ]
    axes = figures.Axes(
        data.source.time_label,
        f"{driver} [{units[driver]}]",
        f"{target} [{units[target]}]",
    )
    return titled, axes


def _target_name(data: EncoderDecoderDataModule) -> str:
    name = data.source.roles.target[0]
    return f"{name} [{data.source.units[name]}]"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
