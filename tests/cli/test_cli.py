"""The command line: what it writes, what it prints, what it refuses and with which exit code."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged.cli import main as cli
from ragged.cli.main import main
from ragged.runs.parser import CONFIGS

BACKENDS = ("torch", "jax")
BASELINES = (
    "rating curve, line",
    "rating curve, parabola",
    "rating curve, rate of change, last observed",
    "persistence",
    "drift",
)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(params=BACKENDS)
def name(request, need):
    need(request.param)
    return request.param


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def table_of(text: str) -> dict[str, tuple[float, float, float]]:
    """Read the printed scores."""
    lines = text.splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.startswith("test events, "))
    found = {}
    for line in lines[start + 1 :]:
        try:
            r2, rmse, mae = map(float, line[46:].split())
        except ValueError:
            break
        found[line[:46].strip()] = (r2, rmse, mae)
    return found


def test_a_run_folder_holds_everything(name, tiny_run, read_losses):
    run = tiny_run(name)
    assert {path.name for path in run.iterdir()} == {
        "checkpoints",
        "config.yaml",
        "forecast.png",
        "loss.png",
        "metrics.jsonl",
        "scores.json",
        "tensorboard",
        "versions.json",
    }
    for picture in ("loss.png", "forecast.png"):
        content = (run / picture).read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 5000
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best", "last"}
    assert [epoch for epoch, *_ in read_losses(run)] == [1, 2, 3]
    assert np.isfinite(read_losses(run)).all()
    scores = json.loads((run / "scores.json").read_text())["targets"]["field"]
    assert set(scores) == {"EncoderDecoderLSTM", *BASELINES}
    assert all(set(score) == {"r2", "rmse", "mae"} for score in scores.values())


def test_a_runs_own_configuration_runs_again(name, tiny_run, read_losses, tmp_path, capsys):
    run = tiny_run(name)
    config = run / "config.yaml"
    assert main(["train", "--config", str(config), "--runs", str(tmp_path / "again")]) == 0
    (again,) = (tmp_path / "again").glob("*/*")
    assert read_losses(again) == read_losses(run)
    assert (again / "scores.json").read_text() == (run / "scores.json").read_text()
    old, new = config.read_text().splitlines(), (again / "config.yaml").read_text().splitlines()
    assert [line for line in old if not line.startswith("runs:")] == [
        line for line in new if not line.startswith("runs:")
    ]
    said = capsys.readouterr().out
    assert "best epoch" in said
    assert f"run: {again}" in said


def test_training_prints_what_runs_where(tmp_path, need, train_tiny, capsys):
    need("torch")
    train_tiny(tmp_path, "torch", trainer__max_epochs=1)
    said = capsys.readouterr().out
    assert "EncoderDecoderLSTM, 597 parameters, float32" in said
    assert "backend torch " in said
    assert " on cpu, ragged " in said
    assert "padding all to the longest would waste" in said
    assert set(table_of(said)) == {"EncoderDecoderLSTM", *BASELINES}


@pytest.mark.parametrize("writer", BACKENDS)
def test_evaluate_gives_equal_scores_on_both_backends(writer, need, tiny_run, capsys):
    need(*BACKENDS)
    run = tiny_run(writer)
    capsys.readouterr()
    found = {}
    for reader in (None, *BACKENDS):
        assert main(["evaluate", str(run), *(["--backend", reader] if reader else [])]) == 0
        found[reader] = table_of(capsys.readouterr().out)
        assert set(found[reader]) == {"EncoderDecoderLSTM", *BASELINES}
    assert found[None] == found["torch"] == found["jax"]
    saved = json.loads((run / "scores.json").read_text())["targets"]["field"]
    for model, score in saved.items():
        assert found[None][model] == pytest.approx(tuple(score.values()), abs=6e-4)


def test_the_table_is_sorted_best_first(any_backend, need, tiny_run, capsys):
    run = tiny_run(any_backend)
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 0
    scores = [r2 for r2, *_ in table_of(capsys.readouterr().out).values()]
    assert scores == sorted(scores, reverse=True)


def test_evaluation_changes_nothing_in_the_run(any_backend, need, tiny_run):
    run = tiny_run(any_backend)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert main(["evaluate", str(run)]) == 0
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_predict_writes_the_unknown_steps(need, tiny_run, tmp_path, capsys, write_magnet):
    need(*BACKENDS)
    table = write_magnet(tmp_path / "in.csv")
    found = []
    for name in BACKENDS:
        output = tmp_path / f"{name}.csv"
        options = ["--input", str(table), "--output", str(output), "--backend", name]
        assert main(["predict", str(tiny_run("torch")), *options]) == 0
        head, *rows = rows_of(output)
        assert head == ["event", "time since the start of the cycle (steps)", "field_t_forecast"]
        expected = [("c0", f"{s}") for s in range(12, 35)]
        expected += [("c1", f"{s}") for s in range(12, 33)]
        assert [(event, time) for event, time, _ in rows] == expected
        found.append(np.array([float(value) for *_, value in rows]))
        assert f"44 steps of 2 events forecast to {output}" in capsys.readouterr().out
    assert np.isfinite(found[0]).all()
    assert np.ptp(found[0]) > 0
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_a_forecast_does_not_depend_on_other_events(
    any_backend, need, tiny_run, tmp_path, write_magnet
):
    run = tiny_run(any_backend)
    found = []
    for name, steps in (("both", (35, 33)), ("one", (35,))):
        table = write_magnet(tmp_path / f"{name}.csv", steps=steps)
        output = tmp_path / f"{name}_out.csv"
        assert main(["predict", str(run), "--input", str(table), "--output", str(output)]) == 0
        values = [float(value) for event, _, value in rows_of(output)[1:] if event == "c0"]
        found.append(np.array(values))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_predict_writes_times_to_their_last_digit(
    any_backend, need, tiny_run, tmp_path, write_magnet
):
    table, output = write_magnet(tmp_path / "in.csv", steps=(35,)), tmp_path / "out.csv"
    head, *rows = rows_of(table)
    late = [[name, str(10**9 + int(step)), *values] for name, step, *values in rows]
    table.write_text("".join(",".join(row) + "\n" for row in [head, *late]))
    run = tiny_run(any_backend)
    assert main(["predict", str(run), "--input", str(table), "--output", str(output)]) == 0
    assert [time for _, time, _ in rows_of(output)[1:]] == [str(10**9 + s) for s in range(12, 35)]


def test_predict_on_storms_is_in_the_units_of_the_table(
    any_backend, need, tmp_path, capsys, write_storms, pictures
):
    table = write_storms(tmp_path / "train.csv")
    options = {
        "config": "storms", "backend": any_backend, "runs": tmp_path / "runs",
        "data.source.init_args.path": table, "model.init_args.hidden_size": 4,
        "trainer.max_epochs": 1, "trainer.device": "cpu",
    }  # fmt: skip
    with pictures():
        assert main(["train", *(f"--{key}={value}" for key, value in options.items())]) == 0
    (run,) = (tmp_path / "runs").glob("storms/*")
    assert (run / "forecast.png").exists()
    # The table the run was trained on is not needed to forecast another.
    table.unlink()
    new = write_storms(tmp_path / "new.csv", events=2, known=10)
    output = tmp_path / "out.csv"
    assert main(["predict", str(run), "--input", str(new), "--output", str(output)]) == 0
    head, *rows = rows_of(output)
    assert head == ["event", "time since the start of the event (h)", "turbidity_fnu_forecast"]
    assert [event for event, *_ in rows] == ["e0"] * 14 + ["e1"] * 15
    assert [float(time) for _, time, _ in rows[:3]] == [2.5, 2.75, 3.0]
    assert all(float(value) > 0 for *_, value in rows)


def test_info_prints_versions_backends_and_devices(capsys):
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert f"ragged-sequences {ragged.__version__}, Python 3." in said
    for package in ("numpy", "torch", "jax", "flax", "optax"):
        assert f"\n{package} " in said
    for name in ragged.available_backends():
        assert f"backend {name:<6} devices: " in said
    assert "cpu" in said


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for verb in ("train", "evaluate", "predict", "info"):
        assert verb in said


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"ragged {ragged.__version__}\n"


def verbs() -> list[str]:
    (action,) = (a for a in cli.create_parser()._actions if a.dest == "subcommand")
    return list(action.choices)


def test_every_verbs_help_ends_with_an_example_of_its_own_that_parses(capsys):
    for verb in (None, *verbs()):
        with pytest.raises(SystemExit) as caught:
            main(["--help"] if verb is None else [verb, "--help"])
        assert caught.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        example = shlex.split(said.rpartition("example: ")[2])
        assert example[:2] == ["ragged", verb or "train"], verb
        cli.parse(cli.create_parser(), cli._with_config(example[1:]))


def test_print_config_gives_a_configuration_that_runs(
    any_backend, need, tmp_path, tiny_arguments, capsys
):
    import yaml

    arguments = tiny_arguments(tmp_path / "runs", any_backend, trainer__max_epochs=1)
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--print_config"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    config = yaml.safe_load(text)
    assert config["model"]["init_args"]["hidden_size"] == 4
    assert config["trainer"]["optimizer"]["init_args"]["beta2"] == 0.999
    assert not (tmp_path / "runs").exists()
    (tmp_path / "again.yaml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "again.yaml")]) == 0
    assert list((tmp_path / "runs").glob("tiny/*/scores.json"))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_packaged_configurations_are_complete(path, capsys):
    import yaml

    with pytest.raises(SystemExit):
        main(["train", "--config", path.stem, "--print_config"])
    resolved = yaml.safe_load(capsys.readouterr().out)
    written = yaml.safe_load(path.read_text())
    for key in ("name", "backend", "seed"):
        assert resolved[key] == written[key]
    assert resolved["trainer"] == written["trainer"]


def test_training_without_a_configuration_takes_storms(capsys):
    import yaml

    with pytest.raises(SystemExit):
        main(["train", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "storms"


def test_the_installed_command_and_its_exit_codes(tmp_path):
    command = Path(sys.executable).with_name("ragged")
    if not command.exists():
        pytest.skip("the package is not installed")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )

    done = call()  # the help, for which no framework is loaded
    assert (done.returncode, done.stderr) == (0, "")
    assert "train" in done.stdout
    done = call("train", "--config", "storm")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the nearest name is 'storms'" in done.stderr
    assert not list(tmp_path.iterdir())
