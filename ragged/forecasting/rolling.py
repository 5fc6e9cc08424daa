"""Forecasts of rows whose horizon is longer than the one that was trained: they roll on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from ragged.data import EncoderDecoderDataModule, RaggedDataset, Series
from ragged.data.tables.notes import some
from ragged.evaluation.forecasts import RowForecast


class Predictor(Protocol):
    """A model with its data: a trained one, or an exported one."""

    @property
    def data(self) -> EncoderDecoderDataModule:
        """With the normalisation of the training."""

    def forecast(self, dataset: RaggedDataset) -> list[RowForecast]:
        """Forecast every row of a dataset, in its order."""


def forecast_cuts(
    predictor: Predictor, events: Sequence[Series], cuts: np.ndarray
) -> list[RowForecast]:
    """Forecast rows of events, beyond the trained horizon from its own forecasts.

    The first steps of a long horizon are forecast as usual, at most the windows' horizon. They
    then stand for the targets, and the next steps are forecast from a context that ends with them,
    and so on. Past columns are unknown there: their last known value is repeated. Without windows
    there is no trained horizon, and a row is forecast at once.

    Args:
        predictor: the model.
        events: unnormalised.
        cuts: `(rows, 4)` int64: the index of a row's event, and its start, split and stop there.

    Returns:
        A forecast for each row, `(stop - split, targets)`.
    """
    data = predictor.data
    longest = int((cuts[:, 3] - cuts[:, 2]).max(initial=0))
    block = data.trained_horizon
    if block is None or longest <= block:
        return predictor.forecast(data.rows_at(events, cuts))
    seen = [_until_forecast(events[row[0]], row[2], row[3], data) for row in cuts.tolist()]
    pieces: list[list[RowForecast]] = [[] for _ in seen]
    for ahead in range(0, longest, block):
        rows = [row for row, (*_, split, stop) in enumerate(cuts.tolist()) if split + ahead < stop]
        next_cuts = np.array([_block(data, cuts[row], ahead, block) for row in rows])
        next_cuts[:, 0] = np.arange(len(rows))
        dataset = data.rows_at([seen[row] for row in rows], next_cuts)
        forecasts = predictor.forecast(dataset)
        for row, (*_, split, stop), forecast in zip(
            rows, next_cuts.tolist(), forecasts, strict=True
        ):
            pieces[row].append(forecast)
            for index, name in enumerate(data.source.roles.target):
                seen[row].columns[name][split:stop] = forecast.point[:, index]
    return [RowForecast.joined(forecasts) for forecasts in pieces]


def left_out_note(events: Sequence[Series], cuts: np.ndarray) -> str | None:
    """Tell which events `cut_to_forecast` left out; None if there are none.

    Args:
        events: all of them.
        cuts: `(rows, 4)`, where the others are cut.
    """
    cut = set(cuts[:, 0].tolist())
    names = [event.name for index, event in enumerate(events) if index not in cut]
    return f"left out, too short to forecast: {some(names)}" if names else None


def rolling_note(predictor: Predictor, events: Sequence[Series], cuts: np.ndarray) -> str | None:
    """Tell what rolling on costs, measured on the last known steps of the same events.

    Returns:
        A sentence; None where no row's horizon is longer than the one that was trained.
    """
    first, longest = predictor.data.trained_horizon, int((cuts[:, 3] - cuts[:, 2]).max(initial=0))
    if first is None or longest <= first:
        return None
    text = f"steps {first + 1} to {longest} are forecast from forecasts"
    text = f"{text}, and quantiles do not count the errors of those"
    earlier = cuts - np.array([0, 0, longest, longest])
    earlier = earlier[earlier[:, 2] >= predictor.data.shortest_context]
    if not len(earlier):
        return f"{text}; the series are too short to measure what it costs"
    earlier[:, 1] = [predictor.data.context_start(split) for split in earlier[:, 2].tolist()]
    earlier[:, 3] = earlier[:, 2] + longest
    near, far = _errors(predictor, events, earlier, first)
    times = f"{far / near:.1f} times" if near > 0 else f"{far:.3g} against"
    return (
        f"{text}: over the last {longest} known steps, from before them, their RMSE is {times} "
        f"that of steps 1 to {first}"
    )


def _errors(
    predictor: Predictor, events: Sequence[Series], cuts: np.ndarray, first: int
) -> tuple[float, float]:
    """Return the RMSE of the first steps and of those after, the mean over the targets."""
    forecasts = forecast_cuts(predictor, events, cuts)
    near, far = [], []
    for index, name in enumerate(predictor.data.source.roles.target):
        squared = np.stack(
            [
                (events[event].columns[name][split:stop] - forecast.point[:, index]) ** 2
                for (event, _, split, stop), forecast in zip(cuts.tolist(), forecasts, strict=True)
            ]
        )
        near.append(np.sqrt(np.nanmean(squared[:, :first])))
        far.append(np.sqrt(np.nanmean(squared[:, first:])))
    return float(np.mean(near)), float(np.mean(far))


def _block(
    data: EncoderDecoderDataModule, cut: np.ndarray, ahead: int, block: int
) -> tuple[int, int, int, int]:
    """Return the cut of the steps of a row from `ahead` on, at most `block`."""
    event, start, split, stop = cut.tolist()
    begin = split + ahead
    start = data.context_start(begin) if ahead else start
    return event, start, begin, min(begin + block, stop)


def _until_forecast(event: Series, split: int, stop: int, data: EncoderDecoderDataModule) -> Series:
    """Return a copy of an event up to a row's stop, of which only known columns reach over it."""
    roles, until = data.source.roles, event.until(stop)
    columns = dict(until.columns)
    for name in roles.past + roles.target:
        columns[name] = columns[name].copy()
        columns[name][split:] = np.nan
    return replace(until, columns=columns)
