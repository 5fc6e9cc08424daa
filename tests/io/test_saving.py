"""Saving: what it replaces, what it refuses, and what is read while it is done."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged.cli import main as cli
from ragged.errors import CheckpointError
from ragged.io import checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="untrusted files as Linux has them")


def test_training_replaces_a_link_and_not_what_it_points_at(copied, tmp_path):
    precious = tmp_path / "precious"
    shutil.copytree(copied / "checkpoints" / "last", precious)
    (precious / "thesis.txt").write_text("years of work")
    before = {path.name: path.read_bytes() for path in precious.iterdir()}
    for name in ("last", "best", ".last.old", ".best.old", ".best.new.x"):
        path = copied / "checkpoints" / name
        shutil.rmtree(path, ignore_errors=True)
        path.symlink_to(precious)
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 3", "max_epochs: 5"))
    assert cli.main(["train", "--resume", str(copied)]) == 0
    assert {path.name: path.read_bytes() for path in precious.iterdir()} == before
    assert sorted(os.listdir(copied / "checkpoints"))[-1] == "last"
    assert not (copied / "checkpoints" / "last").is_symlink()


def test_saving_replaces_nothing_but_checkpoints(tmp_path, need):
    need("torch")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("more")
    with ragged.use_backend("torch"):
        model = ragged.models.EncoderDecoderLSTM(1, 1, hidden_size=2, seed=0)
        for name in ("folder", "file"):
            with pytest.raises(CheckpointError, match=f"save\\(\\): `path` is .*{name}"):
                ragged.save(model, tmp_path / name)
        (tmp_path / "empty").mkdir()
        ragged.save(model, tmp_path / "empty")
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "more"


def test_a_model_that_is_not_finite_is_not_saved(tmp_path, need):
    need("torch")
    with ragged.use_backend("torch") as backend:
        model = ragged.models.EncoderDecoderLSTM(1, 1, hidden_size=2, seed=0)
        values = backend.get_parameters(model)
        backend.set_parameters(model, {**values, "head.bias": values["head.bias"] * np.nan})
        with pytest.raises(CheckpointError, match=r"save\(\): tensor 'head.bias' .* not finite"):
            ragged.save(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_float64_model_is_read_as_it_was_saved(tmp_path, need):
    need("torch")
    with ragged.use_backend("torch") as backend:
        model = ragged.models.EncoderDecoderLSTM(1, 1, hidden_size=2, seed=0)
        model = backend.to(model, device="cpu", dtype="float64")
        thirds = {n: np.full(v.shape, 1 / 3) for n, v in backend.get_parameters(model).items()}
        backend.set_parameters(model, thirds)
        ragged.save(model, tmp_path / "m")
        found = backend.get_parameters(ragged.load(tmp_path / "m"))
    assert all((value == 1 / 3).all() for value in found.values())


def test_a_checkpoint_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    from ragged.io import atomic as files

    def content(value: float) -> checkpoint.Checkpoint:
        state = {"value": value}
        return checkpoint.Checkpoint({"w": np.full(2, value, np.float32)}, state, state)

    checkpoint.write(tmp_path / "m", content(1.0))
    real, seen = files._read_bytes, []

    def replaced_meanwhile(path: Path, most: int) -> bytes:
        seen.append(path.name)
        if len(seen) == 2:
            checkpoint.write(tmp_path / "m", content(2.0))
        return real(path, most)

    monkeypatch.setattr(files, "_read_bytes", replaced_meanwhile)
    found = checkpoint.read(tmp_path / "m")
    assert (found.state["value"], found.model["value"]) == (2.0, 2.0)
    assert (found.parameters["w"] == 2.0).all()
    assert seen.count("state.json") == 2
