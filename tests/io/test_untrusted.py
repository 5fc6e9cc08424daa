"""A configuration from anyone: it runs no code, ends within seconds, and is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged.cli import main as cli
from ragged.errors import OptionError
from ragged.io.safe_yaml import MAX_BYTES

SECONDS = 10

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="untrusted files as Linux has them")


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "untrusted.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def train(tmp_path, refused):
    """Train from a configuration that must be refused, and leave nothing."""

    def _train(text: str | bytes) -> str:
        path = written(tmp_path, text)
        arguments = ["train", "--config", "magnet", "--config", path]
        said = refused(*arguments, "--runs", tmp_path / "runs")
        assert not {"this", "antigravity", "evil_module"} & set(sys.modules)
        assert not (tmp_path / "runs").exists()
        assert len(said) < 5000
        return said

    return _train


FOREIGN = [
    "os.system",
    "subprocess.Popen",
    "this.s",
    "evil_module.Evil",
    "ragged.io.checkpoint.shutil.rmtree",
    "ragged.io.atomic.shutil.rmtree",
    "ragged.cli.main.argparse.ArgumentParser",
    "ragged.data.sources.os.system",
    "ragged.data.sources.Path",
    "ragged.data.sources.np.ndarray",
    "ragged.io.atomic.tempfile.TemporaryDirectory",
    "ragged.data.storms._read",
    "ragged.data.sources.read_csv",
    "ragged.data.sources.Source",
    "ragged.data.Series",
    "ragged.models.XTFT",
    "ragged.training.TrainerConfig",
    "ragged.cli.main.main",
    "ragged.__main__.run",
    "data.Storms",
    ".ragged.data.Storms",
    "ragged..data.Storms",
    "ragged.data.Storms.__init__",
    "ragged.data.Storms()",
    "RAGGED.data.Storms",
    "../evil_module.Evil",
    "ragged_torch.LSTM",
    "",
]


@pytest.mark.parametrize("path", FOREIGN)
def test_a_class_path_names_sources_of_ragged_only(train, evil, path):
    assert "source" in train(nested(f"source: {{class_path: {json.dumps(path)}}}"))
    assert "source" in train(nested(f"source: {json.dumps(path)}"))
    assert not evil.exists()


def nested(line: str) -> str:
    """A line of the data section."""
    return f"data:\n  class_path: ragged.data.EncoderDecoderDataModule\n  init_args:\n    {line}\n"


@pytest.mark.parametrize("path", FOREIGN[:12])
@pytest.mark.parametrize("section", ["model", "data"])
def test_a_class_path_names_models_of_ragged_only(train, evil, section, path):
    train(f"{section}:\n  class_path: {json.dumps(path)}\n")
    assert not evil.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: &a evil_module.Evil\nmodel: {class_path: *a}", "line 2"),
        ("x: &a {class_path: evil_module.Evil}\nmodel: {<<: *a}", "line 2"),
        ("model: {<<: {class_path: evil_module.Evil}}", "evil_module"),
        ("model: {class_path: ragged.models.XTFT, init_args: {dropout: {class_path: os.system}}}",
         "dropout"),
        ("trainer: {optimizer: {class_path: evil_module.Evil}}", "evil_module"),
        ("trainer: evil_module.Evil", "evil_module"),
        ("model: {class_path: [evil_module.Evil]}", "evil_module"),
        ("model: !!python/object/apply:os.system [true]", "line 1"),
        ("name: !!python/name:os.system", "line 1"),
        ("name: !!binary aGVsbG8=", "line 1"),
        ("backend: evil_module", "`backend` is 'evil_module'"),
        ("backend: .evil_module", "`backend` is '.evil_module'"),
        ("backend: ''", "`backend` is ''"),
        ("backend: ragged_torch.os", "`backend` is 'ragged_torch.os'"),
    ],
)  # fmt: skip
def test_no_way_round_leads_to_foreign_code(train, evil, text, expected):
    assert expected in train(text)
    assert not evil.exists()


def test_an_allowed_backend_is_imported(tmp_path, evil, capsys):
    arguments = ["train", "--backend", "evil_module", "--runs", str(tmp_path / "runs")]
    assert cli.main(arguments) == 2
    assert not evil.exists()
    assert cli.main([*arguments, "--allow-import", "evil_module"]) == 1
    assert evil.exists()
    assert "backend 'evil_module' lacks" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "*", "a b", "../x", "jsonargparse"])
def test_only_modules_can_be_allowed(refused, name):
    assert "--allow-import` " in refused("train", "--allow-import", name)


BOMB = "".join(
    f"{name}: &{name} [{', '.join([f'*{last}' if last else 'lol'] * 9)}]\n"
    for last, name in zip(" abcdefghi".replace(" ", "\0"), "abcdefghij", strict=True)
).replace("*\0", "lol")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB + "quantiles: *j\n", "line 2"),
        ("trainer: {max_epochs: '[&a [1,1], &b [*a,*a], [*b,*b]]'}", "YAML inside a string"),
        ("a: &a [*a]", "line 1"),
        ("a: " + "[" * 100_000, "nested more than 32 deep"),
        ("a: " + "{b: " * 50_000, "nested more than 32 deep"),
        ("- " * 100_000 + "a", "nested more than 32 deep"),
        ("trainer: {max_epochs: '" + "[" * 900 + "'}", "YAML inside a string"),
        ("trainer: {max_epochs: '" + "- " * 499 + "'}", "max_epochs"),
        ("a: " + "x" * MAX_BYTES, f"more than {MAX_BYTES} bytes"),
        ("name: " + "x" * 2000, "line 1"),
        ("seed: 0\nseed: 1", "key 'seed' is repeated"),
        ("seed: 0\n? {a: 1}\n: 2", "line 2"),
        (b"name: \xff\xfe\xfa", "no plain YAML"),
        (b"name: a\x00b", "no plain YAML"),
        ('name: "a\\0b"', "a NUL character"),
        ("trainer: {max_epochs: 1" + "0" * 4400 + "}", "line 1"),
        ("trainer: {max_epochs: 1" + "0" * 900 + "}", "`trainer.max_epochs` is an integer of"),
        ("trainer: {max_epochs: '1" + "0" * 900 + "'}", "`trainer.max_epochs` is an integer of"),
        ("seed: 0x_", "no plain YAML"),
        ("a: b: c", "line 1"),
        ("config: other.yaml", "`config` of"),
        ("trainr: {a: 1}", "the nearest name is 'trainer'"),
        ("trainr: {}", "`trainr` of"),
        ("trainer: {optimizr: {}}", "`trainer.optimizr` of"),
        ("trainer: {max_epoch: 1}", "the nearest name is 'max_epochs'"),
        ("trainer: {tolerance: .nan}", "`trainer.tolerance` is nan"),
        ("trainer: {tolerance: .inf}", "`trainer.tolerance` is inf"),
        ("trainer: {tolerance: 1e999}", "`trainer.tolerance` is inf"),
        ("trainer: {quantiles: [0.1, .nan]}", "`trainer.quantiles` is nan"),
        ("trainer: {optimizer: {beta1: .nan}}", "`trainer.optimizer.beta1` is nan"),
        (
            "data: {transforms: {y: [{class_path: Affine, init_args: {scale: .inf}}]}}",
            "`data.transforms.y.init_args.scale` is inf",
        ),
        ("trainer: {max_epochs: [1]}", "max_epochs"),
        ("trainer: {max_epochs: 1.5}", "max_epochs"),
        ("trainer: 3", "`trainer` of"),
        ("trainer: {optimizer: 3}", "`trainer.optimizer` of"),
        ("data: {source: 3}", "data"),
        ("model: 3", "`model` of"),
        ("model: true", "`model` of"),
        ("trainer: [max_epochs]", "`trainer` of"),
        ("seed: true", "seed"),
        ("name: {a: b}", "name"),
    ],
)
def test_a_hostile_document_is_refused_with_its_place(train, text, expected):
    assert expected in train(text)


def test_files_that_never_end_are_not_read(tmp_path, refused):
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 2**40)
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path, tmp_path / "pipe", tmp_path / "sparse"):
        assert str(path) in refused("train", "--config", path)


def test_a_section_is_not_read_from_another_file(tmp_path, train, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("max_epochs: 3\n")
    for section in ("model", "data", "trainer"):
        assert f"`{section}` of" in train(f"{section}: other.yaml")
        assert f"`{section}` of" in train(f"{section}: /dev/zero")


SIZES = {"past_features": 3, "future_features": 2}


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        ("EncoderDecoderLSTM", "hidden_size", 10**12),
        ("EncoderDecoderLSTM", "decoder_hidden_size", 10**6),
        ("EncoderDecoderLSTM", "num_layers", 10**9),
        ("EncoderDecoderLSTM", "output_size", 10**9),
        ("TransformerLSTM", "num_blocks", 10**9),
        ("XTFT", "past_features", 10**9),
        ("XTFT", "hidden_continuous_size", 10**9),
        ("EncoderDecoderLSTM", "hidden_size", -1),
        ("EncoderDecoderLSTM", "dropout", float("nan")),
    ],
)
def test_sizes_that_no_machine_holds_are_refused_before_anything_is_made(model, name, value):
    cls = getattr(ragged.models, model)
    with pytest.raises(OptionError, match=f"`{name}` is {value}; expected"):
        cls.describe(**{**SIZES, name: value})


def test_data_that_no_machine_holds_are_refused(tmp_path):
    from ragged.data import EncoderDecoderDataModule, MagnetHysteresis

    for name in ("cycles", "max_steps"):
        with pytest.raises(OptionError, match=r"`cycles` is .*at most 100000000 steps in all"):
            MagnetHysteresis(**{name: 10**12})
    with pytest.raises(OptionError, match="`batch_size` is 1000000000000; expected at most 65536"):
        EncoderDecoderDataModule(MagnetHysteresis(), batch_size=10**12)


def test_the_installed_command_refuses_a_bomb_in_seconds_and_little_memory(installed, tmp_path):
    def command(text: str) -> list[str]:
        return [str(installed), "train", "--config", str(written(tmp_path, text))]

    for text in (BOMB, "a: " + "[" * 100_000, "trainer: {max_epochs: '" + "[" * 30_000 + "'}"):
        done = subprocess.run(
            ["sh", "-c", f'ulimit -v {2**21} && exec "$@"', "sh", *command(text)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 2
        assert "no plain YAML" in done.stderr
        assert "Traceback" not in done.stderr
