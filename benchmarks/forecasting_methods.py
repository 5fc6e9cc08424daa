"""Forecasts of a task: by our models, by naive rules, by statsmodels."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forecasting_sets import LEVELS, Task
from ragged.backend import use_backend
from ragged.evaluation.baselines import baselines
from ragged.evaluation.evaluate import evaluate_model
from ragged.training import TrainerConfig
from ragged.training.loop import TrainLoop
from ragged.training.lr_schedules import WarmupCosine

MODELS: dict[str, dict[str, Any]] = {
    "EncoderDecoderLSTM": {"num_layers": 1},
    "AttentionLSTM": {"num_layers": 1},
    "TemporalFusionTransformer": {"num_layers": 1},
}
KINDS = ("none", "last_value", "standard", "seasonal")
SEASONAL = 24  # steps of the longest season that statsmodels' models are given: it is slow beyond
STEPS, HIDDEN = 200, 32


@dataclass(frozen=True)
class Forecasts:
    """All test steps of a task, one row after the other.

    Args:
        point: `(steps,)`.
        levels: the same for each level, or None.
    """

    point: np.ndarray
    levels: dict[float, np.ndarray] | None = None


def ours(task: Task, model: str, kind: str, seed: int, steps: int = STEPS) -> Forecasts:
    """Train one of our models on quantiles, and forecast."""
    from ragged import models

    data = task.data
    with use_backend("torch") as backend, tempfile.TemporaryDirectory() as folder:
        chosen = getattr(models, model)
        data.encoder_alignment = chosen.encoder_alignment
        data.__dict__.pop("train", None)
        for part in ("train", "validation", "test"):
            rows = replace(getattr(data, part), encoder_alignment=chosen.encoder_alignment)
            data.__dict__[part] = rows
        options = dict(MODELS[model])
        if model == "TemporalFusionTransformer":
            options["context_length"] = data.longest_context
        module = chosen(
            data.past_features, data.future_features, hidden_size=HIDDEN, output_size=len(LEVELS),
            row_normalization=kind, season=data.season, cardinalities=data.cardinalities, seed=seed,
            **options,
        )  # fmt: skip
        per_epoch = -(-len(data.train) // data.batch_size)
        trainer = TrainerConfig(
            max_epochs=-(-steps // per_epoch),
            patience=10**6,
            tolerance=0.1,
            device="cpu",
            loss="quantile",
            quantiles=LEVELS,
            lr_schedule=WarmupCosine(decay_steps=steps),
        )
        loop = TrainLoop(trainer, module, data, Path(folder), seed)
        loop.run()
        from ragged.io import checkpoint

        best = checkpoint.read(loop.best).create_model(backend)
        found = evaluate_model(best, data, trainer).forecasts
    levels = {q: np.concatenate([f.levels[q][:, 0] for f in found]) for q in LEVELS}
    return Forecasts(levels[0.5], levels)


def _torch() -> Any:
    from ragged.backend import load_backend

    return load_backend("torch")


def naive(task: Task, name: str) -> Forecasts:
    """Forecast by one of our own baselines."""
    found = baselines(list(task.data.train.rows), task.rows, task.target, season=task.season)
    return Forecasts(np.concatenate(found.get(name, found["persistence"])))


def ets(task: Task) -> Forecasts:
    """Forecast by exponential smoothing with a damped trend, its season additive."""
    import pandas
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    def model(seen: np.ndarray, season: int) -> Any:
        options = {"seasonal": "add", "seasonal_periods": season} if season > 1 else {}
        return ETSModel(pandas.Series(seen), error="add", trend="add", damped_trend=True, **options)

    def forecast(seen: np.ndarray, fitted: Any, season: int, steps: int) -> Any:
        result = model(seen, season).smooth(fitted.params)
        table = result.get_prediction(len(seen), len(seen) + steps - 1).summary_frame(alpha=0.2)
        return table["pi_lower"], table["mean"], table["pi_upper"]

    return _statistical(task, lambda seen, season: model(seen, season).fit(disp=False), forecast)


def arima(task: Task) -> Forecasts:
    """Forecast by the best of three ARIMA models by AIC, with a seasonal moving average."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    def fit(seen: np.ndarray, season: int) -> Any:
        seasonal = (0, 1, 1, season) if season > 1 else (0, 0, 0, 0)
        fits = [
            SARIMAX(seen, order=order, seasonal_order=seasonal).fit(disp=False, maxiter=50)
            for order in ((0, 1, 1), (1, 1, 1), (2, 1, 2))
        ]
        return min(fits, key=lambda result: float(result.aic))

    def forecast(seen: np.ndarray, fitted: Any, season: int, steps: int) -> Any:
        result = fitted.apply(seen).get_forecast(steps)
        interval = np.asarray(result.conf_int(alpha=0.2))
        return interval[:, 0], result.predicted_mean, interval[:, 1]

    return _statistical(task, fit, forecast)


def _statistical(
    task: Task, fit: Callable[[np.ndarray, int], Any], forecast: Callable[..., Any]
) -> Forecasts:
    """Fit once a series, on what is before its first test row; then forecast each row."""
    fitted: dict[str, tuple[Any, int]] = {}
    parts: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in task.rows:
            seen = task.seen(row)
            if row.event.name not in fitted:
                is_seasonal = task.season <= SEASONAL and len(seen) >= 3 * task.season
                season = task.season if is_seasonal else 1
                fitted[row.event.name] = fit(seen, season), season
            parts.append(forecast(seen, *fitted[row.event.name], len(row.future)))
    low, middle, high = (np.concatenate([np.asarray(p[i]) for p in parts]) for i in range(3))
    return Forecasts(middle, {0.1: low, 0.5: middle, 0.9: high})
