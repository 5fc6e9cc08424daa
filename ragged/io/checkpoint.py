"""Checkpoints: a folder of safetensors, YAML and JSON that every backend reads; no pickle.

    model.safetensors      parameters by canonical name
    optimizer.safetensors  the optimiser's moments, to resume training
    config.yaml            the model's class path and arguments
    state.json             format version and the state of training

A folder is replaced atomically: it is written beside its path and renamed. Files may come from an
untrusted source: every name, shape, dtype and value is checked before it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragged.backend import backend_of, get_backend
from ragged.checks import as_path
from ragged.errors import CheckpointError, RaggedError
from ragged.io import safe_json
from ragged.io.atomic import has_leftover, read_folder, replace_folder, write_file
from ragged.protocol import Backend

__all__ = ["Checkpoint", "has_leftover", "load", "read", "save", "write", "write_file"]

FORMAT_VERSION = 1
MODEL, OPTIMIZER, CONFIG, STATE = (
    "model.safetensors",
    "optimizer.safetensors",
    "config.yaml",
    "state.json",
)
REQUIRED = {STATE: 2**20, CONFIG: 2**18, MODEL: 2**34}  # at most so many bytes
OPTIONAL = {OPTIMIZER: 2**36}


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint folder, on the host, and its path."""

    parameters: dict[str, np.ndarray]
    model: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, np.ndarray] | None = None
    folder: Path = Path()

    def create_model(self, backend: Backend) -> Any:
        """Build the native module in the parameters' dtype and fill it, after checking them."""
        module = backend.create_model(_describe(self.model))
        expected = backend.get_parameters(module)
        if all(value.dtype == np.float64 for value in self.parameters.values()):
            module = backend.to(module, device="cpu", dtype="float64")
            expected = {name: value.astype(np.float64) for name, value in expected.items()}
        _check_tensors(self.folder / MODEL, self.parameters, expected)
        backend.set_parameters(module, self.parameters)
        return module

    def moments(self, expected: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the optimiser's state.

        Args:
            expected: the state of a fresh optimiser of the same model.

        Raises:
            CheckpointError: it has other names, shapes or dtypes, or is not there.
        """
        if self.optimizer is None:
            raise CheckpointError(
                f"resume: {str(self.folder)!r} holds no {OPTIMIZER}; expected a checkpoint that "
                "training wrote. Start a new run."
            )
        _check_tensors(self.folder / OPTIMIZER, self.optimizer, expected)
        steps = int(self.optimizer["steps"])
        if not 0 <= steps < 2**31:
            raise self.refuse("steps", steps, "0 or more, of at most 31 bits", OPTIMIZER)
        scale = self.optimizer.get("loss_scale", np.ones(2))
        if scale[0] <= 0 or scale[1] < 0:
            raise self.refuse("loss_scale", scale, "above 0, and a count", OPTIMIZER)
        return self.optimizer

    def section(self, name: str) -> dict[str, Any]:
        """Return a mapping of state.json.

        Raises:
            CheckpointError: it is missing or no mapping.
        """
        value = self.state.get(name)
        if not isinstance(value, dict):
            raise self.refuse(name, value, "a mapping, as training writes it")
        return value

    def refuse(self, name: str, got: object, expected: str, file: str = STATE) -> CheckpointError:
        """Compose the error for a value of one of the folder's files."""
        remedy, path = "Restore the file as it was written.", self.folder / file
        return CheckpointError.of("load", name, str(got)[:80], expected, remedy, file=path)


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model's parameters and configuration to a folder.

    Args:
        model: a module built by `ragged.models`, of either backend.
        path: the folder; replaced as a whole if it is there.

    Raises:
        CheckpointError: the model carries no configuration of `ragged.models`, or has parameters
            that are not finite; or `path` holds something else than a checkpoint.

    Example:
        >>> import ragged, tempfile
        >>> folder = tempfile.mkdtemp() + "/model"
        >>> ragged.save(ragged.models.XTFT(1, 1, hidden_size=4), folder)
        >>> sorted(os.listdir(folder))
        ['config.yaml', 'model.safetensors', 'state.json']
    """
    folder, backend = as_path("save", "path", path), backend_of("save", model=model)
    if not hasattr(model, "config") or not backend.owns(model):
        got, expected = f"a {type(model).__name__}", "a module built by ragged.models"
        remedy = "Save other modules with their framework's own functions."
        raise CheckpointError.of("save", "model", got, expected, remedy)
    parameters = backend.get_parameters(model)
    _check_finite("save", folder / MODEL, parameters)
    write(folder, Checkpoint(parameters, model.config.to_config()))


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model that either backend saved, as a module of the chosen backend.

    It is in inference mode: dropout is off until `module.train()` is called.

    Args:
        path: a folder that `save` or a training run wrote.

    Raises:
        CheckpointError: the folder is missing, incomplete, damaged or of another format.

    Example:
        >>> import ragged, tempfile
        >>> model = ragged.models.EncoderDecoderLSTM(1, 1, hidden_size=2, dropout=0.5, seed=0)
        >>> folder = tempfile.mkdtemp() + "/model"
        >>> ragged.save(model, folder)
        >>> loaded, (past, future) = ragged.load(folder), ([[[1.0], [2.0]]], [[[3.0]]])
        >>> bool((loaded(past, future).output == loaded(past, future).output).all())
        True
    """
    module = read(path).create_model(get_backend())
    module.eval()
    return module


def write(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint folder atomically."""
    import yaml
    from safetensors.numpy import save as to_bytes

    files = {
        MODEL: to_bytes(checkpoint.parameters),
        CONFIG: yaml.safe_dump(checkpoint.model, sort_keys=False).encode(),
        STATE: json.dumps(
            {"format_version": FORMAT_VERSION, **checkpoint.state}, indent=2
        ).encode(),
    }
    if checkpoint.optimizer is not None:
        files[OPTIMIZER] = to_bytes(checkpoint.optimizer)
    replace_folder(Path(path), files, marker=STATE)


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and check a checkpoint folder."""
    import yaml

    from ragged.io import safe_yaml

    folder = as_path("load", "path", path)
    files = read_folder(folder, REQUIRED, OPTIONAL)
    try:
        state = safe_json.load(files[STATE])
    except ValueError as error:
        raise _damaged(folder / STATE, error) from error
    try:
        model = safe_yaml.load(files[CONFIG])
    except yaml.YAMLError as error:
        raise _damaged(folder / CONFIG, error) from error
    version = state.pop("format_version", None) if isinstance(state, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(
            f"load(): {str(folder)!r} has format version {str(version)[:80]}; expected "
            f"{FORMAT_VERSION}. Read it with the release of ragged that wrote it."
        )
    tensors = {
        name: _to_tensors(folder / name, files[name])
        for name in (MODEL, OPTIMIZER)
        if name in files
    }
    return Checkpoint(tensors[MODEL], model, state, tensors.get(OPTIMIZER), folder)


def _describe(model: Any) -> Any:
    """Return the description that a checkpoint names; only `ragged.models` can be named."""
    from ragged.models import MODELS

    class_path = model.get("class_path", "") if isinstance(model, dict) else ""
    name = str(class_path).removeprefix("ragged.models.")
    if name not in MODELS:
        raise CheckpointError(
            f"load(): config.yaml names class_path {class_path!r}; expected a model of "
            "ragged.models. Checkpoints name no other code."
        )
    try:
        return MODELS[name].from_arguments(model.get("init_args") or {})
    except (TypeError, RaggedError) as error:
        raise CheckpointError(
            f"load(): config.yaml does not describe {class_path}: {error} "
            "Restore the config.yaml that was saved with the model."
        ) from error


def _to_tensors(path: Path, content: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        return from_bytes(content)
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, error) from error
    except KeyError as error:
        raise _damaged(path, f"dtype {error}") from error


def _check_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> None:
    """Refuse tensors of other names, shapes or dtypes than expected, or with values not finite."""
    for name in sorted({*tensors, *expected}):
        got = _kind(tensors.get(name), "missing")
        expected_kind = _kind(expected.get(name), "no such tensor")
        if got != expected_kind:
            raise CheckpointError(
                f"load(): tensor {name!r} of {str(path)!r} is {got}; the configured model has "
                f"{expected_kind}. The tensors are of another model, or of another precision; "
                f"restore {CONFIG} and {path.name} of one checkpoint."
            )
    _check_finite("load", path, tensors)


def _check_finite(function: str, path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"{function}(): tensor {name!r} of {str(path)!r} holds values that are not "
                "finite; expected numbers. Its training diverged: take an earlier checkpoint."
            )


def _kind(tensor: np.ndarray | None, absent: str) -> str:
    return absent if tensor is None else f"{tensor.dtype} {tensor.shape}"


def _damaged(path: Path, error: object) -> CheckpointError:
    got, remedy = f"damaged or truncated ({error})", "Restore it, or load another checkpoint."
    return CheckpointError.of("load", path, got, "the file as it was written", remedy)
