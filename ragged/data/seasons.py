"""Whether a season shows in series: whether it forecasts them better than their last value does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragged.data.sources import Series


def season_that_shows(
    events: Sequence[Series], targets: Sequence[str], season: int, horizon: int | None = None
) -> int:
    """Return a season, or 1 where the last value forecasts the series as well.

    From each step the errors of both forecasts are squared and summed over the horizon: of the last
    value, and of the one a season before each step. Steps with an unknown value are left out.

    Args:
        events: the training events.
        targets: their columns to forecast, each of which counts the same.
        season: its steps, as the frequency has them.
        horizon: steps to forecast; a season by default.

    >>> def series(values: list[float]) -> Series:
    ...     return Series("0", np.arange(float(len(values))), {"y": np.array(values)})
    >>> season_that_shows([series([1, 2, 3, 1, 2, 3, 1, 2, 3])], ["y"], season=3)
    3
    >>> season_that_shows([series([1, 2, 3, 4, 5, 6, 7, 8, 9])], ["y"], season=3)
    1
    """
    if season == 1:
        return 1
    ratios = []
    for target in targets:
        with np.errstate(over="ignore", invalid="ignore"):  # normalisation refuses such numbers
            errors = [_errors(event.columns[target], season, horizon or season) for event in events]
            by_season, by_last = np.sum([(0.0, 0.0), *errors], axis=0)
            ratios.append(by_season / by_last if by_last > 0 else 1.0)
    return season if np.mean(ratios) < 1 else 1


def _errors(values: np.ndarray, season: int, horizon: int) -> tuple[float, float]:
    """Return the sums of squared errors by the season and by the last value."""
    by_season = by_last = 0.0
    for ahead in range(1, min(horizon, len(values) - season) + 1):
        truth = values[season - 1 + ahead :]
        last = values[season - 1 : season - 1 + len(truth)]
        begin = (ahead - 1) % season
        before = values[begin : begin + len(truth)]
        known = ~np.isnan(truth + last + before)
        by_season += float(((truth - before)[known] ** 2).sum())
        by_last += float(((truth - last)[known] ** 2).sum())
    return by_season, by_last
