"""How the command line ends: 0 done, 1 failed, 2 bad usage or input, 130 stopped by the user."""

from __future__ import annotations

import errno
import os
import re
import subprocess

import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged import __main__
from ragged.cli import main as cli
from ragged.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["bogus"], "invalid choice: 'bogus'"),
        (["predict"], "required"),
        (["predict", "run", "--input", "a.csv"], "output"),
        (["evaluate"], "run"),
        (["train", "--config"], "expected one argument"),
        (["train", "--nope"], "--nope"),
        (["info", "more"], "more"),
        (["train", "--seed", "x"], "seed is 'x'; expected an integer.\nCompare with"),
        (["train", "--data.batch_size", "x"], "data.batch_size is 'x'; expected an integer."),
        (["train", "--trainer.ema_decay", "x"], "ema_decay is 'x'; expected a number or null."),
        (["train", "--trainer.use_loss_masking", "x"], "is 'x'; expected true or false."),
        (["export", "x", "--format", "y"], "expected one of 'onnx', 'torch', 'stablehlo'."),
        (["train", "--model", "Nope"], "Expected a dot import path string: Nope"),
        (["train", "--name", "../x"], "`name` is '../x'; expected that of a folder in `runs`"),
        (["train", "--name="], "`name` is ''"),
        (["train", "--name", "/tmp/x"], "`name` is '/tmp/x'"),
        (["train", "--resume", "x", "--seed=1"], "`--resume` is given with --seed"),
        (["evaluate", "x", "--nope"], "See `ragged evaluate --help`"),
    ],
)
def test_bad_usage_is_2(refused, arguments, expected):
    assert expected in refused(*arguments)


def test_without_its_extra_the_command_names_it(monkeypatch, capsys):
    monkeypatch.setitem(__main__.NEEDED, "not_installed", "NotInstalled")
    assert __main__.run() == 1
    said = "ragged: error: the command line needs NotInstalled. Install the extra: pip install "
    assert capsys.readouterr().err == f"{said}'ragged-sequences[train]'.\n"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/runs/x"),
            1,
            "'/runs/x': No space left",
        ),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs"), 2, "'/runs': Permission"),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "/etc/hosts/x"),
            2,
            "Not a directory",
        ),
        (MemoryError("Unable to allocate 4 PiB"), 1, "not enough memory"),
        (ConfigError("config: no"), 2, "config: no"),
        (ragged.errors.DivergenceError("training: the loss"), 1, "the loss"),
        (ragged.errors.BackendError("no backend"), 1, "no backend"),
        (KeyboardInterrupt(), 130, "--resume"),
        (BrokenPipeError(), 1, ""),
        (UnicodeEncodeError("ascii", "R²", 1, 2, "no"), 1, "ascii; set PYTHONIOENCODING=utf-8"),
    ],
)
def test_every_end_has_its_code_and_one_line(monkeypatch, capsys, error, status, said):
    def fail(arguments: list[str]) -> None:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["info"]) == status
    found = capsys.readouterr()
    assert said in found.err
    assert found.err.count("\n") == (1 if said else 0)
    assert "Traceback" not in found.err + found.out


def test_an_output_that_cannot_be_written_is_2(copied, refused, write_magnet, tmp_path):
    table = write_magnet(tmp_path / "in.csv")
    (tmp_path / "folder").mkdir()
    for output in (tmp_path / "no" / "out.csv", tmp_path / "folder", table / "out.csv"):
        refused("predict", copied, "--input", table, "--output", output)
    assert sorted(os.listdir(tmp_path)) == ["folder", "in.csv", "run"]
    assert not os.listdir(tmp_path / "folder")
    assert "in.csv" in refused("train", "--config", "magnet", "--runs", table)


def test_a_full_disk_is_1_and_keeps_the_last_checkpoint(copied, monkeypatch, capsys):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 3", "max_epochs: 4"))
    last = copied / "checkpoints" / "last"
    before = {path.name: path.read_bytes() for path in last.iterdir()}
    real = os.fsync

    def full(handle: int) -> None:
        if "optimizer" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(["train", "--resume", str(copied)]) == 1
    assert "ragged: error: No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in last.iterdir()} == before
    assert sorted(os.listdir(last.parent)) == ["best", "last"]


def test_the_installed_command_survives_a_closed_pipe(installed):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([installed, "info"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_what_a_constructor_refuses_is_told_alone_of_a_run_too(refused, copied, tmp_path):
    wrong = ["--data.source.init_args.cycles", "0", "--runs", tmp_path / "runs"]
    expected = "ragged: error: MagnetHysteresis(): `cycles` is 0; expected 1 or more. Raise it.\n"
    assert refused("train", "--config", "magnet", *wrong) == expected
    config = copied / "config.yaml"
    config.write_text(re.sub("cycles: [0-9]+", "cycles: 0", config.read_text()))
    assert refused("evaluate", copied) == expected


def test_the_base_class_of_all_models_is_none(refused, tmp_path):
    model = ["--model", "ragged.models.Model", "--runs", tmp_path]
    message = refused("train", "--config", "storms", *model)
    assert "`model.class_path` is ragged.models.Model; expected one of ['AttentionLSTM'" in message
    assert list(tmp_path.iterdir()) == []
