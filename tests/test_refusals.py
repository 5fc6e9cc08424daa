"""What the command line refuses, with which words and exit code, and what it never imports."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged.cli.main import main
from ragged.runs.parser import CONFIGS

BACKENDS = ("torch", "jax")


# What is refused


def changed(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = (CONFIGS / "magnet.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "changed.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  max_epochs:", "  max_epoch:"),
        ("    hidden_size:", "    hiden_size:"),
        ("    learning_rate:", "    learning_rat:"),
        ("  batch_size:", "  batchsize:"),
        ("seed:", "sed:"),
        ("trainer:", "trainr:"),
    ],
)
def test_typing_errors_are_refused_with_the_nearest_name(tmp_path, refused, old, new):
    said = refused("train", "--config", changed(tmp_path, (old, new)), "--runs", tmp_path / "r")
    assert new.strip().rstrip(":") in said
    assert f"the nearest name is '{old.strip().rstrip(':')}'" in said
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--trainer.max_epoch", "3"], "the nearest name is"),
        (["--trainer.max_epochs", "many"], "max_epochs"),
        (["--model.init_args.hidden_size", "0"], "`hidden_size` is 0"),
        (["--model.init_args.dropout", "1"], "`dropout` is 1"),
        (["--trainer.loss", "mean"], "`loss` is 'mean'"),
        (["--trainer.precision", "float8"], "`precision` is 'float8'"),
        (["--trainer.quantiles", "[0.1, 0.9]"], "[0.1, 0.9]; expected none with the loss mse"),
        (["--trainer.quantiles", "[0.5, 0.50000001]"], "expected levels that differ"),
        (["--trainer.optimizer.learning_rate", "-1"], "`learning_rate` is -1"),
        (["--data.batch_size", "0"], "`batch_size` is 0"),
        (["--data.validation", "0.9", "--data.test", "0.2"], "below 1 together with"),
        (["--data.source.init_args.cycles", "2"], "to train on"),
        (["--data.encoder_alignment", "right"], "`data.encoder_alignment` is 'right'"),
        (["--model", "EncoderDecoderLSTMs"], "EncoderDecoderLSTMs"),
        (["--model", "ragged.models.Transformer"], "Transformer"),
        (["--trainer.device", "tpu"], "`device` is 'tpu'"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_wrong_values_are_refused_and_leave_no_run(
    any_backend, tmp_path, refused, need, arguments, text
):
    said = refused(
        "train",
        "--config",
        "magnet",
        "--backend",
        any_backend,
        "--runs",
        tmp_path / "r",
        *arguments,
    )
    assert text in said
    assert not list(tmp_path.glob("r/*/*/checkpoints"))


@pytest.mark.parametrize("form", ["--config", "--config="])
def test_unknown_configurations_are_refused(refused, form):
    arguments = ["--config", "magnets"] if form == "--config" else ["--config=magnets"]
    said = refused("train", *arguments)
    assert "`--config` is 'magnets'; expected a YAML file or one of ['magnet', 'storms']" in said
    assert "the nearest name is 'magnet'" in said


@pytest.mark.parametrize("name", ["backend", "name", "runs", "model", "data"])
def test_a_configuration_without_what_it_needs_is_refused(tmp_path, refused, name):
    import yaml

    config = yaml.safe_load((CONFIGS / "magnet.yaml").read_text())
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**config, name: None}))
    said = refused("train", "--config", tmp_path / "c.yaml")
    assert f"config: `{name}` is None; expected given. Write it out;" in said


def test_a_configuration_that_is_no_mapping_is_refused(tmp_path, refused):
    for text, expected in (("- 1", "no mapping"), ("a: [", "no plain YAML"), ("", "no mapping")):
        (tmp_path / "c.yaml").write_text(text)
        assert expected in refused("train", "--config", tmp_path / "c.yaml")


def test_an_unknown_backend_is_refused(tmp_path, refused):
    said = refused("train", "--backend", "torhc", "--runs", tmp_path / "r")
    assert "`backend` is 'torhc'; expected one of ['jax', 'torch']" in said
    assert "the nearest name is 'torch'" in said
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("verb", ["evaluate", "predict", "resume"])
def test_what_is_no_run_is_refused(tmp_path, refused, verb):
    more = ["--input", "a.csv", "--output", "b.csv"] if verb == "predict" else []
    arguments = ["train", "--resume", tmp_path] if verb == "resume" else [verb, tmp_path, *more]
    assert f"run: {str(tmp_path)!r} holds no config.yaml" in refused(*arguments)


def storms(table: Path, runs: Path) -> list[object]:
    backend = ragged.available_backends()[-1]
    return ["train", "--config", "storms", "--backend", backend, "--runs", runs,
            "--data.source.init_args.path", table]  # fmt: skip


def test_a_missing_column_is_refused(tmp_path, refused, write_storms):
    table = write_storms(tmp_path / "t.csv")
    table.write_text(table.read_text().replace("discharge_m3s", "discharge"))
    said = refused(*storms(table, tmp_path / "r"))
    assert "is without column 'discharge_m3s'" in said
    assert "Rename 'discharge'." in said


def test_an_unknown_target_in_training_data_is_refused(tmp_path, refused, write_storms):
    table = write_storms(tmp_path / "t.csv", known=20)
    said = refused(*storms(table, tmp_path / "r"))
    assert "`log_turbidity` is unknown in event 'e0' at step 20" in said


def test_a_missing_table_is_refused(any_backend, tmp_path, refused, tiny_run):
    assert "no.csv, which is no file" in refused(*storms(tmp_path / "no.csv", tmp_path / "r"))
    run = tiny_run(any_backend)
    output = tmp_path / "out.csv"
    said = refused("predict", run, "--input", tmp_path / "no.csv", "--output", output)
    assert "no.csv, which is no file" in said
    assert not output.exists()


def test_an_output_that_would_replace_what_is_read_is_refused(
    any_backend, tmp_path, refused, tiny_run, write_magnet
):
    run, table = tiny_run(any_backend), write_magnet(tmp_path / "t.csv")
    before = table.read_bytes()
    for source in (table, tmp_path):
        arguments = ["--input", source, "--output", table]
        for verb in ("predict", "backtest"):
            said = refused(verb, run, *arguments)
            assert "t.csv', which is read; expected another file than the table" in said
    (tmp_path / "f.csv").mkdir()
    said = refused("predict", run, "--input", table, "--output", tmp_path / "f.csv")
    assert "f.csv', which is a folder; expected a file" in said
    assert table.read_bytes() == before


def test_events_that_cannot_be_forecast_are_refused(
    any_backend, tmp_path, refused, tiny_run, write_magnet
):
    run = tiny_run(any_backend)
    table = write_magnet(tmp_path / "t.csv", known=0)
    said = refused("predict", run, "--input", table, "--output", tmp_path / "out.csv")
    assert "unknown at the first step of event 'c0'" in said


def test_a_damaged_checkpoint_is_refused(any_backend, tmp_path, refused, tiny_run):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(tiny_run(any_backend), run)
    path = run / "checkpoints" / "best" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    assert "is damaged or truncated" in refused("evaluate", run)


def test_a_diverging_run_exits_with_1(any_backend, tmp_path, need, tiny_arguments, capsys):
    arguments = tiny_arguments(
        tmp_path,
        any_backend,
        trainer__optimizer__learning_rate="1e30",
        trainer__max_grad_norm="null",
    )
    assert main(arguments) == 1
    assert "ragged: error: training: the loss is " in capsys.readouterr().err


def test_stopping_by_hand_exits_with_130(monkeypatch, capsys):
    def stop(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ragged.cli.main._run", stop)
    assert main(["train"]) == 130
    assert "--resume" in capsys.readouterr().err


# What a configuration may import


@pytest.mark.parametrize("where", ["source", "model", "optimizer"])
def test_other_modules_are_not_even_imported(tmp_path, refused, evil, where):
    lines = {
        "source": ("class_path: ragged.data.MagnetHysteresis", "class_path: evil_module.Evil"),
        "model": ("class_path: ragged.models.EncoderDecoderLSTM", "class_path: evil_module.Evil"),
        "optimizer": (
            "class_path: ragged.training.optimizers.AdamW",
            "class_path: evil_module.Evil",
        ),
    }
    said = refused("train", "--config", changed(tmp_path, lines[where]), "--runs", tmp_path / "r")
    assert "evil_module" in said
    assert "--allow-import MODULE admits another module" in said
    assert not evil.exists()
    assert "evil_module" not in sys.modules
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "ragged_evil.Source"])
def test_code_elsewhere_is_not_run(tmp_path, refused, monkeypatch, path):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ragged_evil.py").write_text("raise SystemExit('imported')")
    arguments = ["--data.source", path, "--runs", tmp_path / "r"]
    refused("train", "--config", "magnet", *arguments)
    assert "ragged_evil" not in sys.modules
    assert not (tmp_path / "r").exists()


def test_a_runs_configuration_is_held_to_the_same(any_backend, tmp_path, refused, evil, tiny_run):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(tiny_run(any_backend), run)
    text = (run / "config.yaml").read_text()
    text = text.replace("ragged.data.MagnetHysteresis", "evil_module.Evil")
    (run / "config.yaml").write_text(text)
    for arguments in (["evaluate", run], ["train", "--resume", run]):
        assert "evil_module" in refused(*arguments)
    assert not evil.exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    "form", [["--allow-import", "evil_module"], ["--allow-import=evil_module"]]
)
def test_an_allowed_module_is_imported(tmp_path, evil, form, capsys):
    config = changed(
        tmp_path, ("ragged.data.MagnetHysteresis", "evil_module.Evil"), ("name: magnet", "name: m")
    )
    with pytest.raises(SystemExit) as caught:
        main(["train", "--config", str(config), *form, "--print_config"])
    assert caught.value.code == 0
    assert evil.exists()
    assert "class_path: evil_module.Evil" in capsys.readouterr().out


def test_allowing_one_module_allows_no_other_and_is_not_remembered(tmp_path, refused, evil):
    config = changed(tmp_path, ("ragged.data.MagnetHysteresis", "evil_module.Evil"))
    refused("train", "--config", config, "--allow-import", "json", "--print_config")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(config), "--allow-import", "evil_module", "--print_config"])
    sys.modules.pop("evil_module")
    evil.unlink()
    refused("train", "--config", config, "--print_config")
    assert not evil.exists()


def test_yaml_tags_make_no_objects(tmp_path, refused):
    mark = tmp_path / "ran"
    config = changed(
        tmp_path, ("name: magnet", f"name: !!python/object/apply:os.system ['touch {mark}']")
    )
    assert "no plain YAML" in refused("train", "--config", config, "--runs", tmp_path / "r")
    assert not mark.exists()


def test_nothing_is_read_from_the_environment(tmp_path, monkeypatch, capsys):
    import yaml

    monkeypatch.setenv("RAGGED_TRAINER__MAX_EPOCHS", "77")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "--config", "magnet", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["max_epochs"] == 40
    assert os.listdir(tmp_path) == []
