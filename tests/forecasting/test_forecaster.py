"""`Forecaster`: scikit-learn's conventions, frames in and out, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pandas
import pytest

import ragged
from ragged.backend import load_backend
from ragged.data import Difference
from ragged.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    DataError,
    NotFittedError,
    OptionError,
)
from ragged.forecasting import Forecaster


def get_parameters(forecaster: Forecaster) -> dict[str, np.ndarray]:
    return load_backend(forecaster.backend_).get_parameters(forecaster.trained_.module)


def test_arguments_are_stored_and_nothing_else_happens(new_forecaster):
    forecaster = new_forecaster(hidden_size=7)
    assert forecaster.get_params()["hidden_size"] == 7
    assert forecaster.get_params()["group"] == ["shop", "item"]
    assert forecaster.set_params(hidden_size=9, horizon=5) is forecaster
    assert (forecaster.options["hidden_size"], forecaster.horizon) == (9, 5)
    assert not [name for name in vars(forecaster) if name.endswith("_")]
    assert "hidden_size=9" in repr(forecaster)
    assert "known" not in repr(forecaster)


def test_scikit_learn_clones_it(fitted):
    base = pytest.importorskip("sklearn.base")
    cloned = base.clone(fitted)
    assert cloned.get_params() == fitted.get_params()
    assert not hasattr(cloned, "trained_")
    assert cloned.options is not fitted.options


def test_a_fit_writes_no_files_and_prints_nothing(
    new_forecaster, frame, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    forecaster = new_forecaster(max_epochs=1)
    assert forecaster.fit(frame) is forecaster
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
    assert [record["epoch"] for record in forecaster.history_] == [1]
    assert any("columns were added: " in note for note in forecaster.notes_)


def test_progress_is_a_line_an_epoch_where_there_is_no_terminal(new_forecaster, frame, capfd):
    new_forecaster(progress=True).fit(frame)
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("epoch 1 of 2: loss ")
    assert "validation" in second


def test_a_forecast_has_the_columns_and_dtypes_of_the_frame(fitted, frame):
    found = fitted.predict(frame)
    assert found.columns.tolist() == ["shop", "item", "month", "forecast"]
    assert found["shop"].tolist() == ["north"] * 3 + ["south"] * 3
    assert found["item"].dtype == frame["item"].dtype
    assert found["month"].dtype == frame["month"].dtype
    expected = pandas.date_range("2023-01-01", periods=3, freq="MS")
    assert found["month"].tolist() == [*expected, *expected]
    assert np.isfinite(found["forecast"]).all()


def test_a_quantile_is_a_column(with_price, new_frame):
    frame = new_frame(51)
    history, future = frame[frame["month"] < "2023"], frame[frame["month"] >= "2023"]
    given = with_price.predict(history, future=future.drop(columns="sales"))
    assert given.columns.tolist() == ["shop", "item", "month", "q0.1", "q0.5", "q0.9"]
    empty = frame.assign(sales=frame["sales"].where(frame["month"] < "2023"))
    pandas.testing.assert_frame_equal(with_price.predict(empty), given)
    # What stands in the future's target is not read.
    pandas.testing.assert_frame_equal(with_price.predict(history, future=future), given)
    one = with_price.predict(empty, horizon=1)
    assert one["month"].dt.month.tolist() == [1, 1]


def test_known_columns_of_the_future_are_asked_for(with_price, frame, new_frame):
    with pytest.raises(DataError, match=r"`price` is unknown for 3 of the 3 steps to forecast in"):
        with_price.predict(frame)
    longer = new_frame(50)
    empty = longer.assign(sales=longer["sales"].where(longer["month"] < "2023"))
    with pytest.raises(DataError, match=r"for 2 of the 4 steps .* Give the rows of the future"):
        with_price.predict(empty, horizon=4)
    lost = new_frame(51)
    future = lost[lost["month"] >= "2023"].drop(columns="sales")
    west = future[:1].assign(shop="west")
    with pytest.raises(DataError, match="`target` is unknown at the first step of event 'west/7'"):
        with_price.predict(frame, future=pandas.concat([future, west]))


def test_a_target_that_is_known_again_is_refused(fitted, frame):
    holed = frame.assign(sales=frame["sales"].where(frame.index != 30))
    with pytest.raises(DataError, match="`sales` is unknown in 'north/7' at step 30, and known f"):
        fitted.predict(holed)


def test_levels_of_an_index_are_named(new_forecaster, fitted, frame):
    indexed = frame.set_index(["shop", "item", "month"])
    pandas.testing.assert_frame_equal(fitted.predict(indexed), fitted.predict(frame))
    with pytest.raises(
        DataError, match=r"indexed by .'shop', 'item', 'month'.; expected .* in time"
    ):
        new_forecaster(group=None, time=None).fit(indexed)


def test_groups_that_training_has_not_seen_are_forecast(fitted, new_frame):
    found = fitted.predict(new_frame(20, ("east", "west")))
    assert found["shop"].unique().tolist() == ["east", "west"]
    with pytest.raises(DataError, match="of 3 known and 3 further steps in 'east/7'; expected 4"):
        fitted.predict(new_frame(3, ("east",)))


def test_labels_are_embedded_on_either_backend(new_forecaster, frame, new_frame, tmp_path, need):
    forecaster = new_forecaster(static=["shop"]).fit(frame)
    weight = get_parameters(forecaster)["embeddings.0.weight"]
    assert weight.shape == (3, 3)  # what is unknown, north and south
    assert not weight[0].any()
    with pytest.warns(UserWarning, match=r"of 'shop' with a label .* none of them: 48 \(west\)"):
        unknown = forecaster.predict(new_frame(48, ("west",)))["forecast"]
    assert np.isfinite(unknown).all()
    renamed = {"north": "south", "south": "north"}
    other = forecaster.predict(frame.assign(shop=frame["shop"].map(renamed)))["forecast"]
    found = forecaster.predict(frame)["forecast"]
    assert abs(found - np.roll(other, 3)).min() > 0  # the label counts
    need("jax")
    forecaster.save(tmp_path / "run")
    loaded = Forecaster.load(tmp_path / "run", backend="jax")
    assert loaded.get_params()["categories"] == {"shop": ["north", "south"]}
    np.testing.assert_allclose(loaded.predict(frame)["forecast"], found, rtol=1e-4)


def test_polars_comes_back_as_polars(fitted, frame):
    polars = pytest.importorskip("polars")
    found = fitted.predict(polars.from_pandas(frame))
    assert isinstance(found, polars.DataFrame)
    expected = fitted.predict(frame)["forecast"].to_numpy()
    np.testing.assert_array_equal(found["forecast"].to_numpy(), expected)
    days = polars.from_pandas(frame).with_columns(
        polars.col("month").cast(polars.Date), polars.col("shop").cast(polars.Categorical)
    )
    found = fitted.predict(days)
    assert found.schema["month"] == polars.Date
    assert found.schema["shop"] == polars.Categorical
    np.testing.assert_array_equal(found["forecast"].to_numpy(), expected)


def test_categories_stay_categories(fitted, frame):
    given = frame.astype({"shop": "category"})
    assert fitted.predict(given)["shop"].dtype == given["shop"].dtype


@pytest.mark.parametrize("kind", ["int64", "int32", "float64", "category"])
def test_dates_that_are_numbers_or_categories_come_back_as_dates(new_forecaster, frame, kind):
    days = frame["month"].dt.strftime("%Y%m%d").astype("int64").astype(kind)
    given = frame.assign(month=days, forecast=0, truth=0)  # numbers that no forecast is cut to
    forecaster = new_forecaster(max_epochs=1).fit(given)
    found = forecaster.predict(given)
    expected = pandas.date_range("2023-01-01", periods=3, freq="MS")
    assert found["month"].tolist() == [*expected, *expected]
    assert found["forecast"].dtype == "float64"
    assert forecaster.backtest(given, origins=1)["truth"].dtype == "float64"
    polars = pytest.importorskip("polars")
    days = forecaster.predict(polars.from_pandas(given))["month"]
    assert days.dt.strftime("%Y-%m-%d").to_list()[-1] == "2023-03-01"


@pytest.mark.parametrize("kind", ["uint8", "int8", "UInt8", "int16"])
def test_times_beyond_the_dtype_of_the_frame_keep_their_values(new_forecaster, kind):
    last = int(np.iinfo(kind.lower()).max)
    steps = np.arange(last - 47, last + 1)
    columns = {"month": pandas.array(steps, dtype=kind), "sales": np.sin(steps / 5)}
    given = pandas.DataFrame(columns)
    forecaster = new_forecaster(group=None, max_epochs=1).fit(given)
    assert forecaster.predict(given)["month"].tolist() == [last + 1, last + 2, last + 3]
    assert forecaster.backtest(given, origins=1)["month"].dtype == given["month"].dtype
    polars = pytest.importorskip("polars")
    assert forecaster.predict(polars.from_pandas(given))["month"].to_list()[0] == last + 1


def test_it_can_be_pickled(fitted, frame):
    again = pickle.loads(pickle.dumps(fitted))
    pandas.testing.assert_frame_equal(again.predict(frame), fitted.predict(frame))


@pytest.mark.parametrize("kind", ["DatetimeIndex", "PeriodIndex", "named", "none"])
def test_a_series_with_its_index(new_forecaster, frame, kind):
    values = frame.loc[frame["shop"] == "north", "sales"].to_numpy()
    months = pandas.date_range("2019-01-01", periods=len(values), freq="MS")
    index = {"PeriodIndex": months.to_period("M"), "named": months.rename("when"), "none": None}
    series = pandas.Series(values, index.get(kind, months), name="anything")
    forecaster = new_forecaster(group=None, time=None, max_epochs=1).fit(series)
    found = forecaster.predict(series)
    column = {"named": "when", "none": "step"}.get(kind, "time")
    assert found.columns.tolist() == [column, "forecast"]
    expected = {"PeriodIndex": pandas.Period("2023-01", "M"), "none": len(values)}
    assert found[column][0] == expected.get(kind, pandas.Timestamp("2023-01-01"))


def test_several_targets_have_their_names_in_front(new_forecaster, frame):
    forecaster = new_forecaster(target=["sales", "price"], max_epochs=1).fit(frame)
    names = ["shop", "item", "month", "sales_forecast", "price_forecast"]
    assert forecaster.predict(frame).columns.tolist() == names


def test_time_in_several_columns_is_one_date(new_forecaster, frame, fitted, tmp_path):
    months = frame["month"].dt
    parts = frame.assign(month=months.month, year=months.year)
    forecaster = new_forecaster(time=["year", "month"]).fit(parts)
    found = forecaster.predict(parts)
    expected = fitted.predict(frame).rename(columns={"month": "year month"})
    pandas.testing.assert_frame_equal(found, expected)
    forecaster.save(tmp_path / "run")
    loaded = Forecaster.load(tmp_path / "run")
    assert loaded.get_params()["time"] == ["year", "month"]
    pandas.testing.assert_frame_equal(loaded.predict(parts), found)


def test_each_column_of_a_wide_frame_is_a_series(new_forecaster, frame, fitted):
    wide = frame.pivot(index="month", columns="shop", values="sales")
    forecaster = new_forecaster(series=["north", "south"], group=None, time=None).fit(wide)
    expected = fitted.predict(frame).drop(columns="item").rename(columns={"shop": "series"})
    pandas.testing.assert_frame_equal(forecaster.predict(wide), expected, check_dtype=False)
    with pytest.raises(DataError, match="without column 'south'"):
        forecaster.predict(wide[["north"]])


def test_a_score_is_r2_and_is_1_for_a_perfect_model(fitted, frame, monkeypatch):
    assert fitted.score(frame) < 1
    from ragged.forecasting import forecaster as module

    def perfect(trained, events, cuts):
        rows = [(events[i].columns["sales"][a:b, None], {}) for i, _, a, b in cuts.tolist()]
        return [ragged.evaluation.forecasts.RowForecast(*row) for row in rows]

    monkeypatch.setattr(module, "forecast_cuts", perfect)
    assert fitted.score(frame) == 1


def test_what_is_saved_forecasts_alike(fitted, frame, tmp_path, need):
    fitted.save(tmp_path / "run")
    loaded = Forecaster.load(tmp_path / "run")
    pandas.testing.assert_frame_equal(loaded.predict(frame), fitted.predict(frame))
    assert loaded.history_ == fitted.history_
    chosen = {**fitted.get_params(), "progress": True}
    assert {name: loaded.get_params()[name] for name in chosen} == chosen
    again = Forecaster(**loaded.get_params()).set_params(progress=False).fit(frame)
    pandas.testing.assert_frame_equal(again.predict(frame), fitted.predict(frame))
    loaded.save(tmp_path / "run")  # over itself
    need("jax")
    other = Forecaster.load(tmp_path / "run", backend="jax").predict(frame)
    np.testing.assert_allclose(other["forecast"], fitted.predict(frame)["forecast"], rtol=1e-4)


def test_transforms_of_a_folder_are_plain_values(new_forecaster, frame, tmp_path):
    forecaster = new_forecaster(transforms={"sales": [Difference()]}).fit(frame)
    forecaster.save(tmp_path / "run")
    again = Forecaster.load(tmp_path / "run")
    path = "ragged.data.transforms.Difference"
    assert again.get_params()["transforms"] == {"sales": [{"class_path": path, "init_args": {}}]}
    assert again.predict(frame).equals(forecaster.predict(frame))


def test_none_is_a_value_of_an_option(new_forecaster, frame, tmp_path):
    options = dict.fromkeys(("max_grad_norm", "windows", "optimizer", "loss", "batch_size"))
    forecaster = new_forecaster(**options).fit(frame)
    forecaster.save(tmp_path / "run")
    again = Forecaster.load(tmp_path / "run")
    assert forecaster.trained_.trainer.max_grad_norm is again.trained_.trainer.max_grad_norm is None
    assert again.get_params()["max_grad_norm"] is None


def test_a_folder_with_something_else_is_not_written(fitted, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="in use; expected a new folder, or one of a run"):
        fitted.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_from_elsewhere_imports_nothing(fitted, tmp_path, evil):
    fitted.save(tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("ragged.data.tables.source.Tables", "evil_module.Evil"))
    assert config.read_text() != text
    with pytest.raises(ConfigError, match=r"`class_path` of .* is 'evil_module.Evil'; expected a"):
        Forecaster.load(tmp_path / "run")
    assert not evil.exists()


def test_a_run_of_another_source_is_refused(any_backend, tiny_run):
    with pytest.raises(ConfigError, match="MagnetHysteresis; expected Tables"):
        Forecaster.load(tiny_run(any_backend))


REFUSED = {
    "an unknown option": ({"hiden_size": 3}, OptionError, "`hiden_size` .* Write hidden_size."),
    "a number for a column": ({"target": 0}, OptionError, "`target` is 0; .* Rename it: frame.ren"),
    "numbers for columns": ({"past": [1]}, OptionError, "`past` is 1; expected the name of a col"),
    "a context alone": ({"horizon": None}, OptionError, "`context` is given without a horizon"),
    "windows too": ({"windows": {}}, OptionError, "`windows` is given with a horizon"),
    "an unknown model": ({"model": "LTSM"}, ConfigError, "LTSM"),
    "an option of another model": ({"num_heads": 2}, ConfigError, "num_heads"),
    "a column that is not there": ({"target": "sale"}, DataError, "sales"),
    "an unknown backend": ({"backend": "tensorflow"}, ConfigError, "tensorflow"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_refused_with_the_remedy(new_forecaster, frame, case):
    changed, error, text = REFUSED[case]
    arguments = {"target": "sales", "horizon": 3, "context": 8, "time": "month", **changed}
    model = arguments.pop("model", "EncoderDecoderLSTM")
    arguments = {"group": "shop", "backend": "torch", "progress": False, **arguments}
    with pytest.raises(error, match=text):
        Forecaster(model, **arguments).fit(frame)


def test_columns_of_a_name_that_forecasts_have_are_refused_before_training(
    new_forecaster, frame, monkeypatch
):
    def renamed(old, new, **changed):
        *group, time = (new if name == old else name for name in ("shop", "item", "month"))
        forecaster = new_forecaster(group=group, time=time, **changed)
        return forecaster, frame.rename(columns={old: new})

    for argument, *names, changed in (
        ("group", "shop", "forecast", {}),
        ("time", "month", "forecast", {}),
        ("group", "item", "q0.5", {"loss": "quantile"}),
    ):
        forecaster, table = renamed(*names, **changed)
        with pytest.raises(DataError, match=f"`{argument}` is '{names[1]}'; .* Rename the column"):
            forecaster.fit(table)
    forecaster, table = renamed("shop", "origin")
    forecaster.fit(table).predict(table)
    monkeypatch.setattr("ragged.forecasting.forecaster.backtest", None)
    with pytest.raises(DataError, match=r"backtest\(\): `group` is 'origin'"):
        forecaster.backtest(table)


def test_what_is_not_trained_says_so(new_forecaster, frame):
    for call in ("predict", "backtest", "score"):
        with pytest.raises(NotFittedError, match=rf"Forecaster.{call}\(\).* Call fit\(frame\)"):
            getattr(new_forecaster(), call)(frame)
    with pytest.raises(NotFittedError):
        new_forecaster().save("run")


def test_what_is_no_frame_is_refused(fitted):
    with pytest.raises(DataError, match="`frame` is of type list; expected a DataFrame of pandas"):
        fitted.predict([1, 2])
    lazy = type("LazyFrame", (), {"collect": lambda self: self})()
    with pytest.raises(DataError, match=r"of type LazyFrame; .*Call its collect\(\)\."):
        fitted.predict(lazy)
    with pytest.raises(OptionError, match="horizon"):
        fitted.predict(None, horizon=0)


def test_two_backends_without_a_choice(new_forecaster, frame, need, no_backend_chosen):
    need("torch", "jax")
    with pytest.raises(BackendError, match="no backend is chosen"):
        new_forecaster(backend=None).fit(frame)
    with ragged.use_backend("torch"):
        assert new_forecaster(backend=None, max_epochs=1).fit(frame).backend_ == "torch"
