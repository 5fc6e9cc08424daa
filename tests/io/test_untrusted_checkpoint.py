"""A run folder from anyone: it runs no code, ends within seconds, and is refused by name."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged.cli import main as cli
from ragged.errors import CheckpointError
from ragged.forecasting.training import prepare
from ragged.runs.folder import open_run, read_config
from ragged.runs.parser import train_parser

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="untrusted files as Linux has them")


class Mark:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture(scope="module")
def parser():
    """The parser of a run's configuration."""
    return train_parser()


@pytest.fixture(scope="module")
def config(tiny_run, need, parser):
    """The configuration of the copied runs, parsed once."""
    need("torch")
    return read_config(tiny_run("torch"), parser)


@pytest.fixture
def resume_refused(config, parser):
    """Resume a run as its command does, which must be refused, and give what is said."""

    def _refused(run: Path) -> str:
        with ragged.use_backend("torch"), pytest.raises(CheckpointError) as caught:
            prepare(config.clone(), parser, run).resume()
        return str(caught.value)

    return _refused


@pytest.fixture
def open_refused(parser):
    """Open a run as the commands that read one do, which must be refused."""

    def _refused(run: Path) -> str:
        with pytest.raises(CheckpointError) as caught, open_run(run, parser):
            pass
        return str(caught.value)

    return _refused


def verbs(run: Path) -> list[list[object]]:
    """The commands that read a run, the one that resumes it first."""
    table = ["--input", run / "in.csv", "--output", run / "out.csv"]
    return [["train", "--resume", run], ["evaluate", run], ["predict", run, *table]]


def refuses(folder: Path, *names: str) -> None:
    """`ragged.load` refuses the folder with these names in the message."""
    with ragged.use_backend("torch"), pytest.raises(CheckpointError) as caught:
        ragged.load(folder)
    for name in names:
        assert name in str(caught.value)


def tensors(path: Path, change) -> None:
    from safetensors.numpy import load_file, save_file

    found = {name: value.copy() for name, value in load_file(path).items()}
    change(found)
    save_file(found, path)


def header(entries: object, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def absurd(dtype: str, shape: list[int], start: int, end: int) -> bytes:
    return header({"w": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}, b"\0" * 8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        header({"w": 3}),
        absurd("F32", [2**62], 0, 2**63 - 1),
        absurd("F32", [2**40, 2**40], 0, 8),
        absurd("F32", [0, 2**62], 0, 0),
        absurd("F32", [3], 0, 8),
        absurd("F32", [-1], 0, 8),
        absurd("BF16", [4], 0, 8),
        absurd("F8_E4M3", [8], 0, 8),
        absurd("PICKLE", [8], 0, 8),
        header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}} | {"x" * 9: []}),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(copied, resume_refused, content):
    for name in ("model", "optimizer"):
        path = copied / "checkpoints" / "last" / f"{name}.safetensors"
        kept = path.read_bytes()
        path.write_bytes(content)
        refuses(path.parent, path.name)
        assert path.name in resume_refused(copied)
        path.write_bytes(kept)


def test_pickles_are_never_opened(copied, refused, tmp_path):
    mark = tmp_path / "mark"
    best = copied / "checkpoints" / "best"
    for name in ("model.pt", "pytorch_model.bin", "model.pkl"):
        (best / name).write_bytes(pickle.dumps(Mark(mark)))
    assert cli.main(["evaluate", str(copied)]) == 0  # beside what is read
    for name in ("model.safetensors", "config.yaml", "state.json"):
        kept = (best / name).read_bytes()
        (best / name).write_bytes(pickle.dumps(Mark(mark)))
        refuses(best, name)
        assert name in refused("evaluate", copied)
        (best / name).write_bytes(kept)
    assert not mark.exists()


def test_what_is_no_regular_file_is_refused(copied, tmp_path):
    best = copied / "checkpoints" / "best"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 2**42)
    for name in ("model.safetensors", "config.yaml", "state.json", "optimizer.safetensors"):
        path = best / name
        kept = path.read_bytes() if path.exists() else None
        for target in (
            "/dev/zero",
            tmp_path / "pipe",
            tmp_path,
            tmp_path / "no",
            tmp_path / "sparse",
        ):
            path.unlink(missing_ok=True)
            path.symlink_to(target)
            refuses(best, f"{name} of", "cannot be read")
        path.unlink()
        if kept is not None:
            path.write_bytes(kept)


NAME = "encoder.weight_hh_l0"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.update({NAME: t[NAME].astype(np.float16)}), "is float16 (16, 4)"),
        (lambda t: t.update({NAME: t[NAME].astype(np.float64)}), "is float64 (16, 4)"),
        (lambda t: t.update({NAME: t[NAME].astype(np.int64)}), "is int64 (16, 4)"),
        (lambda t: t.update({NAME: t[NAME] > 0}), "is bool (16, 4)"),
        (lambda t: t.update({NAME: t[NAME].T.copy()}), "is float32 (4, 16)"),
        (lambda t: t.update({NAME: t[NAME][None]}), "is float32 (1, 16, 4)"),
        (lambda t: t.update({NAME: t[NAME] * np.nan}), "not finite"),
        (lambda t: t.update({NAME: t[NAME] + np.inf}), "not finite"),
        (lambda t: t.pop(NAME), "is missing; the configured model has float32 (16, 4)"),
        (lambda t: t.update({"more": t[NAME]}), "the configured model has no such tensor"),
    ],
)
def test_tensors_are_checked_one_by_one(copied, open_refused, resume_refused, change, expected):
    best, last = copied / "checkpoints" / "best", copied / "checkpoints" / "last"
    tensors(best / "model.safetensors", change)
    refuses(best, "model.safetensors", expected)
    assert expected in open_refused(copied)
    prefix = "exp_avg_sq."
    tensors(last / "optimizer.safetensors", lambda t: renamed(t, prefix, change))
    assert expected in resume_refused(copied)


def renamed(found: dict[str, np.ndarray], prefix: str, change) -> None:
    """Change the tensors of one prefix as if they had none."""
    part = {n.removeprefix(prefix): found.pop(n) for n in list(found) if n.startswith(prefix)}
    change(part)
    found.update({f"{prefix}{name}": value for name, value in part.items()})


@pytest.mark.parametrize(
    "steps", [np.array(-1), np.array(2**40), np.array([1]), np.array(1.5), None]
)
def test_the_count_of_steps_is_checked(copied, resume_refused, steps):
    path = copied / "checkpoints" / "last" / "optimizer.safetensors"
    tensors(path, lambda t: t.pop("steps") if steps is None else t.update(steps=steps))
    said = resume_refused(copied)
    assert "steps" in said
    assert "optimizer.safetensors" in said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"training": None}, "`losses` of state.json's training is missing"),
        ({"training": [1, 2]}, "`losses` of"),
        ({"training": {}}, "`losses` of"),
        ({"training.epoch": "x"}, "`epoch` of"),
        ({"training.epoch": -1}, "`epoch` of"),
        ({"training.epoch": True}, "`epoch` of"),
        ({"training.epoch": 1.0}, "`epoch` of"),
        ({"training.epoch": 2}, "`epoch` of"),
        ({"training.best_epoch": 99}, "`epoch` of"),
        ({"training.best_epoch": None}, "`best_epoch` of"),
        ({"training.best_loss": [1]}, "`best_loss` of"),
        ({"training.best_loss": float("nan")}, "state.json' is damaged"),
        ({"training.best_loss": float("-inf")}, "state.json' is damaged"),
        ({"training.best_loss": 10**400}, "state.json' is damaged"),
        ({"training.losses": ["x"]}, "`losses` of"),
        ({"training.current": []}, "`current` of"),
        ({"training.current.steps": 10**30}, "state.json' is damaged"),
        ({"format_version": True}, "format version True"),
        ({"format_version": [1] * 1000}, "format version [1, 1"),
    ],
)
def test_how_far_training_came_is_checked(copied, resume_refused, changes, expected):
    edit_state(copied / "checkpoints" / "last", changes)
    said = resume_refused(copied)
    assert expected in said
    assert len(said) < 1000


def edit_state(folder: Path, changes: dict[str, object]) -> None:
    path = folder / "state.json"
    state = json.loads(path.read_text())
    for name, value in changes.items():
        *sections, last = name.split(".")
        place = state
        for section in sections:
            place = place[section]
        place[last] = value
    path.write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"normalization": 3}, "`normalization` of"),
        ({"normalization.field": {}}, "`normalization` of"),
        ({"normalization.field.mean": "x"}, "`normalization` of"),
        ({"normalization.field.transforms": [{"Evil": {}}]}, "`normalization` of"),
        (
            {"normalization.field.transforms": [{"StandardScaler": {"scale": 0}}]},
            "`normalization` of",
        ),
        ({"normalization.field.mean": float("nan")}, "state.json' is damaged"),
        ({"normalization": {}}, "`normalization.current` of"),
    ],
)
def test_the_normalisation_is_checked(copied, open_refused, changes, expected):
    edit_state(copied / "checkpoints" / "best", changes)
    assert expected in open_refused(copied)


def test_each_command_tells_in_a_line_what_is_refused(copied, refused):
    for folder in ("last", "best"):
        edit_state(copied / "checkpoints" / folder, {"normalization": 3, "training": None})
    for arguments, expected in zip(
        verbs(copied), ("`losses`", "`normalization`", "`normalization`"), strict=True
    ):
        said = refused(*arguments)
        assert expected in said
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "9" * 5000, "[]", '{"format_version": 1', " " * 2**21]
)
def test_a_hostile_state_is_refused(copied, resume_refused, content):
    last = copied / "checkpoints" / "last"
    (last / "state.json").write_text(content)
    refuses(last)
    resume_refused(copied)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("class_path: ragged.io.atomic.os.remove", "class_path 'ragged.io.atomic.os.remove'"),
        ("class_path: ragged.models.XTFT\ninit_args: {past_features: 3, future_features: 2}",
         "tensor"),
        ("class_path: ragged.models.EncoderDecoderLSTM\ninit_args: {hidden_size: 1000000000}",
         "EncoderDecoderLSTM"),
        ("class_path: ragged.models.EncoderDecoderLSTM\n"
         "init_args: {past_features: 3, future_features: 2, hidden_size: 4.0}", "`hidden_size`"),
        ("class_path: ragged.models.EncoderDecoderLSTM\n"
         "init_args: {past_features: true, future_features: 2}", "`past_features`"),
        ("a: " + "[" * 100_000, "nested more than 32 deep"),
        ("a: &a [1]\nb: *a", "alias"),
    ],
)  # fmt: skip
def test_a_hostile_description_is_refused(copied, open_refused, resume_refused, text, expected):
    for folder, read in (("last", resume_refused), ("best", open_refused)):
        (copied / "checkpoints" / folder / "config.yaml").write_text(text)
        refuses(copied / "checkpoints" / folder, "config.yaml", expected)
        assert expected in read(copied)


@pytest.mark.parametrize(
    "content", ["[]\n", "3\n", '{"epoch": {}}\n', "[" * 10**5, '{"epoch": 1}\n']
)
def test_hostile_records_are_refused(copied, capsys, content):
    (copied / "metrics.jsonl").write_text(content)
    assert cli.main(["train", "--resume", str(copied)]) == 2
    said = capsys.readouterr().err
    assert f"ragged: error: run: '{copied / 'metrics.jsonl'}' is damaged or truncated (" in said


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("ragged.data.MagnetHysteresis", "evil_module.Evil", "evil_module"),
        ("ragged.data.MagnetHysteresis", "ragged.io.atomic.shutil.rmtree", "rmtree"),
        ("backend: torch", "backend: evil_module", "`backend` is 'evil_module'"),
        ("max_epochs: 3", "max_epochs: '3", "no plain YAML"),
        ("max_epochs: 3", "max_epochs: 1e400", "max_epochs"),
        ("max_epochs: 3", "max_epoch: 3", "the nearest name is 'max_epochs'"),
    ],
)
def test_a_runs_configuration_that_was_tampered_with(copied, refused, evil, old, new, expected):
    path = copied / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    for arguments in verbs(copied):
        assert expected in refused(*arguments)
    assert not evil.exists()
