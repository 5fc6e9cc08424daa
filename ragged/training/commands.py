"""What the commands do: train, resume, evaluate, predict, info."""

from __future__ import annotations

import csv
import io
import json
import platform
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ragged import checkpoint
from ragged.backend import available_backends, get_backend, load_backend, use_backend
from ragged.data import EncoderDecoderDataModule, Standardizer
from ragged.errors import OptionError, refusal
from ragged.training import figures, runs, scores
from ragged.training.forecasts import forecast_rows, to_units
from ragged.training.scores import Score
from ragged.training.trainer import Fit, steps_per_epoch


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
        results = _score(opened.module, opened.data, opened.trainer)[0]
    print(table(results, _target_name(opened.data)))
    return results


def predict(parser: Any, run: Path, input: Path, output: Path, backend: str | None = None) -> None:
    """Forecast the events of a CSV file into another, in the units of the source."""
    with use_backend(backend or runs.read_config(run, parser).backend) as chosen:
        opened = runs.open_run(run, parser)
        data, trainer = opened.data, opened.trainer
        data.standardizer = Standardizer.from_dict(opened.normalization)
        rows = data.rows_for(data.source.read(input))
        found = forecast_rows(
            opened.module,
            rows,
            data.batch_size,
            device=trainer.pick_device(chosen),
            dtype=trainer.precision,
        )
    names = data.source.roles.target
    heads = [f"{data.source.raw_target(name, np.zeros(1))[0]}_forecast" for name in names]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["event", data.source.time_label, *heads])
    for row, forecast in zip(rows.rows, found, strict=True):
        values = to_units(data, forecast)
        columns = [data.source.raw_target(name, values[:, i])[1] for i, name in enumerate(names)]
        for step, time in enumerate(row.event.time[row.split :]):
            writer.writerow([row.event.name, f"{time:g}", *(f"{c[step]:.6g}" for c in columns)])
    checkpoint.write_file(output, buffer.getvalue().encode())
    print(f"{sum(map(len, found)):,} steps of {len(found)} events forecast to {output}")


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
    per_epoch = steps_per_epoch(fit.data)
    with tqdm(total=fit.trainer.max_epochs * per_epoch, initial=fit.epoch * per_epoch) as progress:
        fit.run(progress)
    backend = get_backend()
    best = checkpoint.read(fit.best).create_model(backend)
    results, found = _score(best, fit.data, fit.trainer)
    name = _target_name(fit.data)
    content = json.dumps({k: asdict(v) for k, v in results.items()}, indent=2)
    checkpoint.write_file(fit.folder / "scores.json", content.encode())
    records = runs.read_metrics(fit.folder)
    figures.loss_curves(fit.folder / "loss.png", records, fit.best_epoch + 1, fit.trainer.loss)
    figures.forecasts(fit.folder / "forecast.png", *_panels(fit.data, found))
    seconds = sum(record["seconds"] for record in records)
    print(f"best epoch {fit.best_epoch + 1} of {fit.epoch}, {seconds:.0f} s of training")
    print(table(results, name))
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
) -> tuple[dict[str, Score], list[np.ndarray]]:
    """Score the model and the baselines on the same steps, in the target's units."""
    backend = get_backend()
    found = forecast_rows(
        module,
        data.test,
        data.batch_size,
        device=trainer.pick_device(backend),
        dtype=trainer.precision,
    )
    rows = list(data.test.rows)
    fit_rows = [*data.train.rows, *data.validation.rows]
    everything = {
        type(module.config).__name__: [forecast[:, 0] for forecast in found],
        **scores.baselines(fit_rows, rows),
    }
    name = data.source.roles.target[0]
    truth = np.concatenate([row.event.columns[name][row.split :] for row in rows])
    results = {
        key: Score.of(truth, data.standardizer.inverse(name, np.concatenate(values)))
        for key, values in everything.items()
    }
    return results, found


def _panels(
    data: EncoderDecoderDataModule, found: list[np.ndarray]
) -> tuple[list[figures.Panel], figures.Axes]:
    """Pick the best, the median and the worst test event by RMSE."""
    target, driver = data.source.roles.target[0], data.source.roles.known[0]
    units = data.source.units
    panels = []
    for row, forecast in zip(data.test.rows, found, strict=True):
        truth, values = row.event.columns[target], to_units(data, forecast)[:, 0]
        rmse = Score.of(truth[row.split :], values).rmse
        panels.append(
            (rmse, figures.Panel("", row.event.time, row.event.columns[driver], truth, values), row)
        )
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
