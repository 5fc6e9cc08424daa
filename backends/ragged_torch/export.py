"""Models for deployment: a file that runs without the model's code, by torch or as ONNX."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ragged.backend import load_backend
from ragged.errors import MissingExtraError, OptionError, ShapeError, refusal
from ragged.lengths import Lengths
from ragged_torch.arrays import name as torch_name
from ragged_torch.arrays import to_numpy

FORMATS = ("torch", "onnx")
BATCH, PAST, FUTURE = 2, 3, 4  # of the example that is recorded; a program keeps none of them

Path = str | PathLike[str]
Exported = Callable[..., np.ndarray]


class _Forecaster(nn.Module):
    """A model in inference mode that returns its forecast alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)

    def forward(
        self,
        past: Tensor,
        future: Tensor,
        encoder_lengths: Tensor,
        decoder_lengths: Tensor,
        static: Tensor | None = None,
    ) -> Tensor:
        given = {} if static is None else {"static": static}
        return self.model(past, future, encoder_lengths, decoder_lengths, **given).output


def export_model(module: nn.Module, path: Path, *, format: str) -> None:
    """Write a forecasting model's inference into one file, on the CPU, in the module's dtype.

    The program takes `past (batch, encoder_time, past_features)`, `future (batch, decoder_time,
    future_features)`, `encoder_lengths` and `decoder_lengths (batch,)` of int64, and `static
    (batch, static_features)` where the model has any; a batch of 1 or more, times of 1 or more. It
    returns `output (batch, decoder_time, output_size)`. Padding may hold anything. The module is
    left as it is.

    Args:
        module: one of `ragged.models` on torch.
        path: the file to write.
        format: "torch", a program of `torch.export` that needs `ragged_torch` to be imported, or
            "onnx", which needs nothing of `ragged`.

    Raises:
        OptionError: an unknown format; for "onnx" parameters that are not of float32.
        MissingExtraError: "onnx" without its packages.

    Example:
        >>> import tempfile, numpy as np, ragged
        >>> with ragged.use_backend("torch"):
        ...     model = ragged.models.EncoderDecoderLSTM(2, 1, hidden_size=4, seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_model(model, folder + "/model.pt2", format="torch")
        ...     run = load_exported(folder + "/model.pt2", format="torch")
        >>> lengths = {"encoder_lengths": [5, 0, 1], "decoder_lengths": [6, 2, 0]}
        >>> run(past=np.ones((3, 5, 2)), future=np.ones((3, 6, 1)), **lengths).shape
        (3, 6, 1)
    """
    _check_format("export_model", format)
    if format == "torch":
        torch.export.save(record(module), fspath(path))
        return
    onnx = _onnx()
    dtype = next(module.parameters()).dtype
    if dtype != torch.float32:
        raise OptionError(
            refusal(
                "export_model",
                "module",
                f"of {dtype}",
                "float32, the only dtype of ONNX's LSTM in onnxruntime",
                "Write module.float(), or export with format='torch'.",
            )
        )
    onnx.write(record(module), fspath(path))


def load_exported(path: Path, *, format: str) -> Exported:
    """Read what `export_model` wrote: a function of NumPy arrays by name, to NumPy.

    `run(past=, future=, encoder_lengths=, decoder_lengths=[, static=])` returns `output`.

    Args:
        path: the file.
        format: the one it was written in.

    Raises:
        OptionError: an unknown format. The function itself refuses other names than the program's
            (OptionError) and lengths that are not those of its arrays (LengthsError, ShapeError).
        MissingExtraError: "onnx" without onnxruntime.
    """
    _check_format("load_exported", format)
    names, run = _load_torch(path) if format == "torch" else _onnx().load(fspath(path))

    def call(**arrays: Any) -> np.ndarray:
        return run(_checked(names, arrays))

    return call


def record(module: nn.Module) -> torch.export.ExportedProgram:
    """Record a model's inference for every batch and every width."""
    config: Any = module.config
    weight = next(module.parameters())
    batch, past, future = (torch.export.Dim(n) for n in ("batch", "encoder_time", "decoder_time"))
    inputs: dict[str, tuple[Tensor, dict[int, Any]]] = {
        "past": (torch.zeros(BATCH, PAST, config.past_features), {0: batch, 1: past}),
        "future": (torch.zeros(BATCH, FUTURE, config.future_features), {0: batch, 1: future}),
        "encoder_lengths": (torch.full((BATCH,), PAST), {0: batch}),
        "decoder_lengths": (torch.full((BATCH,), FUTURE), {0: batch}),
    }
    if getattr(config, "static_features", 0):
        inputs["static"] = (torch.zeros(BATCH, config.static_features), {0: batch})
    example = {
        name: value.to(weight.dtype) if value.is_floating_point() else value
        for name, (value, _) in inputs.items()
    }
    shapes = {name: dims for name, (_, dims) in inputs.items()}
    with torch.no_grad():
        return torch.export.export(
            _Forecaster(module), (), example, dynamic_shapes=shapes, strict=False
        )


def _load_torch(path: Path) -> tuple[dict[str, np.dtype[Any]], Callable[..., np.ndarray]]:
    program = torch.export.load(fspath(path))
    recorded = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    names = {
        name: np.dtype(str(recorded[name].dtype).removeprefix("torch."))
        for name in program.graph_signature.user_inputs
        if isinstance(name, str)
    }
    module = program.module()

    def run(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            return to_numpy(module(**{n: torch.from_numpy(array) for n, array in arrays.items()}))

    return names, run


def _checked(names: Mapping[str, np.dtype[Any]], given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Refuse what a program would only stumble over, and give each input its dtype."""
    if given.keys() != names.keys():
        raise OptionError(
            refusal(
                "exported model",
                "inputs",
                f"named {sorted(given)}",
                f"{sorted(names)}",
                "Give each input of the program by its name.",
            )
        )
    arrays = {name: np.asarray(value) for name, value in given.items()}
    for side, name in (("past", "encoder_lengths"), ("future", "decoder_lengths")):
        if arrays[side].ndim != 3:
            got, expected = f"of shape {arrays[side].shape}", "(batch, time, features)"
            raise ShapeError(
                refusal("exported model", side, got, expected, "Add a batch axis with x[None].")
            )
        width, backend = arrays[side].shape[1], load_backend(torch_name)
        batch = len(arrays["past"])
        checked = Lengths.of(arrays[name], width, backend, function="exported model", batch=batch)
        arrays[name] = checked.host
    return {name: np.array(arrays[name], dtype) for name, dtype in names.items()}


def _check_format(function: str, format: str) -> None:
    if format not in FORMATS:
        expected = f"one of {FORMATS}"
        raise OptionError(refusal(function, "format", repr(format), expected, "Name one."))


def _onnx() -> Any:
    """The module for ONNX, whose packages only those who use it need."""
    try:
        from ragged_torch import onnx_files
    except ImportError as error:
        raise MissingExtraError(
            refusal(
                "export_model",
                "format",
                f"'onnx' without its packages ({error})",
                "onnx, onnxscript and onnxruntime to be installed",
                "pip install 'ragged-sequences[export]'.",
            )
        ) from error
    return onnx_files
