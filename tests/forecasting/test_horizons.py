"""Beyond the trained horizon, and into the past: rolling on and backtests."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ragged.errors import DataError, OptionError


def appended(frame, forecast):
    """Return a frame with a forecast behind it, as if it were known."""
    known = forecast.rename(columns={"forecast": "sales"})
    return pandas.concat([frame, known], ignore_index=True)


def test_rolling_on_is_a_horizon_at_a_time_by_hand(fitted, frame):
    with pytest.warns(UserWarning, match=r"steps 4 to 8 are forecast from forecasts.* RMSE is"):
        found = fitted.predict(frame, horizon=8)
    history, parts = frame.drop(columns="price"), []
    for steps in (3, 3, 2):
        part = fitted.predict(history, horizon=steps)
        parts.append(part)
        history = appended(history, part)
    by_hand = pandas.concat(parts).sort_values(["shop", "month"], ignore_index=True)
    pandas.testing.assert_frame_equal(found, by_hand, rtol=1e-6)
    assert found["month"].max() == pandas.Timestamp("2023-08-01")


def test_rolling_on_asks_for_known_columns(with_price, frame, new_frame):
    with pytest.raises(DataError, match="`price` is unknown for 5 of the 5 steps"):
        with_price.predict(frame, horizon=5)
    longer = new_frame(53)
    future = longer[longer["month"] >= "2023"].drop(columns="sales")
    with pytest.warns(UserWarning, match="steps 4 to 5"):
        found = with_price.predict(frame, future=future)
    assert len(found) == 10
    assert np.isfinite(found["q0.5"]).all()


def test_past_columns_are_held_where_they_are_unknown(with_past, frame):
    with pytest.warns(UserWarning, match="steps 4 to 6"):
        found = with_past.predict(frame, horizon=6)
    first = with_past.predict(frame, horizon=3)
    held = appended(frame, first)
    held["price"] = held.sort_values("month").groupby("shop")["price"].ffill()
    second = with_past.predict(held, horizon=3)
    by_hand = pandas.concat([first, second]).sort_values(["shop", "month"], ignore_index=True)
    pandas.testing.assert_frame_equal(found, by_hand, rtol=1e-6)


def test_a_series_too_short_to_measure_is_rolled_on_too(fitted, new_frame):
    with pytest.warns(UserWarning, match="too short to measure what it costs"):
        assert len(fitted.predict(new_frame(6), horizon=5)) == 10


def test_a_series_too_short_to_forecast_is_left_out_where_training_drops_it(
    new_forecaster, frame, new_frame
):
    forecaster = new_forecaster(max_epochs=1, short_events="drop").fit(frame)
    short = new_frame(2, ("west",))
    with pytest.warns(UserWarning, match="left out, too short to forecast: west/7"):
        found = forecaster.predict(pandas.concat([frame, short]))
    pandas.testing.assert_frame_equal(found, forecaster.predict(frame))
    with pytest.raises(DataError, match="of 2 known and 3 further steps in 'west/7'"):
        forecaster.predict(short)


def test_whole_events_have_no_trained_horizon(new_forecaster, new_frame):
    forecaster = new_forecaster(horizon=None, context=None, min_context=None, split="events")
    forecaster.set_params(max_epochs=1).fit(new_frame(20, ("a", "b", "c", "d")))
    short = new_frame(9, ("e",))
    assert len(forecaster.predict(short, horizon=7)) == 7
    with pytest.raises(OptionError, match="Give it, or rows without a target at the end of the"):
        forecaster.predict(short)
    with pytest.raises(OptionError, match="`horizon` is left out for a model without windows"):
        forecaster.backtest(short)


# Backtests


def cut(frame, origin):
    """Return what was known at an origin."""
    return frame[frame["month"] <= origin].drop(columns="price")


@pytest.mark.filterwarnings("ignore:backtest")
def test_a_backtest_is_a_prediction_from_each_origin(fitted, frame):
    found = fitted.backtest(frame, origins=3, stride=2)
    assert found.columns.tolist() == ["shop", "item", "origin", "month", "truth", "forecast"]
    assert found["origin"].unique().tolist() == list(
        pandas.to_datetime(["2022-05-01", "2022-07-01", "2022-09-01"])
    )
    for origin, rows in found.groupby("origin"):
        expected = fitted.predict(cut(frame, origin))
        pandas.testing.assert_frame_equal(
            rows[expected.columns].reset_index(drop=True), expected, rtol=1e-6
        )
        truth = rows.merge(frame, on=["shop", "month"])
        np.testing.assert_array_equal(truth["truth"], truth["sales"])


@pytest.mark.filterwarnings("ignore:backtest")
@settings(max_examples=8, deadline=None, database=None, phases=[Phase.generate])
@given(step=st.integers(36, 46), value=st.floats(-1e4, 1e4), horizon=st.sampled_from([2, 3, 5]))
def test_no_forecast_sees_what_came_after_its_origin(with_past, frame, step, value, horizon):
    """Rolling on, too: values after an origin change nothing but the truth."""
    month = frame["month"].sort_values().unique()[step]
    columns = ["sales", "price"]
    later = frame.copy()
    later[columns] = frame[columns].where(frame["month"] <= month, value)
    found = [with_past.backtest(each, origins=6, horizon=horizon) for each in (frame, later)]
    before = [each[each["origin"] <= month].drop(columns="truth") for each in found]
    pandas.testing.assert_frame_equal(*before, rtol=0, atol=0)
    after = [each.loc[each["origin"] > month, "forecast"] for each in found]
    assert after[0].empty or not after[0].equals(after[1])


def test_refitting_trains_on_what_came_before(new_forecaster, frame):
    forecaster = new_forecaster(max_epochs=1).fit(frame)
    found = forecaster.backtest(frame, origins=2, stride=3, refit=True)
    by_hand = []
    for origin in found["origin"].unique():
        again = new_forecaster(max_epochs=1, **resolved(forecaster)).fit(cut(frame, origin))
        by_hand.append(again.predict(cut(frame, origin)))
    expected = pandas.concat(by_hand, ignore_index=True)
    pandas.testing.assert_frame_equal(found[expected.columns], expected, rtol=1e-6)
    changed = frame.assign(sales=frame["sales"].where(frame["month"] <= "2022-09-01", -5.0))
    again = forecaster.backtest(changed, origins=2, stride=3, refit=True)
    pandas.testing.assert_frame_equal(again.drop(columns="truth"), found.drop(columns="truth"))


def resolved(forecaster):
    """Return the calendar that was found, which a shorter frame may not show."""
    return {"calendar": forecaster.trained_.config.data.init_args.source.init_args.calendar}


def test_a_backtest_on_what_was_trained_says_so(fitted, frame, new_frame, recwarn):
    text = r"10 of 12 backtest rows forecast steps that the model was trained on, .* refit"
    with pytest.warns(UserWarning, match=text):
        fitted.backtest(frame, origins=6, stride=4)
    fitted.backtest(new_frame(60), origins=5)
    assert not recwarn.list


def test_series_of_different_lengths_have_the_origins_that_fit(fitted, new_frame):
    both = pandas.concat([new_frame(60, ("long",)), new_frame(9, ("short",))])
    found = fitted.backtest(both, origins=4)
    assert found.groupby("shop")["origin"].nunique().to_dict() == {"long": 4, "short": 3}
    with pytest.raises(DataError, match="2 series of at most 5 steps; expected one of 7 steps"):
        fitted.backtest(new_frame(5))
    with pytest.raises(OptionError, match="count"):
        fitted.backtest(both, origins=0)
