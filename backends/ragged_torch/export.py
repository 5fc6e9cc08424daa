"""Forecasting models as programs of torch or ONNX: one for every batch size and width, on torch."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ragged.backend import load_backend
from ragged.errors import OptionError
from ragged.export.program import (
    Exported,
    Input,
    check_format,
    damaged,
    inputs_of,
    load_onnx,
    missing_extra,
)
from ragged.io.atomic import write_file
from ragged.models.quantiles import sort_quantiles
from ragged_torch.archives import without_code
from ragged_torch.arrays import name, to_numpy, xp

export_formats = ("torch", "onnx")
EXAMPLE = {"batch": 2, "encoder_time": 3, "decoder_time": 4}  # sizes to record with; all are open


class _Forecaster(nn.Module):
    """A copy of a model in inference mode that returns only the forecast, its quantiles sorted."""

    def __init__(self, model: nn.Module, quantiles: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.quantiles = quantiles
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)

    def forward(
        self,
        past: Tensor,
        future: Tensor,
        encoder_lengths: Tensor,
        decoder_lengths: Tensor,
        static: Tensor | None = None,
    ) -> Tensor:
        extra = {} if static is None else {"static": static}
        output: Tensor = self.model(past, future, encoder_lengths, decoder_lengths, **extra).output
        return sort_quantiles(xp, output, self.quantiles, _sort) if self.quantiles else output


def _sort(x: Tensor) -> Tensor:
    """Sort the last axis; ONNX has no stable sort, which `xp.sort` is."""
    return x.sort(-1).values


def export_model(
    module: nn.Module, path: Path, *, format: str, quantiles: tuple[float, ...] = ()
) -> None:
    """Write a forecasting model's inference as one file, whole or not at all, for the CPU.

    "torch" is a program of `torch.export`, which calls the operator that `ragged_torch` registers;
    "onnx" needs nothing of `ragged`. The module is left as it is. If its outputs are `quantiles`,
    the program sorts those of each target.

    Raises:
        OptionError: another format; for "onnx" parameters that are not of float32.
        MissingExtraError: "onnx" without onnx or onnxscript.

    Example:
        >>> import tempfile, ragged
        >>> with ragged.use_backend("torch"):
        ...     model = ragged.models.EncoderDecoderLSTM(2, 1, hidden_size=4, seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_model(model, Path(folder) / "model.pt2", format="torch")
        ...     run = load_exported(Path(folder) / "model.pt2", format="torch")
        >>> run(past=np.ones((3, 5, 2)), future=np.ones((3, 6, 1)), decoder_lengths=[6, 2, 0]).shape
        (3, 6, 1)
    """
    check_format(load_backend(name), format)
    path, write = Path(path), _to_pt2
    if format == "onnx":
        write = _onnx_writer(path)
        _check_onnx(module)
    program = record(module, quantiles)
    write_file(path, write(program, _inputs(program)))


def load_exported(path: Path, *, format: str) -> Exported:
    """Read a program, to be called with NumPy arrays.

    Nothing of the file is run before it has been checked: see `archives`.

    Raises:
        OptionError, MissingExtraError: as `export_model`.
        ArtefactError: the file holds no such program, or more than one.
    """
    check_format(load_backend(name), format)
    if format == "onnx":
        return load_onnx(Path(path))
    try:
        program = torch.export.load(io.BytesIO(without_code(Path(path).read_bytes())))
        inputs = _inputs(program)
    except OSError:
        raise
    except Exception as error:  # its reader's errors share no type
        raise damaged(Path(path), error) from error
    module = program.module()

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            return to_numpy(module(**{n: torch.from_numpy(array) for n, array in arrays.items()}))

    return Exported(run, inputs)


def onnx_translations() -> dict[Any, Any]:
    """Return the `custom_translation_table` with which torch exports our layers.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.

    Example:
        >>> [str(operator) for operator in onnx_translations()]  # of torch.onnx.export(dynamo=True)
        ['ragged.recurrent_layer.default']
    """
    try:
        from ragged_torch.onnx_files import translations
    except ImportError as error:
        raise missing_extra(Path("model.onnx"), "onnx and onnxscript") from error
    return translations()


def record(module: nn.Module, quantiles: tuple[float, ...] = ()) -> torch.export.ExportedProgram:
    """Record a model's inference for every batch size and width."""
    dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
    open_axes = {axis: torch.export.Dim(axis) for axis in EXAMPLE}
    example, shapes = {}, {}
    for argument, (axes, kind) in inputs_of(module.config, dtype).items():
        sizes = [EXAMPLE[axis] if isinstance(axis, str) else axis for axis in axes]
        example[argument] = torch.ones(sizes, dtype=getattr(torch, kind))
        shapes[argument] = {i: open_axes[a] for i, a in enumerate(axes) if isinstance(a, str)}
    with torch.no_grad():
        return torch.export.export(
            _Forecaster(module, quantiles), (), example, dynamic_shapes=shapes, strict=False
        )


def _inputs(program: torch.export.ExportedProgram) -> dict[str, Input]:
    """Return a program's inputs, with open axes named as by `inputs_of`."""
    recorded = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    inputs = {}
    for argument in map(str, program.graph_signature.user_inputs):
        value = recorded[argument]
        time = {"past": "encoder_time", "future": "decoder_time"}.get(argument, "")
        axes = zip(value.shape, ("batch", time, "features"), strict=False)
        shape = tuple(size if isinstance(size, int) else axis for size, axis in axes)
        inputs[argument] = Input(shape, str(value.dtype).removeprefix("torch."))
    return inputs


def _to_pt2(program: torch.export.ExportedProgram, inputs: dict[str, Input]) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def _onnx_writer(path: Path) -> Any:
    try:
        from ragged_torch.onnx_files import to_onnx
    except ImportError as error:
        raise missing_extra(path, "onnx and onnxscript") from error
    return to_onnx


def _check_onnx(module: nn.Module) -> None:
    dtype = next(module.parameters()).dtype
    if dtype != torch.float32:
        expected = "float32, the only dtype of ONNX's LSTM in onnxruntime"
        remedy = "Write module.float(), or export with format='torch'."
        raise OptionError.of("export_model", "module", f"of {dtype}", expected, remedy)
