"""An exported model as a folder: its program, and a JSON that describes its inputs.

    model.onnx, model.pt2 or model.stablehlo
    model.json  inputs and output, the columns of each in order, their normalisation

Files may come from an untrusted source: every value is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragged.data import EncoderDecoderDataModule, Normalization, RaggedDataset
from ragged.data.sample import POSITION, POSITION_FORMULA
from ragged.errors import ArtefactError, CheckpointError, DataError
from ragged.evaluation.calibration import Calibration
from ragged.evaluation.forecasts import RowForecast, forecast_rows_with
from ragged.export.program import FORMATS, Exported, inputs_of, load_exported
from ragged.io import safe_json
from ragged.runs import aliases
from ragged.runs.config import check_class_paths, check_sections
from ragged.runs.parser import build, parse, parts_parser
from ragged.runs.versions import version_of
from ragged.training.objective import LOSSES, Objective

FORMAT_VERSION = 1
MANIFEST = "model.json"
MAX_BYTES = 2**20  # of the JSON


@dataclass(frozen=True)
class ExportBundle:
    """An exported model opened for forecasting.

    Args:
        program: the program, called with arrays.
        data: its data module, with the normalisation that it was trained with.
        objective: the meaning of its outputs.
        dtype: of its arrays.
        calibration: of its quantiles.
    """

    program: Exported
    data: EncoderDecoderDataModule
    objective: Objective
    dtype: str
    calibration: Calibration | None = None

    def forecast(self, dataset: RaggedDataset) -> list[RowForecast]:
        """Forecast every row of a dataset, in its order, in the units of the targets."""
        predict = self.program.forecast_batch
        given = dataset, self.data, self.objective, self.dtype
        return forecast_rows_with(predict, *given, self.calibration)


def is_bundle(folder: Path) -> bool:
    """Whether a folder is an exported model, and no run."""
    return (folder / MANIFEST).exists()


def describe(
    model: Any,
    data: EncoderDecoderDataModule,
    objective: Objective,
    program: Exported,
    *,
    format: str,
    content: bytes,
    config: Mapping[str, Any],
    normalization: Mapping[str, Any],
    calibration: Calibration | None = None,
) -> bytes:
    """Compose the JSON of an exported model.

    Args:
        model: the model's description.
        data: its data module.
        objective: the meaning of its outputs.
        program: the program as it was read back.
        format: of the program.
        content: of its file.
        config: the `data` section of the run's configuration, from which `ragged` reads tables.
        normalization: of each column, as `Normalization.to_dict` gives it.
        calibration: of its quantiles.
    """
    features = objective.features(data.source.roles.target)
    manifest = {
        "format_version": FORMAT_VERSION,
        "ragged": version_of("ragged-sequences"),
        "model": model.model,
        "format": format,
        "file": FORMATS[format].file,
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": _describe_inputs(model, data, program),
        "output": {
            "shape": ["batch", "decoder_time", len(features)],
            "dtype": program.inputs["past"].dtype,
            "features": features,
            "targets": list(data.source.roles.target),
            "loss": objective.name,
            "quantiles": list(objective.quantiles),
            "calibration": None if calibration is None else calibration.offsets.tolist(),
        },
        "units": data.source.units,
        "normalization": normalization,
        "transforms": data.normalization.formulas,
        "categories": data.source.categories,
        "derived": {POSITION: POSITION_FORMULA} if POSITION in data.roles.known else {},
        "data": config,
    }
    return (json.dumps(manifest, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _describe_inputs(model: Any, data: EncoderDecoderDataModule, program: Exported) -> Any:
    roles = data.roles
    columns = {"past": roles.encoder, "future": roles.decoder, "static": roles.static}
    sides = {"past": model.encoder_alignment, "future": model.decoder_alignment}
    inputs: dict[str, dict[str, Any]] = {}
    for name in inputs_of(model, ""):  # in the order of a call
        shape, dtype = program.inputs[name]
        inputs[name] = {"shape": shape, "dtype": dtype}
        inputs[name] |= {"columns": columns[name]} if name in columns else {}
        inputs[name] |= {"alignment": sides[name]} if name in sides else {}
    return inputs


def open_bundle(folder: Path) -> ExportBundle:
    """Open an exported model.

    Args:
        folder: what `ragged export` wrote.

    Raises:
        ArtefactError: a folder that is incomplete, damaged or foreign.
        MissingExtraError, BackendError: the package that runs the program is not installed.
    """
    fields = _Fields(folder / MANIFEST, _read_manifest(folder / MANIFEST))
    version = fields.take("format_version", int)
    if version != FORMAT_VERSION:
        raise fields.refuse("format_version", version, f"{FORMAT_VERSION}, of this ragged")
    format = fields.take("format", str)
    if format not in FORMATS or fields.take("file", str) != FORMATS[format].file:
        raise fields.refuse("format", format, f"one of {list(FORMATS)} with its file")
    path = folder / FORMATS[format].file
    _check_content(path, fields.take("sha256", str))
    data, objective = _open_data(fields), _open_objective(fields)
    program = load_exported(path, format=format)
    calibration = _open_calibration(fields, objective)
    return ExportBundle(program, data, objective, program.inputs["past"].dtype, calibration)


def _open_data(fields: _Fields) -> EncoderDecoderDataModule:
    """Build the data module, and give it the normalisation and the alignments."""
    section, saved = fields.take("data", dict), fields.take("normalization", dict)
    check_sections(fields.path, {"data": section})
    check_class_paths(fields.path, section)
    section = aliases.rename(section)
    parser = parts_parser()
    data: EncoderDecoderDataModule = build(parser, parse(parser, {"data": section})).data
    try:
        data.normalization = Normalization.from_dict(saved)
    except DataError as error:
        raise fields.refuse("normalization", saved, "the transforms of each column") from error
    for column in data.source.roles.columns:
        if column not in saved:
            raise fields.refuse("normalization", sorted(saved), f"the column {column!r} too")
    for side, part in (("past", "encoder"), ("future", "decoder")):
        columns = list(getattr(data.roles, part))
        saved_columns = fields.take(f"inputs.{side}.columns", list)
        if saved_columns != columns:
            raise fields.refuse(f"inputs.{side}.columns", saved_columns, str(columns))
        alignment = fields.take(f"inputs.{side}.alignment", str)
        if alignment not in ("left", "right"):
            raise fields.refuse(f"inputs.{side}.alignment", alignment, "'left' or 'right'")
        setattr(data, f"{part}_alignment", alignment)
    return data


def _open_objective(fields: _Fields) -> Objective:
    name, levels = fields.take("output.loss", str), fields.take("output.quantiles", list)
    loss = LOSSES.get(name)
    if loss is None:
        raise fields.refuse("output.loss", name, f"one of {list(LOSSES)}")
    if bool(levels) != (name == "quantile") or not all(
        isinstance(level, float) and 0 < level < 1 for level in levels
    ):
        raise fields.refuse("output.quantiles", levels, "the levels of the quantile loss, in 0..1")
    objective = Objective(loss, tuple(levels))
    targets, features = fields.take("output.targets", list), fields.take("output.features", list)
    if features != objective.features(targets):
        raise fields.refuse("output.features", features, str(objective.features(targets)))
    return objective


def _open_calibration(fields: _Fields, objective: Objective) -> Calibration | None:
    saved = fields.take("output", dict).get("calibration")
    if saved is None:
        return None
    if not objective.pairs:
        raise fields.refuse("output.calibration", saved, "null: the loss has no intervals")
    try:
        return Calibration.from_list(saved, len(fields.take("output.features", list)))
    except CheckpointError as error:
        raise fields.refuse("output.calibration", saved, "rows of finite numbers") from error


def _read_manifest(path: Path) -> Any:
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        return safe_json.load(content)
    except ValueError as error:
        raise _damaged(path, error) from error


def _check_content(path: Path, expected: str) -> None:
    """Refuse a program that is not the one that was exported, before anything reads it."""
    if not path.is_file():
        raise _damaged(path, "it is not there")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise _damaged(path, f"its sha256 is not the one in {MANIFEST}")


def _damaged(path: Path, reason: object) -> ArtefactError:
    got, expected = f"damaged or truncated ({reason})", "the file as `ragged export` wrote it"
    remedy = "Copy the whole folder again, or export the run again."
    return ArtefactError.of("export:", path, got, expected, remedy)


@dataclass(frozen=True)
class _Fields:
    """The values of a JSON file, by dotted names."""

    path: Path
    values: Any

    def take(self, name: str, kind: type) -> Any:
        """Return a value of a type, or refuse the file."""
        value = self.values
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.refuse(name, value, f"a {kind.__name__}")
        return value

    def refuse(self, name: str, got: object, expected: str) -> ArtefactError:
        """Compose the error for a value."""
        remedy = "Restore the file as `ragged export` wrote it, or export the run again."
        return ArtefactError.of("export:", name, str(got)[:80], expected, remedy, file=self.path)
