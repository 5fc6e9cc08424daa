"""Forecasts of a task by neuralforecast's LSTM and TFT, with their own reversible normalisation."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.forecasting_methods import HIDDEN, STEPS, Forecasts
from benchmarks.forecasting_sets import Task

NAMES = ("neuralforecast LSTM", "neuralforecast TFT")


def is_installed() -> bool:
    """Whether the peers can run."""
    return find_spec("neuralforecast") is not None


def neuralforecast(task: Task, name: str, seed: int, steps: int = STEPS) -> Forecasts:
    """Train one on all that is before the test rows, and forecast each row from its history.

    Size, steps and known columns are those of our models; the rest, the normalisation of each
    window too, is the default.
    """
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MQLoss
    from neuralforecast.models import LSTM, TFT

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    context = int(task.data.train.lengths[:, 0].max())
    known = list(task.data.source.roles.known)
    options: dict[str, Any] = {
        "h": task.horizon, "input_size": context, "loss": MQLoss(level=[80]), "max_steps": steps,
        "random_seed": seed, "futr_exog_list": known or None, "start_padding_enabled": True,
        "windows_batch_size": 64, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False, "accelerator": "cpu",
    }  # fmt: skip
    if name == NAMES[0]:
        sizes = {"encoder_hidden_size": HIDDEN, "decoder_hidden_size": HIDDEN}
        model = LSTM(encoder_n_layers=1, **sizes, **options)
    else:
        model = TFT(hidden_size=HIDDEN, n_head=4, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecaster = NeuralForecast(models=[model], freq=1)
        forecaster.fit(_training(task, known), val_size=0)
        past, future = _histories(task, known)
        found = forecaster.predict(df=past, futr_df=future if known else None)
    levels = {}
    for level, ending in {0.1: "-lo-80", 0.5: "-median", 0.9: "-hi-80"}.items():
        (column,) = (name for name in found.columns if ending in name)
        by_row = [group[column].to_numpy() for _, group in found.groupby("unique_id", sort=True)]
        parts = [values[: len(row.future)] for values, row in zip(by_row, task.rows, strict=True)]
        levels[level] = np.concatenate(parts)
    return Forecasts(levels[0.5], levels)


def _training(task: Task, known: list[str]) -> Any:
    """All steps of each series before its first test row."""
    import pandas

    last = {row.event.name: row for row in reversed(task.rows)}
    frames = [_frame(name, row.event, 0, row.split, task, known) for name, row in last.items()]
    return pandas.concat(frames)


def _histories(task: Task, known: list[str]) -> tuple[Any, Any]:
    """What is before each test row, as a series of its own, and what is known after."""
    import pandas

    past, future = [], []
    for index, row in enumerate(task.rows):
        name, stop = f"{index:06d}", row.split + task.horizon
        past.append(_frame(name, row.event, 0, row.split, task, known))
        ahead = _frame(name, row.event, row.split, min(stop, row.event.steps), task, known)
        missing = task.horizon - len(ahead)
        if missing:  # steps beyond the data, whose forecasts are not scored
            rest = pandas.concat([ahead.tail(1)] * missing)
            rest["ds"] = ahead["ds"].iloc[-1] + 1 + np.arange(missing)
            ahead = pandas.concat([ahead, rest])
        future.append(ahead.drop(columns="y"))
    return pandas.concat(past), pandas.concat(future)


def _frame(name: str, event: Any, start: int, stop: int, task: Task, known: list[str]) -> Any:
    import pandas

    from ragged.data.normalization import forward_fill

    columns = {column: event.columns[column][start:stop] for column in known}
    y = forward_fill(event.columns[task.target])[start:stop]
    return pandas.DataFrame({"unique_id": name, "ds": np.arange(start, stop), "y": y, **columns})
