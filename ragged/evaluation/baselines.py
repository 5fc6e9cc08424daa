"""Baselines: what needs no sequence model, fitted by least squares on the rows before the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ragged.data.dataset import Sample
from ragged.data.normalization import hold
from ragged.data.sources import backward_rate

Term = Callable[[Sample], np.ndarray]  # (horizon,), in the units of the source


def baselines(
    fit_rows: Sequence[Sample], rows: Sequence[Sample], known: Sequence[str], target: str
) -> dict[str, list[np.ndarray]]:
    """Forecast a target of `rows` in its unit, each baseline fitted on `fit_rows`.

    A rating curve is the target as a function of the driver, the first known column, alone. A
    source without a known column leaves persistence: the last value observed. Where a column is
    not known, its last value goes on; before the first one it is as usual.

    Args:
        fit_rows: the rows to fit on; steps with an unknown truth are left out.
        rows: the rows to forecast.
        known: the columns known over the horizon, the driver first.
        target: the column to forecast.

    Returns:
        The forecasts of each row, `(horizon,)` each, by the baseline's name.

    Example:
        >>> from ragged.data import EncoderDecoderDataModule, Storms
        >>> data = EncoderDecoderDataModule(Storms())
        >>> roles = data.source.roles
        >>> for name in baselines(data.train.rows, data.test.rows, roles.known, "log_turbidity"):
        ...     print(name)
        rating curve, line
        rating curve, parabola
        rating curve, rate of change, last observed
        persistence
    """
    models = _regressions(fit_rows, known, target)
    found = {name: _regress(terms, fit_rows, rows, target) for name, terms in models.items()}
    usual = _mean([row.truth(target) for row in fit_rows])
    persistence = [np.nan_to_num(_last(target)(row), nan=usual) for row in rows]
    return {**found, "persistence": persistence}


def _regressions(
    rows: Sequence[Sample], known: Sequence[str], target: str
) -> dict[str, list[Term]]:
    """The terms of each regression that the known columns admit."""
    if not known:
        return {}
    driver, *others = known
    line = [_known(driver)]
    parabola = [*line, _squared(driver)]
    rate = next((name for name in others if _is_rate(rows, name, driver)), None)
    found = {"rating curve, line": line, "rating curve, parabola": parabola}
    if rate is None:
        found["rating curve, last observed"] = [*parabola, _last(target)]
    else:
        dynamic = [*parabola, _known(rate), _last(target)]
        found["rating curve, rate of change, last observed"] = dynamic
    if set(others) - {rate}:
        found["all known columns, last observed"] = [*map(_known, known), _last(target)]
    return found


def _mean(parts: Sequence[np.ndarray]) -> float:
    """The mean of what is known; NaN if nothing is."""
    values = np.concatenate([np.empty(0), *parts])
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _known(column: str) -> Term:
    """A known column over the horizon, as a model sees it: the last value goes on."""
    return lambda row: hold(row.event.columns[column])[row.split : row.stop]


def _squared(column: str) -> Term:
    known = _known(column)
    return lambda row: known(row) ** 2


def _last(column: str) -> Term:
    """The last known value of a column before the horizon."""
    return lambda row: np.full(
        len(row.horizon_time), hold(row.event.columns[column][: row.split])[-1]
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
    """Fit a weight to each term, and an offset; the unit of a term does not matter."""
    truth = np.concatenate([row.truth(target) for row in fit_rows])
    steps = np.concatenate([_matrix(terms, row) for row in fit_rows])
    usable = np.isfinite(truth) & np.isfinite(steps).all(axis=1)
    if not usable.any():
        return [np.full(len(row.horizon_time), np.nan) for row in rows]
    truth, steps = truth[usable], steps[usable]
    center, spread = steps.mean(axis=0), steps.std(axis=0)
    spread[spread == 0] = 1.0
    level = truth.mean()
    weights = np.linalg.lstsq((steps - center) / spread, truth - level, rcond=None)[0]

    def forecast(row: Sample) -> np.ndarray:
        given = _matrix(terms, row)
        seen = np.where(np.isnan(given), center, given)  # before its first value a term is typical
        return level + (seen - center) / spread @ weights

    return [forecast(row) for row in rows]


def _matrix(terms: Sequence[Term], row: Sample) -> np.ndarray:
    return np.stack([term(row) for term in terms], axis=-1)
