"""Checkpoints: a folder of safetensors, YAML and JSON that every backend reads; no pickle.

    model.safetensors      parameters by canonical name
    optimizer.safetensors  the optimiser's moments, where training goes on
    config.yaml            the model's class path and arguments
    state.json             format version and what else must not be lost

A folder appears whole or not at all: it is written beside its place and renamed into it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragged.backend import Backend, backend_of, get_backend
from ragged.errors import CheckpointError, RaggedError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds, on the host."""

    parameters: dict[str, np.ndarray]
    model: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, np.ndarray] | None = None

    def create_model(self, backend: Backend) -> Any:
        """Build the native module and fill it, after checking every name and shape."""
        module = backend.create_model(_describe(self.model))
        expected = {n: p.shape for n, p in backend.get_parameters(module).items()}
        found = {name: value.shape for name, value in self.parameters.items()}
        wrong = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))
        if wrong:
            raise CheckpointError(
                f"load(): tensor {wrong[0]!r} has shape {found.get(wrong[0])}; the configured "
                f"model has {expected.get(wrong[0])}. The parameters are of another model; "
                "restore config.yaml and model.safetensors of one checkpoint."
            )
        backend.set_parameters(module, self.parameters)
        return module


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model's parameters and configuration to a folder.

    Args:
        model: a module built by `ragged.models`, of either backend.
        path: the folder; replaced as a whole if it is there.

    Raises:
        CheckpointError: the model carries no configuration of `ragged.models`.
    """
    backend = backend_of("save", model=model)
    if not hasattr(model, "config") or not backend.owns(model):
        raise CheckpointError(
            f"save(): `model` is a {type(model).__name__}; expected a module built by "
            "ragged.models. Save other modules with their framework's own functions."
        )
    write(path, Checkpoint(backend.get_parameters(model), model.config.to_config()))


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model that either backend saved, as a module of the chosen backend.

    Args:
        path: a folder that `save` or a training run wrote.

    Raises:
        CheckpointError: the folder is missing, incomplete, damaged or of another format.
    """
    return read(path).create_model(get_backend())


def write(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint folder, whole or not at all."""
    import yaml
    from safetensors.numpy import save as to_bytes

    files = {
        "model.safetensors": to_bytes(checkpoint.parameters),
        "config.yaml": yaml.safe_dump(checkpoint.model, sort_keys=False).encode(),
        "state.json": json.dumps(
            {"format_version": FORMAT_VERSION, **checkpoint.state}, indent=2
        ).encode(),
    }
    if checkpoint.optimizer is not None:
        files["optimizer.safetensors"] = to_bytes(checkpoint.optimizer)
    _replace_folder(Path(path), files)


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and check a checkpoint folder."""
    import yaml

    folder = _recover(Path(path))
    if not folder.is_dir():
        raise CheckpointError(
            f"load(): {str(folder)!r} is no folder; expected a checkpoint folder with "
            "model.safetensors, config.yaml and state.json. Check the path."
        )
    try:
        state = json.loads(_read_bytes(folder / "state.json"))
        model = yaml.safe_load(_read_bytes(folder / "config.yaml"))
    except (ValueError, yaml.YAMLError) as error:
        raise _damaged(folder, error) from error
    version = state.pop("format_version", None) if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"load(): {str(folder)!r} has format version {version}; expected {FORMAT_VERSION}. "
            "Read it with the release of ragged that wrote it."
        )
    optimizer = folder / "optimizer.safetensors"
    return Checkpoint(
        _read_tensors(folder / "model.safetensors"),
        model,
        state,
        _read_tensors(optimizer) if optimizer.exists() else None,
    )


def has_leftover(path: Path) -> bool:
    """Whether a killed replacement left the old folder aside, which `read` will put back."""
    return _aside(path).exists()


def write_file(path: Path, content: bytes) -> None:
    """Write one file, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def _replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _recover(folder)
    for leftover in folder.parent.glob(f".{folder.name}.new.*"):  # of a write that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new."))
    temporary.chmod(0o755)
    for name, content in files.items():
        write_file(temporary / name, content)
    if folder.exists():
        os.replace(folder, _aside(folder))
    os.replace(temporary, folder)
    shutil.rmtree(_aside(folder), ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _recover(folder: Path) -> Path:
    """Undo a replacement that was killed between its two renames; drop what one left behind."""
    aside = _aside(folder)
    if aside.exists() and not folder.exists():
        os.replace(aside, folder)
    elif aside.exists():
        shutil.rmtree(aside)
    return folder


def _describe(model: Any) -> Any:
    """Return the description that a checkpoint names; only `ragged.models` can be named."""
    from ragged import models

    class_path = model.get("class_path", "") if isinstance(model, dict) else ""
    name = str(class_path).removeprefix("ragged.models.")
    known: dict[str, Any] = {
        n: m for n, m in vars(models).items() if isinstance(m, type) and n in models.__all__
    }
    if name not in known or not issubclass(known[name], models.Model):
        raise CheckpointError(
            f"load(): config.yaml names class_path {class_path!r}; expected a model of "
            "ragged.models. Checkpoints name no other code."
        )
    try:
        return known[name].from_arguments(model.get("init_args") or {})
    except (TypeError, RaggedError) as error:
        raise CheckpointError(
            f"load(): config.yaml does not describe {class_path}: {error} "
            "Restore the config.yaml that was saved with the model."
        ) from error


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        return from_bytes(_read_bytes(path))
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"load(): {path.name} of {str(path.parent)!r} cannot be read ({error.strerror}); "
            "expected a whole checkpoint folder. Restore the folder, or load another checkpoint."
        ) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"load(): {str(path)!r} is damaged or truncated ({error}); expected the file as it was "
        "written. Restore it, or load another checkpoint."
    )
