"""The folder of a run: its configuration, and what is opened from it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ragged import checkpoint
from ragged.backend import get_backend
from ragged.checkpoint import Checkpoint
from ragged.data import EncoderDecoderDataModule
from ragged.data.normalization import Normalization
from ragged.errors import CheckpointError, ConfigError, DataError, RaggedError
from ragged.training.trainer import Trainer


@dataclass(frozen=True)
class Run:
    """A run folder opened for reading: its data, its trainer, its best model."""

    folder: Path
    config: Any
    data: EncoderDecoderDataModule
    trainer: Trainer
    module: Any
    normalization: dict[str, Any]


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
    from ragged.cli import parse
    from ragged.configuration import load_config

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
        raise ConfigError(f"config: `seed` is {config.seed}; expected 0 or more. Raise it.")
    try:
        return parser.instantiate(config)
    except RaggedError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config: {error}") from error


def open_run(folder: Path, parser: Any) -> Run:
    """Open a run's best model with the chosen backend, whichever wrote it."""
    config = read_config(folder, parser)
    saved = checkpoint.read(folder / "checkpoints" / "best")
    parts = open_parts(config)
    module = saved.create_model(get_backend())
    parts.data.encoder_alignment = module.config.encoder_alignment
    normalization = _normalization(saved, parts.data.source.roles.columns)
    return Run(folder, config, parts.data, parts.trainer, module, normalization)


def _normalization(saved: Checkpoint, columns: tuple[str, ...]) -> dict[str, Any]:
    """The normalisation that the model was trained with, checked to have every column."""
    found = saved.section("normalization")
    try:
        missing = set(columns) - set(Normalization.from_dict(found).chains)
    except DataError as error:
        raise saved.refuse(
            "normalization", found, "a mean and transforms of each column"
        ) from error
    if missing:
        raise saved.refuse(f"normalization.{min(missing)}", None, "a mean and transforms")
    return found


def open_parts(config: Any) -> Any:
    """Build data and trainer alone: a new model would ask the training data for its sizes."""
    from jsonargparse import Namespace

    from ragged.cli import parts_parser

    return parts_parser().instantiate(Namespace(data=config.data, trainer=config.trainer))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the records of all epochs.

    Raises:
        CheckpointError: there is none, or one that training did not write.
    """
    path = folder / "metrics.jsonl"
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError, RecursionError):
        records = []
    if not records or not all(map(_is_record, records)):
        raise CheckpointError(
            f"run: {str(path)!r} is missing or damaged; expected a JSON record of numbers on each "
            "line, one for each epoch. Restore the file."
        )
    return records


def _is_record(record: Any) -> bool:
    names = ("epoch", "train_loss", "validation_loss", "seconds")
    return isinstance(record, dict) and all(
        isinstance(record.get(name), (int, float)) for name in names
    )
