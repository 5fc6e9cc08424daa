"""Checkpoints: exact, readable by either backend, and refused when damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import ragged
from ragged.errors import CheckpointError
from ragged.io import checkpoint
from ragged.io.atomic import replace_folder

pytest.importorskip("safetensors")

BACKENDS = ("torch", "jax")
PAIRS = [("torch", "jax"), ("jax", "torch"), ("torch", "torch"), ("jax", "jax")]


def need(*names: str) -> None:
    for name in names:
        pytest.importorskip("torch" if name == "torch" else "flax")


@pytest.fixture(params=BACKENDS)
def backend(request):
    need(request.param)
    with ragged.use_backend(request.param) as found:
        yield found


@pytest.fixture
def any_backend():
    available = ragged.available_backends()
    if not available:
        pytest.skip("no backend is installed")
    with ragged.use_backend(available[0]) as found:
        yield found


def create(seed: int = 3):
    return ragged.models.EncoderDecoderLSTM(
        3, 2, hidden_size=5, decoder_hidden_size=4, num_layers=2, head_hidden_size=6, seed=seed
    )


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and a[n].tobytes() == b[n].tobytes()
        for n in a
    )


def predict(backend, model) -> np.ndarray:
    model.eval()
    generator = np.random.default_rng(0)
    past = generator.normal(size=(3, 7, 3)).astype(np.float32)
    future = generator.normal(size=(3, 6, 2)).astype(np.float32)
    return backend.to_numpy(model(past, future, [7, 1, 0], [6, 3, 2]).output)


@pytest.fixture
def saved(any_backend, tmp_path: Path) -> Path:
    ragged.save(create(), tmp_path / "model")
    return tmp_path / "model"


def refuses(text: str):
    return pytest.raises(CheckpointError, match=re.escape(text))


def test_a_round_trip_is_bit_exact(backend, tmp_path):
    model = create()
    ragged.save(model, tmp_path / "m")
    again = ragged.load(tmp_path / "m")
    assert backend.owns(again)
    assert equal(backend.get_parameters(model), backend.get_parameters(again))
    assert again.config == model.config
    assert predict(backend, model).tobytes() == predict(backend, again).tobytes()
    ragged.save(again, tmp_path / "n")
    for name in ("model.safetensors", "config.yaml", "state.json"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "n" / name).read_bytes()


def test_a_model_is_loaded_in_inference_mode(backend, tmp_path):
    model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=4, dropout=0.5, seed=0)
    ragged.save(model, tmp_path / "m")
    arrays = np.ones((1, 5, 3), np.float32), np.ones((1, 4, 2), np.float32)
    loaded = ragged.load(tmp_path / "m")
    found = [backend.to_numpy(loaded(*arrays).output) for _ in range(2)]
    model.eval()
    for each in found:
        np.testing.assert_array_equal(each, backend.to_numpy(model(*arrays).output))
    loaded.train()
    assert not np.array_equal(backend.to_numpy(loaded(*arrays).output), found[0])


@pytest.mark.parametrize(("writer", "reader"), PAIRS)
def test_either_backend_reads_what_either_wrote(tmp_path, writer, reader):
    need(writer, reader)
    with ragged.use_backend(writer) as wrote:
        model = create()
        ragged.save(model, tmp_path / "m")
        expected, parameters = predict(wrote, model), wrote.get_parameters(model)
    with ragged.use_backend(reader) as read:
        again = ragged.load(tmp_path / "m")
        assert read.owns(again)
        assert equal(parameters, read.get_parameters(again))
        np.testing.assert_allclose(predict(read, again), expected, rtol=1e-5, atol=1e-5)
        assert np.abs(expected).max() > 0


def test_both_backends_write_the_same_files(tmp_path):
    need(*BACKENDS)
    for name in BACKENDS:
        with ragged.use_backend(name):
            ragged.save(create(), tmp_path / name)
    for path in (tmp_path / "torch").iterdir():
        assert path.read_bytes() == (tmp_path / "jax" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", BACKENDS)
def test_only_tensors_yaml_and_json_are_written(tiny_run, name):
    folder = tiny_run(name) / "checkpoints"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    common = {"config.yaml", "model.safetensors", "state.json"}
    assert files == {f"best/{n}" for n in common} | {
        f"last/{n}" for n in {*common, "optimizer.safetensors"}
    }
    assert not list(folder.glob(".*"))
    for path in folder.rglob("*.json"):
        state = json.loads(path.read_text())
        assert state["format_version"] == checkpoint.FORMAT_VERSION
        assert set(state["normalization"]) == {"current", "current_rate", "field"}


@pytest.mark.parametrize(("writer", "reader"), PAIRS[:2])
def test_a_trained_checkpoint_is_read_by_the_other(tiny_run, writer, reader):
    need(writer, reader)
    folder = tiny_run(writer) / "checkpoints" / "best"
    found = {}
    for name in (writer, reader):
        with ragged.use_backend(name) as backend:
            found[name] = backend.get_parameters(ragged.load(folder))
    assert equal(found[writer], found[reader])


def test_saving_replaces_the_whole_folder(saved, any_backend):
    (saved / "old.txt").write_text("old")
    model = create(seed=4)
    ragged.save(model, saved)
    assert not (saved / "old.txt").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    found = any_backend.get_parameters(ragged.load(saved))
    assert equal(found, any_backend.get_parameters(model))


def test_a_module_without_a_configuration_is_not_saved(backend, tmp_path):
    with refuses("save(): `model` is a Recurrent; expected a module built by ragged.models."):
        ragged.save(ragged.LSTM(1, 2), tmp_path / "m")
    with refuses("save(): `model` is a dict; expected a module built by ragged.models."):
        ragged.save({"w": 1}, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_missing_folder_is_refused(any_backend, tmp_path):
    with refuses(f"load(): {str(tmp_path / 'no')!r} is no folder; expected a checkpoint folder"):
        ragged.load(tmp_path / "no")


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "state.json"])
def test_a_missing_file_is_refused(saved, name):
    (saved / name).unlink()
    with refuses(f"load(): {name} of {str(saved)!r} cannot be read (No such file"):
        ragged.load(saved)


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_truncated_tensors_are_refused(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with refuses(f"load(): {str(path)!r} is damaged or truncated ("):
        ragged.load(saved)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", b""),
        ("state.json", b'{"format_version": 1'),
        ("state.json", b"\xff\xfe"),
        ("config.yaml", b"class_path: [ragged"),
        ("config.yaml", b"\x00"),
        ("config.yaml", b"a: !!python/object/apply:os.system ['true']"),
    ],
)
def test_damaged_text_is_refused(saved, name, content):
    (saved / name).write_bytes(content)
    with refuses(f"load(): {str(saved / name)!r} is damaged or truncated ("):
        ragged.load(saved)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_is_refused(saved, version):
    (saved / "state.json").write_text(json.dumps({"format_version": version}))
    with refuses(f"load(): {str(saved)!r} has format version {version}; expected 1. Read it with"):
        ragged.load(saved)


@pytest.mark.parametrize("content", ["[]", "null", "3", "{}"])
def test_a_state_of_another_kind_is_refused(saved, content):
    (saved / "state.json").write_text(content)
    with refuses("has format version None; expected 1"):
        ragged.load(saved)


def rewrite(folder: Path, change) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda t: t.update({"bridge_c.bias": np.zeros(7, np.float32)}),
            "is float32 (7,); the configured model has float32 (4,)",
        ),
        (
            lambda t: t.update({"extra": np.zeros((2, 3), np.float32)}),
            "is float32 (2, 3); the configured model has no such tensor",
        ),
        (
            lambda t: t.pop("bridge_h.weight"),
            "is missing; the configured model has float32 (4, 5)",
        ),
    ],
)
def test_tensors_of_another_model_are_refused(saved, change, text):
    rewrite(saved, change)
    with refuses(text):
        ragged.load(saved)


@pytest.mark.parametrize(
    "class_path",
    [
        "os.system",
        "ragged.models.os.system",
        "ragged.models.Model",
        "ragged.models.Forecast",
        "ragged.cli.main.main",
        "EncoderDecoderLSTMs",
        "",
    ],
)
def test_a_configuration_names_no_other_code(saved, class_path, tmp_path):
    arguments = {"command": f"touch {tmp_path / 'ran'}"}
    text = json.dumps({"class_path": class_path, "init_args": arguments})
    (saved / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"load\(\): config\.yaml (names|does not describe)"):
        ragged.load(saved)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["", "[]", "3", "class_path: 3", "init_args: {}"])
def test_a_configuration_of_another_kind_is_refused(saved, content):
    (saved / "config.yaml").write_text(content)
    with refuses("load(): config.yaml names class_path"):
        ragged.load(saved)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"past_features": 3, "future_features": 2, "hidden": 5}, "naming 'hidden'"),
        ({"past_features": 3, "future_features": 2, "hidden_size": 0}, "`hidden_size` is 0"),
        ({"past_features": 3}, "future_features"),
        (
            {"past_features": 3, "future_features": 2, "hidden_size": "5"},
            "`hidden_size` is '5', a str",
        ),
        ([1, 2], "config.yaml does not describe"),
    ],
)
def test_wrong_arguments_are_refused(saved, arguments, text):
    config = {"class_path": "ragged.models.EncoderDecoderLSTM", "init_args": arguments}
    (saved / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=re.escape(text)):
        ragged.load(saved)


def test_a_killed_replacement_can_be_read(saved, any_backend):
    before = any_backend.get_parameters(ragged.load(saved))
    os.replace(saved, saved.with_name(".model.old"))
    assert checkpoint.has_leftover(saved)
    assert equal(any_backend.get_parameters(ragged.load(saved)), before)
    assert not saved.exists()  # reading moves nothing: another process may be writing
    ragged.save(create(seed=8), saved)
    assert not checkpoint.has_leftover(saved)


def test_a_replacement_stopped_between_its_renames_keeps_the_old(saved, any_backend, monkeypatch):
    before = any_backend.get_parameters(ragged.load(saved))
    real, calls = os.replace, []

    def killed(source, target):
        calls.append(Path(target).name)
        if calls.count("model") == 1:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ragged.save(create(seed=9), saved)
    monkeypatch.undo()
    assert calls[-3:] == [".model.old", "model", "model"]
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert equal(any_backend.get_parameters(ragged.load(saved)), before)


def test_a_replacement_killed_while_writing_keeps_the_old(saved, any_backend, monkeypatch):
    before = any_backend.get_parameters(ragged.load(saved))

    def killed(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr("ragged.io.atomic.write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        ragged.save(create(seed=9), saved)
    monkeypatch.undo()
    assert equal(any_backend.get_parameters(ragged.load(saved)), before)
    ragged.save(create(seed=9), saved)
    assert not equal(any_backend.get_parameters(ragged.load(saved)), before)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_saving_after_a_killed_replacement_leaves_one_folder(saved, any_backend):
    shutil.copytree(saved, saved.with_name(".model.old"))
    model = create(seed=8)
    ragged.save(model, saved)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    found = any_backend.get_parameters(ragged.load(saved))
    assert equal(found, any_backend.get_parameters(model))


@pytest.mark.parametrize("path", ["", ".", "..", "/", "a/.."])
def test_a_path_without_a_name_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"expected a path that ends in the name of a folder"):
        replace_folder(Path(path), {"file": b"x"}, "file")
    assert list(tmp_path.iterdir()) == []


def test_the_umask_decides_who_may_read_and_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "of [a]*"
    for name in (".of [a]*.new.killed", ".of a1.new.written"):
        (tmp_path / name).mkdir()
    before = os.umask(0o077)
    try:
        replace_folder(folder, {"file": b"x"}, "file")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "file")] == [0o700, 0o600]
    assert sorted(os.listdir(tmp_path)) == [".of a1.new.written", "of [a]*"]
