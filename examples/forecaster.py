"""Forecast the sales of two shops from Python: train, predict, look back, save and load."""

from tempfile import TemporaryDirectory

import numpy as np
import pandas

from ragged.forecasting import Forecaster


def sales(months: int) -> pandas.DataFrame:
    """Two shops with a trend, a season and a price that is known ahead."""
    step = np.arange(months)
    shops = []
    for shop, level in (("north", 200), ("south", 350)):
        price = 1 + 0.2 * (step % 5 == 0)
        season = 40 * np.sin(2 * np.pi * step / 12)
        frame = pandas.DataFrame({"shop": shop, "price": price})
        frame["month"] = pandas.date_range("2015-01-01", periods=months, freq="MS")
        frame["sales"] = level + step + season - 100 * (price - 1)
        shops.append(frame)
    return pandas.concat(shops, ignore_index=True)


known, future = sales(96), sales(102)
future = future[future["month"] > known["month"].max()].drop(columns="sales")

forecaster = Forecaster(
    "AttentionLSTM",
    target="sales",
    known=["price"],
    group="shop",
    time="month",
    horizon=6,
    context=24,
    quantiles=[0.1, 0.5, 0.9],
    loss="quantile",
    hidden_size=16,
    max_epochs=15,
    backend="torch",
    progress=False,
)
forecaster.fit(known)
forecast = forecaster.predict(known, future=future)
print(forecast.head(6).to_string(float_format="%.1f"))

# Twice trained anew, each time on what was known then.
past = forecaster.backtest(known, origins=2, stride=6, refit=True)
error = (past["truth"] - past["q0.5"]).abs().groupby(past["origin"]).mean()
print(error.round(1))

with TemporaryDirectory() as folder:
    forecaster.save(folder)  # `ragged predict` and `ragged export` read it, too
    again = Forecaster.load(folder).predict(known, future=future)
pandas.testing.assert_frame_equal(again, forecast)
