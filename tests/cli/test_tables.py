"""A table of a user's own from YAML to forecasts: nothing about it is said twice."""

from __future__ import annotations

import csv
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jsonargparse")
pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

from ragged.cli.main import main
from ragged.data.tables import source
from ragged.runs.folder import open_run
from ragged.runs.parser import train_parser

YAML = """
model: {{class_path: EncoderDecoderLSTM, init_args: {{hidden_size: 2, num_layers: 1}}}}
data.source:
  class_path: Tables
  init_args: {{path: {path}, target: [y], time: day, group: [shop, item]{more}}}
trainer: {{max_epochs: 1, device: cpu}}
"""


def write_table(path: Path, days: int, *, known: int | None = None) -> Path:
    """Write two series with dates that are day first, with words and without anything else."""
    lines = ["day,shop,item,kind,y"]
    for number, shop in enumerate(("north", "south"), start=1):
        for day in range(days):
            value = "" if known is not None and day >= known else f"{np.sin(day) + number:.3f}"
            date = datetime(2023, 1, 1) + timedelta(days=day)
            lines.append(f"{date:%d/%m/%Y},{shop},007,{shop},{value}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def train(tmp_path, need):
    """Train a tiny model on a table, and give its run."""

    def _train(more: str = "", *options: str, days: int = 56) -> Path:
        need("torch")
        table = write_table(tmp_path / "shops.csv", days)
        config = tmp_path / "shops.yaml"
        config.write_text(YAML.format(path=table, more=more))
        runs = tmp_path / "runs"
        arguments = ["--config", str(config), "--runs", str(runs), "--backend", "torch", *options]
        assert main(["train", *arguments, "--data.split=time"]) == 0
        (run,) = runs.glob("run/*")
        return run

    return _train


def test_a_table_with_dates_and_words_is_forecast(train, tmp_path, capsys, monkeypatch, pictures):
    reads, read_tables = [], source.read_tables
    monkeypatch.setattr(source, "read_tables", lambda *a: (reads.append(a), read_tables(*a))[1])
    with pictures():
        run = train(", past: [kind]")
    assert (run / "forecast.png").exists()
    assert len(reads) == 1
    said = capsys.readouterr().out
    assert "training: 42 rows, 78 steps; validation: 2 rows, 12 steps; test: 4 rows, 22" in said
    assert "\nwindows: context 12 steps, horizon 7 steps, in training one every 1 step\n" in said
    assert "note: columns were added: day_of_week (sin), day_of_week (cos)" in said
    write_table(tmp_path / "shops.csv", 70)  # the model goes on with what it was trained with
    with open_run(run, train_parser()) as opened:
        assert opened.data.normalization.to_dict() == opened.normalization
    (tmp_path / "shops.csv").unlink()  # a run does not need it to forecast another table
    # All days of the new table may be months: the run knows the form.
    new, output = write_table(tmp_path / "new.csv", 12, known=6), tmp_path / "out.csv"
    new.write_text(new.read_text().replace("north,007,north", "north,007,east"))
    assert main(["predict", str(run), "--input", str(new), "--output", str(output)]) == 0
    with output.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["shop", "item", "day", "y_forecast"]
    assert [row[:2] for row in rows] == [["north", "007"]] * 6 + [["south", "007"]] * 6
    assert [date for _, _, date, _ in rows[:2]] == ["2023-01-07", "2023-01-08"]
    assert np.isfinite([float(value) for *_, value in rows]).all()
    said = capsys.readouterr().out
    assert "note: cells of 'kind' with a label that is not told apart" in said
    assert "taken as none of them: 12 (east)" in said


def test_a_report_tells_series_and_dates_apart_and_what_was_trained(train, tmp_path):
    run = train(", units: {y: °C}", "--data.windows={context: 14, horizon: 7}")
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert re.search(r"best: (north|south)/007, 2023-02-\d\d to 2023-02-\d\d \(RMSE", page)
    for label in (">day</text>", ">Feb</text>", ">y [°C]</text>"):
        assert label in page
    facts = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert facts["data"] == f"{tmp_path / 'shops.csv'} (Tables)"
    assert facts["series told apart by"] == "shop, item"
    assert facts["windows"] == "context 14, horizon 7, stride 1"
    assert facts["split"] == "each series by its steps; validation 10\xa0%, test 20\xa0%"
    assert facts["transforms"] == "StandardScaler"
    assert "hidden_size 2, num_layers 1" in facts["model"]
    assert "learning_rate 0.003" in facts["optimizer"]


# Torch warns of its own code, in its exporters.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated")
def test_a_table_with_nothing_known_ahead_is_forecast_and_exported(train, tmp_path, need):
    need("torch")
    run = train(", calendar: none")
    exported = tmp_path / "exported"
    options = ["--format", "torch", "--output", str(exported)]
    assert main(["export", str(run), *options]) == 0
    (tmp_path / "shops.csv").unlink()
    manifest = json.loads((exported / "model.json").read_text())
    (name,) = manifest["inputs"]["future"]["columns"]
    assert name == "step from the start of the horizon"
    assert set(manifest["derived"]) == {name}
    new, found = write_table(tmp_path / "new.csv", 27, known=20), []
    for each in (run, exported):
        output = tmp_path / f"{each.name}.csv"
        assert main(["predict", str(each), "--input", str(new), "--output", str(output)]) == 0
        with output.open(newline="") as file:
            found.append([float(value) for *_, value in list(csv.reader(file))[1:]])
    assert len(found[0]) == 14
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)
