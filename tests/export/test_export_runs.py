"""Exported runs: a program and a JSON that forecast what the run does, without the run."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged.backend import load_backend
from ragged.cli.main import main
from ragged.errors import ArtefactError
from ragged.export import bundle as artefact
from ragged.export.program import FORMATS, load_exported


@pytest.fixture(scope="module")
def quantile_run(train_tiny, tmp_path_factory, need) -> Path:
    """A run of a model that takes its context on the right and forecasts quantiles."""
    need("torch")
    return train_tiny(
        tmp_path_factory.mktemp("runs"),
        "torch",
        model__class_path="XTFT",
        trainer__max_epochs=1,
        trainer__quantiles="[0.1, 0.5, 0.9]",
        data__transforms="{current: [{class_path: StandardScaler}]}",
    )


@pytest.fixture(scope="module")
def stablehlo(quantile_run, tmp_path_factory, need) -> Path:
    """That run's exported model, which no test may change."""
    need("jax")
    folder = tmp_path_factory.mktemp("exported") / "model"
    options = ["--format", "stablehlo", "--output", str(folder)]
    assert main(["export", str(quantile_run), *options]) == 0
    return folder


@pytest.fixture
def damaged(stablehlo, tmp_path) -> Path:
    """A copy of it, to do anything with."""
    return Path(shutil.copytree(stablehlo, tmp_path / "model"))


def table(path: Path) -> tuple[list[str], list[list[str]], np.ndarray]:
    """The head, the event and time of each row, and the forecasts of a written table."""
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    return head, [row[:2] for row in rows], np.array([row[2:] for row in rows], float)


# Torch warns of its own code, in its exporters.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_an_exported_run_forecasts_as_the_run(format, tiny_run, tmp_path, write_magnet, capsys):
    """The run is the other backend's; the folder is moved, and the run is not needed."""
    writer = {"jax": "torch", "torch": "jax"}[FORMATS[format].backend]
    run = Path(shutil.copytree(tiny_run(writer), tmp_path / "run"))
    given, said = write_magnet(tmp_path / "in.csv"), capsys.readouterr().out
    assert main(["export", str(run), "--format", format]) == 0
    said = capsys.readouterr().out
    assert f"exported: {run / 'exports' / format}\n" in said
    assert "differ from the checkpoint's by at most " in said
    moved = tmp_path / "moved"
    (run / "exports" / format).rename(moved)
    assert {path.name for path in moved.iterdir()} == {"model.json", FORMATS[format].file}
    found = []
    for source in (run, moved):
        if source == moved:
            shutil.rmtree(run)
        options = ["--input", str(given), "--output", str(tmp_path / "out.csv")]
        assert main(["predict", str(source), *options]) == 0
        found.append(table(tmp_path / "out.csv"))
    assert found[0][:2] == found[1][:2]
    assert len(found[0][1]) == 44
    np.testing.assert_allclose(found[1][2], found[0][2], rtol=1e-4, atol=1e-5)


def test_quantiles_of_a_context_on_the_right_are_forecast_too(
    quantile_run, stablehlo, tmp_path, write_magnet
):
    given, found = write_magnet(tmp_path / "in.csv"), []
    for source in (quantile_run, stablehlo):
        output = tmp_path / "out.csv"
        assert main(["predict", str(source), "--input", str(given), "--output", str(output)]) == 0
        found.append(table(output))
    assert found[0][:2] == found[1][:2]
    assert found[1][0][2:] == ["field_t_q0.1", "field_t_q0.5", "field_t_q0.9"]
    np.testing.assert_allclose(found[1][2], found[0][2], rtol=1e-4, atol=1e-5)


def test_the_json_is_enough_to_feed_the_program_without_ragged(
    stablehlo, quantile_run, tmp_path, write_magnet
):
    """Normalise, forecast and denormalise by hand, as the JSON says it."""
    from jax import export as jax_export

    described = json.loads((stablehlo / "model.json").read_text())
    assert described["format_version"] == 1
    assert described["ragged"] == ragged.__version__
    assert (described["model"], described["format"]) == ("XTFT", "stablehlo")
    inputs, output = described["inputs"], described["output"]
    assert inputs["past"] == {
        "shape": ["batch", "encoder_time", 3],
        "dtype": "float32",
        "columns": ["current", "current_rate", "field"],
        "alignment": "right",
    }
    assert inputs["future"]["columns"] == ["current", "current_rate"]
    assert inputs["decoder_lengths"] == {"shape": ["batch"], "dtype": "int32"}
    assert output["features"] == [f"field, quantile {level}" for level in (0.1, 0.5, 0.9)]
    assert described["transforms"] == {"StandardScaler": "(x - center) / scale"}

    with write_magnet(tmp_path / "in.csv", steps=(35,)).open() as file:
        rows = list(csv.reader(file))[1:]
    current = np.array([float(row[2]) for row in rows])
    field = np.array([float(row[3]) for row in rows if row[3]])
    columns = {"current": current, "current_rate": np.diff(current, prepend=current[0])}
    constants = {
        name: entry["transforms"][0]["StandardScaler"]
        for name, entry in described["normalization"].items()
    }

    def normal(name: str, values: np.ndarray) -> np.ndarray:
        return (values - constants[name]["center"]) / constants[name]["scale"]

    known = np.stack([normal(name, columns[name]) for name in inputs["future"]["columns"]], 1)
    past = np.concatenate([known[:12], normal("field", field)[:, None]], 1)
    program = jax_export.deserialize(bytearray((stablehlo / described["file"]).read_bytes()))
    found = np.asarray(
        program.call(
            past=past[None].astype(np.float32),
            future=known[None, 12:].astype(np.float32),
            encoder_lengths=np.array([12], np.int32),
            decoder_lengths=np.array([23], np.int32),
        )
    )[0]
    found = found * constants["field"]["scale"] + constants["field"]["center"]
    options = ["--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    assert main(["predict", str(quantile_run), *options]) == 0
    expected = table(tmp_path / "out.csv")[2]
    found = np.sort(found)  # a program's quantiles may cross; forecasts in units are in order
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_program_that_forecasts_something_else_is_not_put_in_place(
    tiny_run, need, monkeypatch, tmp_path, capsys
):
    need("torch", "jax")
    backend = load_backend("jax")
    real = backend.export_model

    def wrong(module, path, *, format, quantiles):
        parameters = backend.get_parameters(module)
        copy = backend.create_model(module.config)
        backend.set_parameters(copy, {**parameters, "head.bias": parameters["head.bias"] + 1e-3})
        real(copy, path, format=format, quantiles=quantiles)

    monkeypatch.setattr(backend, "export_model", wrong)
    options = ["--format", "stablehlo", "--output", str(tmp_path / "out")]
    assert main(["export", str(tiny_run("torch")), *options]) == 1
    said = capsys.readouterr().err
    assert re.search(
        r"error: export: the exported model forecasts \S+ in row \d+; expected \S+, as the check"
        r"point does. Nothing was written.", said
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_an_export_replaces_its_own_folder_and_nothing_else(tiny_run, stablehlo, refused, tmp_path):
    run, folder = tiny_run("torch"), tmp_path / "model"
    shutil.copytree(stablehlo, folder)
    before = (folder / "model.json").read_bytes()
    (folder / "model.stablehlo").write_bytes(b"old")
    options = ("--format", "stablehlo", "--output")
    assert main(["export", str(run), *options, str(folder)]) == 0
    assert json.loads((folder / "model.json").read_bytes()).keys() == json.loads(before).keys()
    assert (folder / "model.stablehlo").stat().st_size > 1000
    other = tmp_path / "notes"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    said = refused("export", run, *options, other)
    assert "which is no exported model; expected a new folder, an empty one, or one that" in said
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "notes"]


def edited(**changes: object):
    """Change values of the JSON by their dotted names."""

    def edit(folder: Path) -> None:
        path = folder / "model.json"
        described = json.loads(path.read_text())
        for name, value in changes.items():
            *parents, last = name.split("__")
            place = described
            for parent in parents:
                place = place[parent]
            place[last] = value
        path.write_text(json.dumps(described))

    return edit


def truncated(name: str, size: int):
    def cut(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return cut


def aside(path: Path) -> Path:
    path.unlink()
    return path


def foreign(folder: Path) -> None:
    """Put another program there, with the checksum that belongs to it."""
    content = b"no program at all" * 100
    (folder / "model.stablehlo").write_bytes(content)
    edited(sha256=hashlib.sha256(content).hexdigest())(folder)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated("model.json", 300), "model.json' is damaged or truncated ("),
        (truncated("model.json", 0), "model.json' is damaged or truncated ("),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "is damaged or truncated ("),
        (lambda f: (f / "model.json").write_text("[" * 10**5), "is damaged or truncated ("),
        (lambda f: (f / "model.json").write_text("[1]"), "`format_version` of "),
        (lambda f: (f / "model.json").write_text(" " * 2**21), "more than 1048576 bytes"),
        (edited(format_version=2), "`format_version` of "),
        (edited(format="pickle"), "is pickle; expected one of ['onnx', 'torch', 'stablehlo']"),
        (edited(file="../../etc/passwd"), "`format` of "),
        (edited(sha256=7), "`sha256` of "),
        (edited(output__loss="os"), "`output.loss` of "),
        (edited(output__loss="cross_entropy"), "`output.loss` of "),
        (edited(output__loss="mse"), "`output.quantiles` of "),
        (edited(output__quantiles=[0.1, 2.0, 0.9]), "`output.quantiles` of "),
        (edited(output__targets=["current"]), "`output.features` of "),
        (edited(inputs__past__columns=["field"]), "`inputs.past.columns` of "),
        (edited(inputs__past__alignment="top"), "is top; expected 'left' or 'right'"),
        (edited(inputs=None), "`inputs.past.columns` of "),
        (edited(normalization={}), "`normalization` of "),
        (edited(normalization={"field": 1}), "`normalization` of "),
        (edited(data={"class_path": "os.system"}), "`class_path` of "),
        (edited(data="/etc/passwd"), "`data` of "),
        (lambda f: aside(f / "model.json").mkdir(), "it is no file"),
        (lambda f: (f / "model.stablehlo").unlink(), "it is not there"),
        (lambda f: aside(f / "model.stablehlo").mkdir(), "it is not there"),
        (lambda f: aside(f / "model.stablehlo").symlink_to("/etc/passwd"), "its sha256 is not"),
        (truncated("model.stablehlo", 1000), "its sha256 is not the one in model.json"),
        (foreign, "is damaged or of another format ("),
    ],
)
def test_damaged_and_foreign_artefacts_are_refused(damage, said, damaged, refused, write_magnet):
    damage(damaged)
    given, output = write_magnet(damaged.parent / "in.csv"), damaged.parent / "out.csv"
    assert said in refused("predict", damaged, "--input", given, "--output", output)
    assert not output.exists()


def test_the_format_decides_the_backend(stablehlo, refused, tmp_path, write_magnet):
    files = ("--input", write_magnet(tmp_path / "in.csv"), "--output", tmp_path / "out.csv")
    said = refused("predict", stablehlo, *files, "--backend", "torch")
    assert "predict(): `backend` is 'torch'; expected left out: an exported model's format" in said
    assert "format" in refused("export", stablehlo, "--format", "pickle")
    assert "holds no config.yaml" in refused("export", stablehlo, "--format", "stablehlo")


WITHOUT_FRAMEWORKS = """
import importlib.machinery, sys
blocked = {"torch", "jax", "jaxlib", "flax", "optax"}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)
sys.meta_path.insert(0, Blocker())
from ragged.cli.main import main
status = main(["predict", "model", "--input", "in.csv", "--output", "out.csv"])
assert not blocked & set(sys.modules)
raise SystemExit(status)
"""


def test_onnx_is_forecast_without_any_framework(damaged, write_magnet):
    """The program is made by hand: a step's three quantiles are its known columns times weights."""
    onnx = pytest.importorskip("onnx")
    weights = np.array([[1.0, 2.0, 3.0], [0.0, 0.5, 1.0]], np.float32)
    helper, kinds = onnx.helper, onnx.TensorProto
    described = json.loads((damaged / "model.json").read_text())
    inputs = [
        helper.make_tensor_value_info(
            name, kinds.INT32 if "lengths" in name else kinds.FLOAT, entry["shape"]
        )
        for name, entry in described["inputs"].items()
    ]
    shape = ["batch", "decoder_time", 3]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["future", "weights"], ["output"])],
        "by_hand",
        inputs,
        [helper.make_tensor_value_info("output", kinds.FLOAT, shape)],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    (damaged / "model.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    edited(format="onnx", file="model.onnx", sha256=digest)(damaged)
    write_magnet(damaged.parent / "in.csv", steps=(35,))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FRAMEWORKS],
        capture_output=True, text=True, check=False, cwd=damaged.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    opened = artefact.open_bundle(damaged)
    (row,) = opened.data.rows_for(opened.data.source.read(damaged.parent / "in.csv"))
    constants = described["normalization"]["field"]["transforms"][0]["StandardScaler"]
    expected = np.sort((row.future @ weights) * constants["scale"] + constants["center"])
    _, _, found = table(damaged.parent / "out.csv")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for size in (0, 10, len(content) // 2):
        (damaged / "model.onnx").write_bytes(content[:size])
        with pytest.raises(ArtefactError, match="is damaged or of another format"):
            load_exported(damaged / "model.onnx", format="onnx")
