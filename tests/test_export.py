"""Exported models: a program and a JSON that forecast what the run does, without the run."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged.backend import load_backend, use_backend
from ragged.cli import main
from ragged.data.batches import batches
from ragged.errors import ArtefactError, ExportError, LengthsError, OptionError, ShapeError
from ragged.exported import FORMATS, Exported, Input, load_exported
from ragged.training import artefact, export

SIZES = {"hidden_size": 4, "num_layers": 1, "seed": 0}
MODELS = {
    "EncoderDecoderLSTM": {"decoder_hidden_size": 3, "head_hidden_size": 5},
    "AttentionLSTM": {"num_heads": 2},
    "TransformerLSTM": {"num_heads": 2, "num_blocks": 1},
    "TemporalFusionTransformer": {"num_heads": 2, "context_length": 6, "static_features": 2},
    "PFTemporalFusionTransformer": {"num_heads": 2, "reference_length": 6},
    "XTFT": {"num_heads": 2},
}
# Batch, widths and lengths of each case: the program was made for none of them.
CASES = {
    "ragged": ((6, 5), [6, 0, 1, 4], [5, 3, 0, 1]),
    "all equal": ((3, 4), [3, 3], [4, 4]),
    "one long among short": ((9, 7), [9, 1, 1, 1, 1], [7, 1, 1, 1, 1]),
    "one row of one step": ((1, 1), [1], [1]),
    "all empty": ((4, 2), [0, 0], [0, 0]),
    "no context": ((0, 3), [0, 0], [3, 2]),
    "no horizon": ((3, 0), [3, 1], [0, 0]),
    "no rows": ((3, 2), [], []),
}


@pytest.fixture(params=FORMATS)
def format(request, need):
    """A format that its backend has."""
    name = FORMATS[request.param].backend
    need(name)
    if request.param not in load_backend(name).export_formats:
        pytest.skip(f"backend {name} does not write {request.param} yet")
    return request.param


def inputs(case: str, static: int, *, padding: float = 0.0) -> dict[str, np.ndarray]:
    (encoder, decoder), *lengths = CASES[case]
    rng, rows = np.random.default_rng(0), len(lengths[0])
    shapes = {"past": (rows, encoder, 3), "future": (rows, decoder, 2)}
    found = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for (name, values), counts in zip(list(found.items()), lengths, strict=True):
        counts = np.array(counts, np.int64)
        found[f"{'encoder' if name == 'past' else 'decoder'}_lengths"] = counts
        filler = np.arange(values.shape[1]) >= counts[:, None]
        values[filler] = padding
    return {**found, "static": rng.normal(size=(rows, static))} if static else found


def expected_of(backend, model, given: dict[str, np.ndarray]) -> np.ndarray:
    """What the module itself forecasts, by the path that evaluation takes."""
    sides = {side: given[side] for side in ("past", "future")}
    lengths = {
        name: ragged.Lengths(given[name], sides[side].shape[1])
        for side, name in (("past", "encoder_lengths"), ("future", "decoder_lengths"))
    }
    side = model.config.encoder_alignment
    batch = SimpleNamespace(
        **sides, **lengths, static=given.get("static"), encoder_alignment=side
    )
    return np.asarray(backend.predict(model, batch).output)


@pytest.mark.parametrize("kind", MODELS)
def test_one_file_forecasts_batches_of_every_size_as_the_model_does(kind, format, tmp_path):
    path = tmp_path / FORMATS[format].file
    with use_backend(FORMATS[format].backend) as backend:
        model = getattr(ragged.models, kind)(3, 2, output_size=2, **{**SIZES, **MODELS[kind]})
        if getattr(model.config, "encoder_alignment", "left") == "right":
            model = getattr(ragged.models, kind)(
                3, 2, output_size=2, encoder_alignment="left", **{**SIZES, **MODELS[kind]}
            )
        backend.export_model(model, path, format=format)
        program = load_exported(path, format=format)
        assert program.inputs["past"] == Input(("batch", "encoder_time", 3), "float32")
        static = MODELS[kind].get("static_features", 0)
        for case in CASES:
            given = inputs(case, static)
            found = program(**given)
            if not len(given["past"]):
                assert found.shape == (0, given["future"].shape[1], 2)
                continue
            np.testing.assert_allclose(
                found, expected_of(backend, model, given), rtol=1e-4, atol=1e-5, err_msg=case
            )
        given, garbage = inputs("ragged", static), inputs("ragged", static, padding=np.nan)
        np.testing.assert_array_equal(program(**garbage), program(**given))
        padding = np.arange(5) >= given["decoder_lengths"][:, None]
        assert (program(**garbage)[padding] == 0).all()
