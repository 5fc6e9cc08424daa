"""Comparing runs: the table, the picture, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("jsonargparse")

from ragged.cli.main import main
from ragged.report.comparison import ComparedRun, table


def test_runs_are_compared_in_one_table_and_one_picture(tiny_run, tmp_path, capsys):
    folders = [tiny_run("torch"), tiny_run("jax")]
    capsys.readouterr()
    picture = tmp_path / "compare.png"
    assert main(["compare", *map(str, folders), "--output", str(picture)]) == 0
    first, second, *lines = capsys.readouterr().out.splitlines()
    assert first.split() == ["run", "model", "backend", "parameters", "epochs", "seconds", "field"]
    assert second.split() == ["R²", "RMSE", "MAE"]
    for folder, backend, line in zip(folders, ("torch", "jax"), lines, strict=False):
        score = json.loads((folder / "scores.json").read_text())["targets"]["field"]
        expected = [f"{value:.3f}" for value in score["EncoderDecoderLSTM"].values()]
        name, model, trained, parameters, epochs, _, *values = line.split()
        assert name == f"tiny/{folder.name}"
        assert (model, trained, parameters, epochs) == ("EncoderDecoderLSTM", backend, "597", "3")
        assert values == expected
    assert lines[2:] == [f"picture: {picture}"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_scores_on_different_steps_are_told_apart(tiny_run, tmp_path, capsys):
    other = shutil.copytree(tiny_run("torch"), tmp_path / "other")
    path = other / "scores.json"
    scores = json.loads(path.read_text())
    scores["targets"]["field"]["persistence"]["rmse"] += 0.1
    path.write_text(json.dumps(scores))
    options = ["--output", str(tmp_path / "out.png")]
    assert main(["compare", str(tiny_run("torch")), str(other), *options]) == 0
    assert "scored on different test steps: their baselines differ" in capsys.readouterr().out


def test_one_run_and_other_targets_are_refused(tiny_run, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tiny_run("torch")
    said = refused("compare", run)
    assert "compare(): `folders` is one run; expected two runs or more. Name another." in said
    assert "`folders` is empty; expected two runs" in refused("compare")
    other = shutil.copytree(run, tmp_path / "other")
    scores = (run / "scores.json").read_text()
    (other / "scores.json").write_text(scores.replace('"field"', '"current"'))
    said = refused("compare", run, other)
    assert "which forecasts ['current']; " in said
    assert "expected ['field'], as" in said
    assert not (tmp_path / "compare.png").exists()


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("scores.json", None, "cannot be read"),
        ("scores.json", '{"targets": {"fie', "is damaged or truncated"),
        ("scores.json", "[]", "is damaged or truncated (it holds a list"),
        ("scores.json", '{"XTFT": {}}', "holds no scores by target"),
        ("scores.json", '{"targets": {"field": {"XTFT": 1}}}', "has no r2, rmse and mae of"),
        ("metrics.jsonl", None, "cannot be read"),
        ("metrics.jsonl", "", "no epoch in it"),
        ("metrics.jsonl", '{"epoch": 1}\n', "a record without 'train_loss'"),
        ("metrics.jsonl", "{", "is damaged or truncated"),
        ("config.yaml", None, "holds no config.yaml"),
        ("checkpoints/best/model.safetensors", "x", "is damaged or truncated"),
    ],
)
def test_a_missing_or_damaged_file_is_named(file, content, text, tiny_run, refused, tmp_path):
    whole = tiny_run("torch")
    broken = shutil.copytree(whole, tmp_path / "broken")
    path = broken / file
    path.unlink() if content is None else path.write_text(content)
    said = refused("compare", whole, broken, "--output", tmp_path / "out.png")
    assert text in said
    assert path.name in said


def test_a_run_took_as_long_as_its_epochs():
    epochs = [{"seconds": 100.0}, {"seconds": 23.0}]
    run = ComparedRun("a/1", "XTFT", "torch", 12, epochs, {"flow": {"r2": 0.5}})
    assert run.seconds == 123.0
    line = table([run, run]).splitlines()[2]
    assert line.split() == ["a/1", "XTFT", "torch", "12", "2", "123", "0.500"]
