"""Checkpoints: what one backend saves the other loads, to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.evaluation import forward
from ragged_conformance.subjects import SUBJECTS, Subject
from ragged_conformance.tolerances import HALF, assert_close

MODELS = {name: subject for name, subject in SUBJECTS.items() if hasattr(ragged.models, name)}


@pytest.mark.operation("save", "load")
@pytest.mark.parametrize("name", MODELS)
def test_the_other_backend_loads_what_one_saved(
    both: tuple[Adapter, Adapter], name: str, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    other: dict[str, np.ndarray] = {}  # parameters that are not those of the seed
    expected: dict[str, np.ndarray] = {}  # outputs of a model that has them, whoever wrote it
    for writer, reader in (both, both[::-1]):
        path = tmp_path / writer.name
        with ragged.use_backend(writer.name):
            model = MODELS[name].build()
            initial = writer.backend.get_parameters(model)
            other = other or {n: v + 1 for n, v in initial.items()}
            writer.backend.set_parameters(model, other)
            ragged.save(model, path)
        with ragged.use_backend(reader.name):
            loaded = ragged.load(path)
        written, read = writer.backend.get_parameters(model), reader.backend.get_parameters(loaded)
        assert written.keys() == read.keys()
        for parameter, value in written.items():
            np.testing.assert_array_equal(read[parameter], value, parameter, strict=True)
        assert loaded.config == model.config
        if writer.dtype in HALF:  # a LayerNorm over parameters of about 1 leaves rounding errors
            continue
        expected = expected or outputs(writer, MODELS[name], model)
        actual = outputs(reader, MODELS[name], loaded)
        for output, value in expected.items():
            assert_close(actual[output], value, writer.dtype, MODELS[name].kind, output)


def outputs(adapter: Adapter, subject: Subject, module: Any) -> dict[str, np.ndarray]:
    """Run a module on the subject's batch."""
    module, batch = adapter.prepare(module), subject.batch
    run = forward(adapter, lambda arrays: subject.call(module, arrays, batch.lengths))
    return run(adapter.arrays(batch.arrays))
