"""Backtests: forecasts from many origins of the past, none of which sees what came after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragged.checks import as_size
from ragged.data import EncoderDecoderDataModule, Roles, Series, Source
from ragged.data.horizons import first_unknown_target
from ragged.errors import DataError, OptionError
from ragged.evaluation.forecasts import RowForecast
from ragged.forecasting.rolling import forecast_cuts
from ragged.forecasting.training import prepare, train, trained_model
from ragged.runs.parser import train_parser
from ragged.runs.trained import TrainedModel


@dataclass(frozen=True)
class Origins:
    """The last steps of each series from which it is forecast; each counts from its own end.

    Args:
        count: how many.
        stride: steps from one to the next.
        horizon: steps that are forecast from each; None = as many as was trained.

    Raises:
        OptionError: a number below 1.
    """

    count: int = 12
    stride: int = 1
    horizon: int | None = None

    def __post_init__(self) -> None:
        for name in ("count", "stride", "horizon"):
            if getattr(self, name) is not None:
                as_size("backtest", name, getattr(self, name), minimum=1, maximum=None)

    def cuts(self, data: EncoderDecoderDataModule, events: Sequence[Series]) -> list[np.ndarray]:
        """Return for each origin, the earliest first, its rows `(rows, 4)`, one a series.

        Rows are cut as `EncoderDecoderDataModule.rows_at` takes them. A series that is too short
        for an origin has no row there.

        Raises:
            OptionError: no horizon, and none was trained.
            DataError: every series is too short, or a target unknown from the start.
        """
        horizon = self._horizon(data)
        shortest = data.shortest_context
        fills = data.source.missing == "ffill"
        found = []
        for number in reversed(range(self.count)):
            rows = []
            for index, event in enumerate(events):
                known = first_unknown_target(event, data.source.roles, fills=fills) or event.steps
                split = known - horizon - number * self.stride
                if split >= shortest:
                    rows.append((index, data.context_start(split), split, split + horizon))
            if rows:
                found.append(np.array(rows))
        if not found:
            longest = max((event.steps for event in events), default=0)
            got = f"{len(events)} series of at most {longest} steps"
            expected = f"one of {shortest + horizon} steps or more, a context and a horizon"
            raise DataError.of("backtest", "series", got, expected, "Lower the horizon.")
        return found

    def _horizon(self, data: EncoderDecoderDataModule) -> int:
        if self.horizon is not None:
            return self.horizon
        if data.trained_horizon is None:
            got, expected = "left out for a model without windows", "a number of steps"
            raise OptionError.of("backtest", "horizon", got, expected, "Give it.")
        return data.trained_horizon


@dataclass(frozen=True, eq=False)
class Backtest:
    """What a backtest forecast.

    Args:
        cuts: `(rows, 4)` int64, as `EncoderDecoderDataModule.rows_at` takes them.
        forecasts: one for each row.
    """

    cuts: np.ndarray
    forecasts: list[RowForecast]


def backtest(
    model: TrainedModel, events: Sequence[Series], origins: Origins, *, refit: bool = False
) -> Backtest:
    """Forecast from each origin, by the model as it is or trained anew on what came before.

    Args:
        model: the trained model; with `refit` its configuration is trained again.
        events: the series, unnormalised.
        origins: from where.
        refit: train on each series up to the origin, once for each origin; of the steps before it
            none are held out as a test.

    Raises:
        OptionError, DataError: as `Origins.cuts`, and what cannot be trained.
    """
    by_origin = origins.cuts(model.data, events)
    if not refit:
        cuts = np.concatenate(by_origin)
        return Backtest(cuts, forecast_cuts(model, events, cuts))
    forecasts = []
    for cuts in by_origin:
        before = [events[index].until(split) for index, _, split, _ in cuts.tolist()]
        forecasts += forecast_cuts(_refitted(model, before), events, cuts)
    return Backtest(np.concatenate(by_origin), forecasts)


def seen_note(until: dict[Any, Any], events: Sequence[Series], found: Backtest) -> str | None:
    """Tell how many rows forecast what the model was trained on; None without any.

    Args:
        until: the last stamp that was trained on by the labels of a series, see `trained_until`.
        events: of the backtest.
        found: the backtest, without refitting.
    """
    rows = [(events[index], split) for index, _, split, _ in found.cuts.tolist()]
    seen = sum(_is_seen(event, split, until) for event, split in rows)
    if not seen:
        return None
    return (
        f"{seen} of {len(rows)} backtest rows forecast steps that the model was trained on, which "
        "flatters it: refit, or train on the steps before"
    )


def trained_until(data: EncoderDecoderDataModule) -> dict[Any, Any]:
    """Return the last stamp that was trained on of each series, by its labels."""
    until: dict[Any, Any] = {}
    for section in data.splits[0]:
        event = data.events[section.index]
        until[_labels(event)] = event.stamps[section.end - 1]
    return until


def _is_seen(event: Series, split: int, until: dict[Any, Any]) -> bool:
    last = until.get(_labels(event))
    return last is not None and bool(event.stamps[split] <= last)


def _labels(event: Series) -> Any:
    return event.labels or event.part_of or event.name


def _refitted(model: TrainedModel, events: list[Series]) -> TrainedModel:
    """Train the configuration of a model on other series."""
    config, source = model.config.clone(), _ReadSeries(model.data.source, events)
    config.data.init_args.test = 0.0
    loop = prepare(config, train_parser(), None, lambda *args, **kwargs: source)
    train(loop, is_shown=False)
    return trained_model(loop, config)


class _ReadSeries(Source):
    """Series that a source has read.

    Args:
        source: that read them.
        series: to learn from.
    """

    def __init__(self, source: Source, series: list[Series]) -> None:
        self.source, self.series, self.missing = source, series, source.missing

    @property
    def roles(self) -> Roles:
        """Those of the source."""
        return self.source.roles

    @property
    def time_label(self) -> str:
        """That of the source."""
        return self.source.time_label

    @property
    def units(self) -> dict[str, str]:
        """Those of the source."""
        return self.source.units

    @property
    def season(self) -> int:
        """That of the source."""
        return self.source.season

    @property
    def categories(self) -> dict[str, list[str]]:
        """Those of the source."""
        return self.source.categories

    def events(self) -> list[Series]:
        """The series."""
        return self.series

    def read(self, path: Path) -> list[Series]:
        """Read a table as the source does."""
        return self.source.read(path)
