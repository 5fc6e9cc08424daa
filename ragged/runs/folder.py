"""The folder of a run: reading and writing its files."""

from __future__ import annotations

import inspect
import json
import math
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ragged.backend import get_backend, use_backend
from ragged.data import EncoderDecoderDataModule, Normalization, Source
from ragged.errors import CheckpointError, ConfigError, DataError
from ragged.io import checkpoint
from ragged.io.checkpoint import Checkpoint
from ragged.io.safe_json import finite_or_none
from ragged.models import MODELS, Model
from ragged.runs.config import check_class_paths, load_config
from ragged.runs.parser import build, parse, parts_parser
from ragged.runs.trained import CreateSource, TrainedModel
from ragged.runs.versions import describe_environment
from ragged.training.objective import Objective
from ragged.training.state import TrainState

RECORDED = ("epoch", "train_loss", "validation_loss", "seconds", "tokens_per_second")


@dataclass(frozen=True)
class Run(TrainedModel):
    """An opened run folder: its data, its trainer, its best model.

    Args:
        folder: the path.
        written: the configuration in it, as plain values.
    """

    folder: Path
    written: dict[str, Any]


def create_folder(runs: Path, name: str) -> Path:
    """Make `runs/<name>/<time>`; a second run within a second gets a number."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"_{n}" for n in range(2, 100))):
        folder = runs / name / f"{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise CheckpointError(f"train: {str(runs / name)!r} holds too many runs of this second.")


def save_config(folder: Path, parser: Any, config: Any) -> None:
    """Write the complete configuration, which reproduces the run."""
    saved = config.clone()
    saved.pop("config", None)
    saved.pop("resume", None)
    text = parser.dump(saved, skip_unset=False)  # null is a value: no limit of gradients, say
    checkpoint.write_file(folder / "config.yaml", text.encode())


def read_config(folder: Path, parser: Any) -> Any:
    """Parse a run's configuration again, under the same restrictions as a user's."""
    return parse(parser, _load_written(folder))


def _load_written(folder: Path) -> dict[str, Any]:
    """Read a run's configuration into plain values, and import nothing that it names."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise CheckpointError(
            f"run: {str(folder)!r} holds no config.yaml; expected the folder of a run. "
            "It was printed when the run started: runs/<name>/<time>."
        )
    written = load_config(path)
    check_class_paths(path, written)
    return written


def instantiate(config: Any, parser: Any, create_source: CreateSource | None = None) -> Any:
    """Build the objects of a parsed configuration, and read its data at most once.

    Args:
        config: as `parse` gives it; what follows from the data is set in it.
        parser: that parsed it.
        create_source: builds the source of a class and its arguments, in place of the class.

    Raises:
        RaggedError: a value that a constructor refuses, or data that cannot be read.
    """
    if config.seed < 0:
        raise ConfigError.of("config:", "seed", config.seed, "0 or more", "Raise it.")
    parts = Path(config.name).parts
    if not parts or ".." in parts or Path(config.name).is_absolute():
        expected, remedy = "that of a folder in `runs`", "Name that folder by `runs`."
        raise ConfigError.of("config:", "name", repr(config.name), expected, remedy)
    data = resolve_defaults(config, create_source)
    built = [_instead(data.source, Source), _instead(data, EncoderDecoderDataModule)]
    return build(parser, config, built)


def _instead(built: object, kind: type) -> tuple[Any, type, bool]:
    """Have the parser take an object in place of a new one of its kind."""
    return lambda *_, **__: built, kind, True


def resolve_defaults(
    config: Any, create_source: CreateSource | None = None
) -> EncoderDecoderDataModule:
    """Set the arguments that follow from the rest of a configuration, and from the data.

    What the data decide on, in their source and of their windows, is kept. A model without a static
    input gets static columns as known ones, has as many outputs as the targets of the data and the
    loss need, and normalises rows as suits the loss, unless told otherwise.

    Returns:
        The data, read as far as was needed.

    Raises:
        ConfigError: the base class of all models is named.
    """
    model_class = pkgutil.resolve_name(config.model.class_path)
    if model_class is Model:
        got, expected = config.model.class_path, f"one of {list(MODELS)}"
        raise ConfigError.of("config:", "model.class_path", got, expected, "Name one of them.")
    arguments = inspect.signature(model_class).parameters
    data, model = config.data.init_args, config.model.init_args
    if data.get("repeat_static", False) is None:
        data.repeat_static = "static_features" not in arguments
    parts = open_parts(config, create_source)
    for name, value in parts.data.source.resolved.items():
        data.source.init_args[name] = value
    for name, value in parts.data.resolved.items():
        data[name] = value
    trainer = parts.trainer
    objective = Objective.chosen(trainer.loss, trainer.quantiles, model_class.describe)
    if model.get("output_size") == arguments["output_size"].default:
        model.output_size = parts.data.target_features * objective.outputs
    if model.get("row_normalization") is None:
        model.row_normalization = objective.row_normalization
    return parts.data  # type: ignore[no-any-return]


@contextmanager
def open_run(folder: Path, parser: Any, backend: str | None = None) -> Iterator[Run]:
    """Choose a backend inside a `with` block, and open a run with its best model on it.

    Its data have the normalisation that the model was trained with, whatever became of the files.

    Args:
        folder: the path.
        parser: of the command line.
        backend: its name; by default the one that trained the run.

    Raises:
        CheckpointError, ConfigError: no run, or a damaged one.
    """
    written = _load_written(folder)
    config = parse(parser, written)
    with use_backend(backend or config.backend) as chosen:
        saved = checkpoint.read(folder / "checkpoints" / "best")
        parts = open_parts(config)
        module = saved.create_model(chosen)
        parts.data.encoder_alignment = module.config.encoder_alignment
        parts.data.decoder_alignment = module.config.decoder_alignment
        parts.data.normalization = _saved_normalization(saved, parts.data.source.roles.columns)
        epoch = TrainState.from_dict(saved.state.get("training")).epoch
        yield Run(config, parts.data, parts.trainer, module, saved, epoch, folder, written)


def _saved_normalization(saved: Checkpoint, columns: tuple[str, ...]) -> Normalization:
    """Return the normalisation of the training; refuse one that lacks one of the columns."""
    section = saved.section("normalization")
    try:
        normalization = Normalization.from_dict(section)
    except DataError as error:
        raise saved.refuse("normalization", section, "the transforms of each column") from error
    for column in columns:
        if column not in normalization.chains:
            raise saved.refuse(f"normalization.{column}", None, "the transforms of the column")
    return normalization


def open_parts(config: Any, create_source: CreateSource | None = None) -> Any:
    """Build data and trainer alone: a new model would read the training data for its sizes."""
    from jsonargparse import Namespace

    parts = Namespace(data=config.data, trainer=config.trainer)
    instantiators = None if create_source is None else [(create_source, Source, True)]
    return build(parts_parser(), parts, instantiators)


def save_run(folder: Path, parser: Any, model: TrainedModel, records: list[dict[str, Any]]) -> None:
    """Write a model that was trained in memory as the folder of a run, without scores.

    Raises:
        CheckpointError: a folder with something else in it.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.yaml").is_file():
        expected, remedy = "a new folder, or one of a run", "Name another folder."
        raise CheckpointError.of("save:", folder, "in use", expected, remedy)
    folder.mkdir(parents=True, exist_ok=True)
    save_config(folder, parser, model.config)
    (folder / "checkpoints").mkdir(exist_ok=True)
    checkpoint.write(folder / "checkpoints" / "best", replace(model.saved, optimizer=None))
    plain = [{name: finite_or_none(value) for name, value in r.items()} for r in records]
    lines = "".join(f"{json.dumps(record)}\n" for record in plain)
    checkpoint.write_file(folder / "metrics.jsonl", lines.encode())
    save_versions(folder, describe_environment(model.trainer.pick_device(get_backend())))


def save_versions(folder: Path, environment: dict[str, str]) -> None:
    """Write the versions of the packages that trained or last resumed the run."""
    content = json.dumps(environment, indent=2) + "\n"
    checkpoint.write_file(folder / "versions.json", content.encode())


def read_versions(folder: Path) -> dict[str, str]:
    """Read the versions of the packages that trained the run."""
    return _json(folder / "versions.json", _read(folder / "versions.json"))


def read_scores(folder: Path) -> dict[str, Any]:
    """Read the scores of a finished run."""
    scores = _json(folder / "scores.json", _read(folder / "scores.json"))
    if not isinstance(scores.get("targets"), dict):
        raise CheckpointError(
            f"run: {str(folder / 'scores.json')!r} holds no scores by target; expected what "
            "training writes. Train the run again with this release of ragged."
        )
    return scores


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the records of all epochs; what was not finite is NaN.

    Raises:
        CheckpointError: there is none, or one that training did not write.
    """
    path = folder / "metrics.jsonl"
    records = [_json(path, line) for line in _read(path).splitlines()]
    if not records:
        raise _damaged(path, "no epoch in it")
    return [_check_record(path, record) for record in records]


def _check_record(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    for name in RECORDED:
        if name not in record:
            raise _damaged(path, f"a record without {name!r}")
        value = record[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise _damaged(path, f"{name!r} of a record is {value!r:.40}")
    return {name: math.nan if value is None else value for name, value in record.items()}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"run: {str(path)!r} cannot be read ({error}); expected the folder of a run that "
            "was trained to its end. Go on with it: ragged train --resume RUN."
        ) from error


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise _damaged(path, f"it holds a {type(value).__name__}, no mapping")
    return value


def _damaged(path: Path, reason: str) -> CheckpointError:
    got, remedy = f"damaged or truncated ({reason})", "Restore it, or train the run again."
    return CheckpointError.of("run:", path, got, "the file as training wrote it", remedy)
