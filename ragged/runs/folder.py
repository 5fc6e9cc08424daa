"""The folder of a run: its configuration, and what is opened from it again."""

from __future__ import annotations

import inspect
import json
import math
import pkgutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ragged.backend import get_backend
from ragged.data import EncoderDecoderDataModule, Normalization
from ragged.errors import CheckpointError, ConfigError, DataError, RaggedError
from ragged.io import checkpoint
from ragged.io.checkpoint import Checkpoint
from ragged.runs.config import load_config
from ragged.runs.parser import parse, parts_parser
from ragged.training.objective import Objective
from ragged.training.state import TrainState
from ragged.training.trainer import TrainerConfig

RECORDED = ("epoch", "train_loss", "validation_loss", "seconds", "tokens_per_second")


@dataclass(frozen=True)
class Run:
    """A run folder opened for reading: its data, its trainer, its best model."""

    folder: Path
    config: Any
    data: EncoderDecoderDataModule
    trainer: TrainerConfig
    module: Any
    normalization: dict[str, Any]
    epoch: int  # of the best model, the first is 1

    @property
    def data_section(self) -> dict[str, Any]:
        """What the run's configuration says of its data, plain values."""
        found: dict[str, Any] = load_config(self.folder / "config.yaml")["data"]
        return found


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
    """Write the complete configuration, which can be run again."""
    kept = config.clone()
    kept.pop("config", None)
    kept.pop("resume", None)
    checkpoint.write_file(folder / "config.yaml", parser.dump(kept).encode())


def read_config(folder: Path, parser: Any) -> Any:
    """Parse a run's configuration again, under the same restrictions as a user's."""
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(
            f"run: {str(folder)!r} holds no config.yaml; expected the folder of a run. "
            "It was printed when the run started: runs/<name>/<time>."
        )
    return parse(parser, load_config(folder / "config.yaml"))


def instantiate(config: Any, parser: Any) -> Any:
    """Build what a parsed configuration describes.

    Raises:
        ConfigError: a value that a constructor refuses.
    """
    if config.seed < 0:
        raise ConfigError.of("config:", "seed", config.seed, "0 or more", "Raise it.")
    try:
        settle(config)
        return parser.instantiate(config)
    except RaggedError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config: {error}") from error


def settle(config: Any) -> None:
    """Fill in what follows from the rest of a configuration, so that nobody has to say it.

    A model without a static input gets static columns as known ones, and a model has as many
    outputs as the targets of the data and the loss need, unless another number is given.
    """
    kind = pkgutil.resolve_name(config.model.class_path)
    arguments = inspect.signature(kind).parameters
    data, model = config.data.init_args, config.model.init_args
    if data.get("repeat_static", False) is None:
        data.repeat_static = "static_features" not in arguments
    if model.get("output_size") == arguments["output_size"].default:
        parts = open_parts(config)
        objective = Objective.chosen(parts.trainer.loss, parts.trainer.quantiles, kind.describe)
        model.output_size = parts.data.target_features * objective.outputs


def open_run(folder: Path, parser: Any) -> Run:
    """Open a run's best model with the chosen backend, whichever wrote it."""
    config = read_config(folder, parser)
    saved = checkpoint.read(folder / "checkpoints" / "best")
    parts = open_parts(config)
    module = saved.create_model(get_backend())
    parts.data.encoder_alignment = module.config.encoder_alignment
    parts.data.decoder_alignment = module.config.decoder_alignment
    normalization = _normalization(saved, parts.data.source.roles.columns)
    epoch = TrainState.from_dict(saved.state.get("training")).epoch
    return Run(folder, config, parts.data, parts.trainer, module, normalization, epoch)


def _normalization(saved: Checkpoint, columns: tuple[str, ...]) -> dict[str, Any]:
    """The normalisation that the model was trained with, checked to have every column."""
    found = saved.section("normalization")
    try:
        missing = set(columns) - set(Normalization.from_dict(found).chains)
    except DataError as error:
        raise saved.refuse("normalization", found, "the transforms of each column") from error
    if missing:
        raise saved.refuse(f"normalization.{min(missing)}", None, "the transforms of the column")
    return found


def open_parts(config: Any) -> Any:
    """Build data and trainer alone: a new model would ask the training data for its sizes."""
    from jsonargparse import Namespace

    return parts_parser().instantiate(Namespace(data=config.data, trainer=config.trainer))


def save_versions(folder: Path, environment: dict[str, str]) -> None:
    """Write what the run is trained with, the last time it was gone on with."""
    content = json.dumps(environment, indent=2) + "\n"
    checkpoint.write_file(folder / "versions.json", content.encode())


def read_versions(folder: Path) -> dict[str, str]:
    """Read what the run was trained with."""
    return _json(folder / "versions.json", _read(folder / "versions.json"))


def read_scores(folder: Path) -> dict[str, Any]:
    """Read the scores of a finished run."""
    found = _json(folder / "scores.json", _read(folder / "scores.json"))
    if not isinstance(found.get("targets"), dict):
        raise CheckpointError(
            f"run: {str(folder / 'scores.json')!r} holds no scores by target; expected what "
            "training writes. Train the run again with this release of ragged."
        )
    return found


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the records of all epochs; what was not finite is NaN.

    Raises:
        CheckpointError: there is none, or one that training did not write.
    """
    path = folder / "metrics.jsonl"
    records = [_json(path, line) for line in _read(path).splitlines()]
    if not records:
        raise _damaged(path, "no epoch in it")
    return [_record(path, record) for record in records]


def _record(path: Path, record: dict[str, Any]) -> dict[str, Any]:
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
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, f"it holds a {type(found).__name__}, no mapping")
    return found


def _damaged(path: Path, why: str) -> CheckpointError:
    got, remedy = f"damaged or truncated ({why})", "Restore it, or train the run again."
    return CheckpointError.of("run:", path, got, "the file as training wrote it", remedy)
