"""Search hyperparameters with Optuna: each trial is a fit, scored on what it has not seen."""

import numpy as np
import optuna
import pandas

from ragged.forecasting import Forecaster

step = np.arange(120)
months = pandas.date_range("2014-01-01", periods=len(step), freq="MS")
frame = pandas.DataFrame({"month": months, "sales": step + 40 * np.sin(2 * np.pi * step / 12)})
train, held_out = frame[:96], frame[96 - 24 :]  # the context comes before what is held out


def forecaster(**arguments: float) -> Forecaster:
    """The forecaster of a trial."""
    options = {"target": "sales", "time": "month", "horizon": 6, "context": 24, **arguments}
    return Forecaster("EncoderDecoderLSTM", backend="torch", progress=False, **options)


def objective(trial: optuna.Trial) -> float:
    """R² on the steps that were held out."""
    arguments = {
        "hidden_size": trial.suggest_int("hidden_size", 8, 32, step=8),
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True),
        "max_epochs": 15,
    }
    return forecaster(**arguments).fit(train).score(held_out)


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
study.optimize(objective, n_trials=3)
print(f"R² {study.best_value:.2f} with {study.best_params}")

best = forecaster(**study.best_params, max_epochs=15).fit(frame)
print(best.predict(frame, horizon=6).to_string(float_format="%.1f"))
