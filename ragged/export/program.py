"""Exported models: a program in a file, called with NumPy arrays by name.

    past             (batch, encoder_time, past_features)
    future           (batch, decoder_time, future_features)
    encoder_lengths  (batch,)
    decoder_lengths  (batch,)
    static           (batch, static_features), of a model that has some

It returns `(batch, decoder_time, output_size)`, exactly 0 at padding. Batch and widths are open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ragged.backend import load_backend
from ragged.errors import ArtefactError, MissingExtraError, OptionError, ShapeError
from ragged.lengths import check_lengths
from ragged.protocol import Backend

REQUIRED = {"past", "future", "encoder_lengths", "decoder_lengths"}
LENGTHS_DTYPE = "int32"


class Format(NamedTuple):
    """The backend that writes a format, and the file name of its models."""

    backend: str
    file: str


FORMATS = {
    "onnx": Format("torch", "model.onnx"),
    "torch": Format("torch", "model.pt2"),
    "stablehlo": Format("jax", "model.stablehlo"),
}


class Input(NamedTuple):
    """One input of a program: its shape, where a name is an open axis, and its dtype."""

    shape: tuple[str | int, ...]
    dtype: str


def inputs_of(config: Any, dtype: str) -> dict[str, Input]:
    """Describe the inputs of a model's program.

    Args:
        config: the model's description.
        dtype: of the model, "float32" or "float64".

    >>> import ragged
    >>> model = ragged.models.XTFT.describe(3, 2)
    >>> inputs_of(model, "float32")["past"]
    Input(shape=('batch', 'encoder_time', 3), dtype='float32')
    """
    inputs = {
        "past": Input(("batch", "encoder_time", config.past_features), dtype),
        "future": Input(("batch", "decoder_time", config.future_features), dtype),
        "encoder_lengths": Input(("batch",), LENGTHS_DTYPE),
        "decoder_lengths": Input(("batch",), LENGTHS_DTYPE),
    }
    count = getattr(config, "static_features", 0)
    return {**inputs, "static": Input(("batch", count), dtype)} if count else inputs


@dataclass(frozen=True)
class Exported:
    """A program that was read from a file; calling it forecasts.

    Args:
        run: the function of the checked arrays by name; no axis of theirs is empty.
        inputs: those that the program declares.

    Raises:
        ArtefactError: it takes other inputs than a forecasting model.
    """

    run: Callable[[dict[str, np.ndarray]], np.ndarray]
    inputs: Mapping[str, Input]

    def __post_init__(self) -> None:
        if self.inputs.keys() - {"static"} != REQUIRED:
            raise ArtefactError(
                f"load_exported(): the program takes {sorted(self.inputs)}; expected "
                f"{sorted(REQUIRED)}, and static perhaps. Export a forecasting model."
            )

    def __call__(
        self,
        *,
        past: Any,
        future: Any,
        encoder_lengths: Any = None,
        decoder_lengths: Any = None,
        static: Any = None,
    ) -> np.ndarray:
        """Forecast `(batch, decoder_time, output_size)`; without lengths every row is full.

        Raises:
            ShapeError: an array of another shape than the program takes, or statics that it does
                not have.
            LengthsError: lengths that do not belong to the arrays.
        """
        arguments = {"past": past, "future": future}
        if self._takes_statics(static):
            arguments["static"] = static
        arrays = {name: self._array(name, value) for name, value in arguments.items()}
        batch, width = arrays["future"].shape[:2]
        for name, values in arrays.items():
            _check_rows(name, len(values), batch)
        sides = (("past", "encoder", encoder_lengths), ("future", "decoder", decoder_lengths))
        for side, kind, lengths in sides:
            steps = arrays[side].shape[1]
            counts = [steps] * batch if lengths is None else lengths
            valid_lengths = check_lengths(counts, steps, function="exported model")
            _check_rows(f"{kind}_lengths", len(valid_lengths), batch)
            arrays[f"{kind}_lengths"] = valid_lengths.astype(self.inputs[f"{kind}_lengths"].dtype)
        output = self.run({name: _pad_empty_axes(arrays[name]) for name in self.inputs})
        return output[:batch, :width]

    def forecast_batch(self, batch: Any) -> np.ndarray:
        """Forecast a batch of `ragged.data`, in the alignment that the model takes."""
        return self(
            past=batch.past,
            future=batch.future,
            encoder_lengths=batch.encoder_lengths,
            decoder_lengths=batch.decoder_lengths,
            static=batch.static,
        )

    def _takes_statics(self, static: Any) -> bool:
        takes = "static" in self.inputs
        if takes != (static is not None):
            got, expected = ("missing", "given") if takes else ("given", "left out")
            remedy = "Feed the program with the inputs that it was exported with."
            raise ShapeError.of("exported model", "static", got, expected, remedy)
        return takes

    def _array(self, name: str, value: Any) -> np.ndarray:
        shape, dtype = self.inputs[name]
        array = np.asarray(value, dtype)
        fits = array.ndim == len(shape) and all(
            size == actual or not isinstance(size, int)
            for size, actual in zip(shape, array.shape, strict=True)
        )
        if not fits:
            expected = f"({', '.join(map(str, shape))})"
            remedy = "Give the columns that the model was trained with, in their order."
            raise ShapeError.of("exported model", name, f"of shape {array.shape}", expected, remedy)
        return array


def check_format(backend: Backend, format: str) -> None:
    """Refuse a format that a backend does not write.

    Raises:
        OptionError: an unknown format, or another backend's.
    """
    if format not in backend.export_formats:
        expected = f"one of {backend.export_formats}, which backend {backend.name!r} writes"
        remedy = "Name one, or take the backend that has the format."
        raise OptionError.of("export_model", "format", repr(format), expected, remedy)


def load_exported(path: Path, *, format: str) -> Exported:
    """Read a program, importing only what its format needs: onnxruntime, or its framework.

    Args:
        path: the file.
        format: one of `FORMATS`.

    Raises:
        ArtefactError: the file is not of that format.
        MissingExtraError: the package that reads it is not installed.
        BackendError: the framework that runs it is not installed.
    """
    if format == "onnx":
        return load_onnx(path)
    return load_backend(FORMATS[format].backend).load_exported(path, format=format)


def load_onnx(path: Path) -> Exported:
    """Read an ONNX file with onnxruntime, on the CPU; no framework is needed.

    Raises:
        ArtefactError, MissingExtraError: as `load_exported`.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra(path, "onnxruntime") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no type
        raise damaged(path, error) from error
    dtypes = {"tensor(float)": "float32", "tensor(double)": "float64"}
    inputs = {
        node.name: Input(tuple(node.shape), dtypes.get(node.type, node.type[len("tensor(") : -1]))
        for node in session.get_inputs()
    }

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray(session.run(None, arrays)[0])

    return Exported(run, inputs)


def missing_extra(path: Path, package: str) -> MissingExtraError:
    """Compose the error for a package that is not installed."""
    expected, remedy = package, "Install the extra: pip install 'ragged-sequences[export]'."
    return MissingExtraError.of("export", "format", path.suffix, expected, remedy)


def damaged(path: Path, error: object) -> ArtefactError:
    """Compose the error for a file that cannot be read."""
    text = str(error).strip().partition("\n")[0][:200]
    got, expected = f"damaged or of another format ({text})", "the file as export_model() wrote it"
    return ArtefactError.of("load_exported", path, got, expected, "Export the model again.")


def _check_rows(name: str, rows: int, batch: int) -> None:
    if rows != batch:
        got, expected = f"of {rows} rows", f"{batch}, as `future` has"
        remedy = "Give all inputs of the same batch."
        raise ShapeError.of("exported model", name, got, expected, remedy)


def _pad_empty_axes(array: np.ndarray) -> np.ndarray:
    """Pad an empty batch or width to one row or step: open axes begin at 1."""
    return np.pad(array, [(0, int(not size)) for size in array.shape])
