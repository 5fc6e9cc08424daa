"""The command line runs on what `Forecaster` runs on: equal numbers, both ways."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import yaml

from ragged.cli.main import main
from ragged.forecasting import Forecaster
from ragged.forecasting.arguments import to_config


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_both_ways_give_equal_numbers(new_forecaster, frame, tmp_path, need, name, read_losses):
    need(name)
    forecaster = new_forecaster(backend=name, test=0.2, dropout=0.1).fit(frame)
    frame.to_csv(tmp_path / "sales.csv", index=False)
    config = to_config(forecaster.get_params(), name)
    config["data"]["init_args"]["source"]["init_args"]["path"] = str(tmp_path / "sales.csv")
    (tmp_path / "sales.yaml").write_text(yaml.safe_dump(config))
    runs = str(tmp_path / "runs")
    assert main(["train", "--config", str(tmp_path / "sales.yaml"), "--runs", runs]) == 0
    (run,) = (tmp_path / "runs").glob("*/*")
    keys = ("epoch", "train_loss", "validation_loss")
    assert read_losses(run) == [tuple(r[key] for key in keys) for r in forecaster.history_]
    output = tmp_path / "out.csv"
    options = ["--input", str(tmp_path / "sales.csv"), "--output", str(output)]
    assert main(["predict", str(run), *options, "--horizon", "3"]) == 0
    written, found = pandas.read_csv(output, parse_dates=["month"]), forecaster.predict(frame)
    assert written.columns.tolist() == ["shop", "item", "month", "sales_forecast"]
    written = written.rename(columns={"sales_forecast": "forecast"})
    pandas.testing.assert_frame_equal(written, found, check_dtype=False, rtol=1e-15, atol=0)
    loaded = Forecaster.load(run).predict(frame)
    pandas.testing.assert_frame_equal(loaded, found)


@pytest.fixture(scope="module")
def saved(fitted, frame, tmp_path_factory):
    """Give the folder of a run, and a table for it."""
    folder = tmp_path_factory.mktemp("saved")
    fitted.save(folder / "run")
    frame.to_csv(folder / "sales.csv", index=False)
    return folder


def test_predict_writes_csv_or_parquet_in_full_precision(saved, fitted, frame, tmp_path, capsys):
    expected = fitted.predict(frame, 3)["forecast"].to_numpy()
    for suffix, read in ((".csv", pandas.read_csv), (".parquet", pandas.read_parquet)):
        output = tmp_path / f"out{suffix}"
        options = ["--input", saved / "sales.csv", "--output", output, "--horizon=3"]
        assert main(["predict", *map(str, [saved / "run", *options])]) == 0
        found = read(output)
        np.testing.assert_allclose(found["sales_forecast"].to_numpy(), expected, rtol=1e-15)
        assert found["shop"].tolist() == ["north"] * 3 + ["south"] * 3
    assert found["month"].dtype.kind == "M"
    assert "6 steps of 2 events forecast to" in capsys.readouterr().out


def test_units_stand_behind_the_names_in_files(new_forecaster, frame, tmp_path):
    forecaster = new_forecaster(units={"sales": "EUR"}, max_epochs=1).fit(frame)
    forecaster.save(tmp_path / "run")
    frame.to_csv(tmp_path / "in.csv", index=False)
    output = tmp_path / "out.csv"
    options = ["--input", tmp_path / "in.csv", "--output", output, "--horizon", 2]
    assert main(["predict", *map(str, [tmp_path / "run", *options])]) == 0
    assert output.read_text().splitlines()[0] == "shop,item,month,sales_forecast [EUR]"


@pytest.mark.parametrize("verb", ["predict", "backtest"])
def test_an_output_that_cannot_be_is_refused_before_any_work(saved, refused, verb, tmp_path):
    table = ["--input", tmp_path / "nothing.csv"]
    said = refused(verb, saved / "no run", *table, "--output", tmp_path / "no" / "out.csv")
    assert f"{verb}(): `output` is in {str(tmp_path / 'no')!r}, which is no folder" in said
    said = refused(verb, saved / "no run", *table, "--output", tmp_path / "out.xls")
    assert "expected a name that ends in one of ('.csv', '.parquet')" in said


def test_backtest_writes_what_the_forecaster_gives(saved, fitted, frame, tmp_path, capsys):
    output = tmp_path / "out.csv"
    options = ["--input", saved / "sales.csv", "--output", output, "--origins=2", "--stride=4"]
    assert main(["backtest", *map(str, [saved / "run", *options])]) == 0
    assert "4 forecasts of 2 events from the past" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="trained on"):
        expected = fitted.backtest(frame, origins=2, stride=4)
    found = pandas.read_csv(output, parse_dates=["origin", "month"])
    assert found.columns.tolist()[2:] == ["origin", "month", "sales_truth", "sales_forecast"]
    found = found.rename(columns=lambda name: name.removeprefix("sales_"))
    pandas.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-15, atol=0)


def test_a_run_of_a_frame_says_that_it_has_no_table(saved, refused, tmp_path):
    said = refused("backtest", saved / "run", "--output", tmp_path / "out.csv")
    assert "`path` is empty: the series were given as a frame; expected the path of a" in said


def test_a_horizon_is_for_tables(tiny_run, refused, write_magnet, tmp_path):
    table = write_magnet(tmp_path / "in.csv")
    options = ["--input", table, "--output", tmp_path / "out.csv"]
    said = refused("predict", tiny_run("torch"), *options, "--horizon", 3)
    assert "`horizon` is given for a source of MagnetHysteresis; expected left out" in said


def test_backtest_of_a_run_that_is_no_table(tiny_run, tmp_path, capsys):
    output = tmp_path / "out.csv"
    options = ["--output", str(output), "--origins", "2", "--horizon", "5"]
    assert main(["backtest", str(tiny_run("torch")), *options]) == 0
    found = pandas.read_csv(output)
    assert found.columns.tolist()[0] == "event"
    assert len(found) == 12 * 2 * 5
    assert "of 24 backtest rows forecast steps that the model was trained on" in (
        capsys.readouterr().out
    )
