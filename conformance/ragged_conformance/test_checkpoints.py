"""Checkpoints: what one backend saves the other loads, to the bit."""

from pathlib import Path

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.subjects import SUBJECTS

MODELS = {name: subject for name, subject in SUBJECTS.items() if hasattr(ragged.models, name)}


@pytest.mark.operation("save", "load")
@pytest.mark.parametrize("name", MODELS)
def test_the_other_backend_loads_what_one_saved(
    both: tuple[Adapter, Adapter], name: str, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    for writer, reader in (both, both[::-1]):
        path = tmp_path / writer.name
        with ragged.use_backend(writer.name):
            model = MODELS[name].build()
            other = {n: v + 1 for n, v in writer.backend.get_parameters(model).items()}
            writer.backend.set_parameters(model, other)  # not those that the seed gives anyway
            ragged.save(model, path)
        with ragged.use_backend(reader.name):
            found = ragged.load(path)
        written, read = writer.backend.get_parameters(model), reader.backend.get_parameters(found)
        assert written.keys() == read.keys()
        for parameter, value in written.items():
            np.testing.assert_array_equal(read[parameter], value, parameter, strict=True)
        # All that a forecast depends on: equal modules agree, as `test_backends_agree` shows.
        assert found.config == model.config
