"""Tiny forecasters of a frame with two series, trained once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jsonargparse")
pytest.importorskip("pandas")

import pandas

from ragged.forecasting import Forecaster

TINY = {"hidden_size": 4, "num_layers": 1, "dropout": 0.0, "max_epochs": 2, "device": "cpu"}


def make_frame(steps: int = 48, shops: tuple[str, ...] = ("north", "south")) -> Any:
    """Return monthly sales of some shops, with a price that is known ahead."""
    months = pandas.date_range("2019-01-01", periods=steps, freq="MS")
    parts = []
    for number, shop in enumerate(shops, start=1):
        time = np.arange(steps)
        sales = 100 * number + time + 10 * np.sin(time * np.pi / 6)
        price = 1 + 0.1 * np.cos(time / 3)
        columns = {"shop": shop, "item": 7, "month": months, "sales": sales, "price": price}
        parts.append(pandas.DataFrame(columns))
    return pandas.concat(parts, ignore_index=True)


def make_forecaster(**changed: Any) -> Forecaster:
    """Return a tiny forecaster of `make_frame`, not trained."""
    options: dict[str, Any] = {
        "target": "sales", "group": ["shop", "item"], "time": "month", "horizon": 3,
        "context": 8, "min_context": 4, "backend": "torch", "progress": False, "split": "time",
    }  # fmt: skip
    return Forecaster("EncoderDecoderLSTM", **{**options, **TINY, **changed})


@pytest.fixture(scope="session")
def frame() -> Any:
    """Give the frame, which no test may change."""
    return make_frame()


@pytest.fixture(scope="session")
def new_frame() -> Callable[..., Any]:
    """Give the function that makes frames."""
    return make_frame


@pytest.fixture(scope="session")
def new_forecaster(need: Callable[..., None]) -> Callable[..., Forecaster]:
    """Give the function that makes forecasters."""
    need("torch")
    return make_forecaster


@pytest.fixture(scope="session")
def fitted(frame: Any, new_forecaster: Callable[..., Forecaster]) -> Forecaster:
    """Give a trained forecaster, which no test may change."""
    return new_forecaster().fit(frame)


@pytest.fixture(scope="session")
def with_price(frame: Any, new_forecaster: Callable[..., Forecaster]) -> Forecaster:
    """Give a trained forecaster with a column that is known ahead, and quantiles."""
    changed = {"known": ["price"], "loss": "quantile", "quantiles": [0.1, 0.5, 0.9]}
    return new_forecaster(**changed).fit(frame)


@pytest.fixture(scope="session")
def with_past(frame: Any, new_forecaster: Callable[..., Forecaster]) -> Forecaster:
    """Give a trained forecaster with a column that is known in the past only."""
    return new_forecaster(past=["price"]).fit(frame)
