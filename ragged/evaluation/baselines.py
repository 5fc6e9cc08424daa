"""Baselines without a sequence model: of the row's own past, and least squares on a driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ragged.data.normalization import forward_fill
from ragged.data.sample import Sample
from ragged.data.sources import backward_rate

Term = Callable[[Sample], np.ndarray]  # (horizon,), in the units of the source


def baselines(
    fit_rows: Sequence[Sample],
    rows: Sequence[Sample],
    target: str,
    *,
    season: int = 1,
    driver: str | None = None,
    known: Sequence[str] = (),
) -> dict[str, list[np.ndarray]]:
    """Forecast a target of `rows` in its unit, from all that was seen of each before its horizon.

        persistence       y_n                              the last of the n values before
        seasonal naive    y_(n - m + 1 + (k mod m))        of a season of m steps; k = 0, 1, ...
        drift             y_n + (k + 1) (y_n - y_1) / (n - 1)

    A series shorter than a season leaves persistence of it, one of a single value a drift of 0.
    With a driver rating curves come to them: the target as a function of the driver alone, and
    with what else is known, fitted on `fit_rows`. Unknown values of a column are forward-filled;
    before the first known one they are its mean.

    Args:
        fit_rows: the rows to fit on; steps with an unknown truth are left out.
        rows: the rows to forecast.
        target: the column to forecast.
        season: steps of a season; 1 without, and then there is no seasonal naive forecast.
        driver: a known column that drives the target, or None.
        known: the columns known over the horizon.

    Returns:
        The forecasts of each row, `(horizon,)` each, by the baseline's name.

    Example:
        >>> from ragged.data import EncoderDecoderDataModule, Storms
        >>> data = EncoderDecoderDataModule(Storms())
        >>> rows, known = (data.train.rows, data.test.rows), data.source.roles.known
        >>> for name in baselines(*rows, "log_turbidity", driver="log_discharge", known=known):
        ...     print(name)
        rating curve, line
        rating curve, parabola
        rating curve, rate of change, last observed
        persistence
        drift

    Source: R. J. Hyndman and G. Athanasopoulos, Forecasting: Principles and Practice (2021), 5.2.
    """
    models = {} if driver is None else _regressions(fit_rows, driver, known, target)
    forecasts = {name: _regress(terms, fit_rows, rows, target) for name, terms in models.items()}
    mean = _mean([row.truth(target) for row in fit_rows])
    simple: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
        "persistence": _persistence,
        "drift": _drift,
    }
    if season > 1:
        simple["seasonal naive"] = partial(_seasonal_naive, season=season)
    seen = [_seen(row, target, mean) for row in rows]
    for name, forecast in simple.items():
        pairs = zip(seen, rows, strict=True)
        forecasts[name] = [forecast(values, len(row.future)) for values, row in pairs]
    return forecasts


def _seen(row: Sample, target: str, mean: float) -> np.ndarray:
    """Return what was seen of a target before the horizon, the mean where it was not known."""
    seen = forward_fill(row.event.columns[target][: row.split])
    return np.where(np.isnan(seen), mean, seen) if len(seen) else np.array([mean])


def _persistence(seen: np.ndarray, steps: int) -> np.ndarray:
    return np.full(steps, seen[-1])


def _drift(seen: np.ndarray, steps: int) -> np.ndarray:
    slope = (seen[-1] - seen[0]) / max(1, len(seen) - 1)
    return np.asarray(seen[-1] + slope * np.arange(1, steps + 1))


def _seasonal_naive(seen: np.ndarray, steps: int, season: int) -> np.ndarray:
    if len(seen) < season:
        return _persistence(seen, steps)
    return np.asarray(seen[len(seen) - season + np.arange(steps) % season])


def _regressions(
    rows: Sequence[Sample], driver: str, known: Sequence[str], target: str
) -> dict[str, list[Term]]:
    """Return the terms of each regression that is possible with the known columns."""
    others = [name for name in known if name != driver]
    line = [_known(driver)]
    parabola = [*line, _squared(driver)]
    rate = next((name for name in others if _is_rate(rows, name, driver)), None)
    regressions = {"rating curve, line": line, "rating curve, parabola": parabola}
    if rate is None:
        regressions["rating curve, last observed"] = [*parabola, _last(target)]
    else:
        dynamic = [*parabola, _known(rate), _last(target)]
        regressions["rating curve, rate of change, last observed"] = dynamic
    if set(others) - {rate}:
        regressions["all known columns, last observed"] = [
            *map(_known, (driver, *others)),
            _last(target),
        ]
    return regressions


def _mean(arrays: Sequence[np.ndarray]) -> float:
    """Return the mean of the known values; NaN if there is none."""
    values = np.concatenate([np.empty(0), *arrays])
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _known(column: str) -> Term:
    """Return a known column over the horizon, forward-filled, as the models' input is."""
    return lambda row: forward_fill(row.event.columns[column])[row.split : row.stop]


def _squared(column: str) -> Term:
    known = _known(column)
    return lambda row: known(row) ** 2


def _last(column: str) -> Term:
    """The last known value of a column before the horizon."""
    return lambda row: np.full(
        len(row.horizon_time), forward_fill(row.event.columns[column][: row.split])[-1]
    )


def _is_rate(rows: Sequence[Sample], column: str, driver: str) -> bool:
    """Whether a column is the driver's rate of change in every event."""
    events = {id(row.event): row.event for row in rows}.values()
    return all(
        np.allclose(e.columns[column], backward_rate(e.columns[driver], e.time), equal_nan=True)
        for e in events
    )


def _regress(
    terms: Sequence[Term], fit_rows: Sequence[Sample], rows: Sequence[Sample], target: str
) -> list[np.ndarray]:
    """Fit a weight of each standardised term, and an offset."""
    truth = np.concatenate([row.truth(target) for row in fit_rows])
    features = np.concatenate([_design_matrix(terms, row) for row in fit_rows])
    is_usable = np.isfinite(truth) & np.isfinite(features).all(axis=1)
    if not is_usable.any():
        return [np.full(len(row.horizon_time), np.nan) for row in rows]
    truth, features = truth[is_usable], features[is_usable]
    center, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1.0
    offset = truth.mean()
    weights = np.linalg.lstsq((features - center) / spread, truth - offset, rcond=None)[0]

    def forecast(row: Sample) -> np.ndarray:
        values = _design_matrix(terms, row)
        filled = np.where(np.isnan(values), center, values)
        return offset + (filled - center) / spread @ weights

    return [forecast(row) for row in rows]


def _design_matrix(terms: Sequence[Term], row: Sample) -> np.ndarray:
    return np.stack([term(row) for term in terms], axis=-1)
