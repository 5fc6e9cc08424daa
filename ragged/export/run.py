"""Export of a run: its best model as an artefact, compared with the checkpoint first."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ragged.data import EncoderDecoderDataModule, batches
from ragged.errors import ExportError
from ragged.export.bundle import MANIFEST, describe
from ragged.export.program import FORMATS, Exported, check_format
from ragged.io.atomic import replace_folder
from ragged.protocol import Backend
from ragged.runs.folder import Run
from ragged.training.objective import Objective
from ragged.training.precision import param_dtype

TOLERANCES = {"float32": (1e-4, 1e-5), "float64": (1e-10, 1e-12)}  # relative, absolute


def export_run(run: Run, backend: Backend, folder: Path, *, format: str) -> float:
    """Write a run's best model as an artefact, atomically.

    Args:
        run: opened with the backend.
        backend: the one that writes the format.
        folder: where to write; replaced if an artefact is there.
        format: one of `ragged.export.program.FORMATS`.

    Returns:
        The largest difference between the artefact's forecasts and the checkpoint's.

    Raises:
        ExportError: they differ by more than the tolerance, or there is no row to compare them on.
        OptionError: a format that the backend does not write.
        CheckpointError: the folder has other content than an artefact.
    """
    check_format(backend, format)
    dtype = param_dtype(run.trainer.precision)
    module = backend.to(run.module, device="cpu", dtype=dtype)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / FORMATS[format].file
        objective = run.trainer.objective(module.config, run.data)
        backend.export_model(module, path, format=format, quantiles=objective.quantiles)
        program = backend.load_exported(path, format=format)
        difference = _compare(backend, module, program, run.data, objective, dtype)
        files = {file.name: file.read_bytes() for file in Path(temporary).iterdir()}
    files[MANIFEST] = describe(
        module.config,
        run.data,
        objective,
        program,
        format=format,
        content=files[path.name],
        config=run.written["data"],
        normalization=run.normalization,
        calibration=run.calibration,
    )
    replace_folder(folder, files, MANIFEST, function="export", kind="exported model")
    return difference


def _compare(
    backend: Backend,
    module: object,
    program: Exported,
    data: EncoderDecoderDataModule,
    objective: Objective,
    dtype: str,
) -> float:
    """Return the largest difference of the two forecasts over the rows held out from training."""
    relative, absolute = TOLERANCES[dtype]
    largest = 0.0
    held_out = next(dataset for dataset in (data.validation, data.test, data.train) if len(dataset))
    for batch in batches(held_out, data.batch_size, dtype=dtype):
        expected = backend.predict(module, batch).output
        expected = objective.by_target(expected).reshape(expected.shape)
        output = program.forecast_batch(batch)
        if output.shape != expected.shape:
            raise _differs(f"of shape {output.shape}", f"of shape {expected.shape}")
        difference = np.abs(output - expected)
        wrong = ~(difference <= absolute + relative * np.abs(expected))  # NaN is wrong too
        if wrong.any():
            index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            row = batch.rows[index[0]]
            raise _differs(f"{output[index]:.9g} in row {row}", f"{expected[index]:.9g}")
        largest = max(largest, float(difference.max(initial=0.0)))
    return largest


def _differs(got: str, expected: str) -> ExportError:
    return ExportError(
        f"export: the exported model forecasts {got}; expected {expected}, as the checkpoint does. "
        "Nothing was written. Export to another format, or report this with the versions that "
        "`ragged info` prints."
    )
