"""`Forecaster`: train on a frame, and forecast."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ragged.backend import get_backend, use_backend
from ragged.checks import as_path, as_size
from ragged.data import Series, Tables
from ragged.data.horizons import cut_to_forecast
from ragged.data.tables.future import Future
from ragged.errors import NotFittedError, OptionError
from ragged.evaluation.metrics import Score
from ragged.forecasting.arguments import check_columns, from_config, place, to_config
from ragged.forecasting.backtest import (
    Origins,
    backtest,
    seen_note,
    trained_until,
)
from ragged.forecasting.frames import like, to_pandas, with_future
from ragged.forecasting.rolling import forecast_cuts, left_out_note, rolling_note
from ragged.forecasting.tables import column_names, forecast_table
from ragged.forecasting.training import prepare, train, trained_model
from ragged.runs.folder import open_run, read_metrics, save_run
from ragged.runs.parser import parse, train_parser
from ragged.runs.trained import CreateSource, TrainedModel


class Forecaster:
    """A forecasting model of series in a frame, by scikit-learn's conventions.

    It is trained as `ragged train` trains: by the same configuration, data module and loop. A frame
    has one row a step; it is of pandas, polars or pyarrow, or a Series of pandas. An index of dates
    is the time. What is said of a table's cells, order, gaps and times in `Tables` holds for it.

    | attribute | after `fit` or `load` |
    |---|---|
    | `trained_` | configuration, data module and native module: `trained_.module` |
    | `history_` | losses, learning rate and speed of each epoch |
    | `notes_` | what was sorted, left out, split or added |
    | `backend_` | the backend it was trained on |

    Args:
        model: a model of `ragged.models`, or its name; or as in a run's YAML file `{"class_path":
            name, "init_args": {...}}`.
        target: the column to forecast, or several.
        group: the column, or the columns, that tell series apart.
        time: the column of time, or those that a date is made of, as year and month; without it,
            and without an index of dates, steps are counted.
        known: columns that are known over the horizon too.
        past: columns that are known in the context only.
        static: columns with one value a series.
        horizon: steps to forecast; None = series are whole events, of which the first third is
            context in training.
        context: steps before them that the model sees; by default three horizons, at least 16.
        backend: "torch" or "jax"; None = the chosen one.
        seed: of initial values, order and dropout.
        test: the share of the series, or of their steps, that is held out from training as a test.
        progress: show the progress of training.
        **options: every other argument of the model (`hidden_size`), of `Tables` (`missing`,
            `frequency`), of the data module (`batch_size`, `validation`, `split`), of the windows
            (`stride`), of the trainer (`max_epochs`, `quantiles`) and of its optimizer
            (`learning_rate`), by its name.

    Raises:
        OptionError: an option that none of them takes.

    Example:
        >>> import numpy as np, pandas
        >>> months = pandas.date_range("2015-01-01", periods=60, freq="MS")
        >>> season = 100 + np.arange(60) + 10 * np.sin(np.arange(60) * np.pi / 6)
        >>> frame = pandas.DataFrame({"month": months, "sales": season})
        >>> f = Forecaster("EncoderDecoderLSTM", target="sales", time="month", horizon=3,
        ...                backend="torch", hidden_size=4, max_epochs=1, progress=False)
        >>> f.fit(frame).predict(frame).columns.tolist()
        ['month', 'forecast']
        >>> f.predict(frame)["month"].dt.strftime("%Y-%m").tolist()
        ['2020-01', '2020-02', '2020-03']
    """

    def __init__(
        self,
        model: str | type | Mapping[str, Any] = "AttentionLSTM",
        *,
        target: str | Sequence[str],
        group: str | Sequence[str] | None = None,
        time: str | Sequence[str] | None = None,
        known: Sequence[str] = (),
        past: Sequence[str] = (),
        static: Sequence[str] = (),
        horizon: int | None = None,
        context: int | None = None,
        backend: str | None = None,
        seed: int = 0,
        test: float = 0.0,
        progress: bool = True,
        **options: Any,
    ) -> None:
        for name in options:
            place(name)
        self.model, self.target, self.group, self.time = model, target, group, time
        self.known, self.past, self.static = known, past, static
        self.horizon, self.context = horizon, context
        self.backend, self.seed, self.test, self.progress = backend, seed, test, progress
        self.options = options
        self._until: dict[Any, Any] = {}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor by name, options among them.

        Args:
            deep: of no effect, as no argument is an estimator.
        """
        return {**{name: getattr(self, name) for name in _NAMES}, **self.options}

    def set_params(self, **arguments: Any) -> Self:
        """Change arguments of the constructor; what was fitted stays as it is.

        Raises:
            OptionError: an argument that there is not.
        """
        for name, value in arguments.items():
            if name in _NAMES:
                setattr(self, name, value)
            else:
                place(name)
                self.options = {**self.options, name: value}
        return self

    def fit(self, frame: Any) -> Self:
        """Train on the series of a frame.

        Args:
            frame: see the class.

        Raises:
            DataError: a frame that `Tables` refuses, or from which nothing can be learned; a column
                of `group` or `time` that has the name of one that forecasts have.
            ConfigError, OptionError: arguments that cannot be; a column whose name is no text.
            DivergenceError: a loss that is not finite.
        """
        check_columns(self.get_params())
        read, time = to_pandas("fit", frame, self._targets[0], self.time)
        backend = self.backend or get_backend().name
        arguments = {**self.get_params(), "time": time}
        parser = train_parser()
        config = parse(parser, to_config(arguments, backend))
        with use_backend(backend) as chosen, chosen.init_process_group():
            loop = prepare(config, parser, None, _source_of(read))
            column_names("fit", loop.data.source, loop.objective.quantiles)
            train(loop, is_shown=self.progress)
            trained = trained_model(loop, config)
        self._set(trained, loop.records, loop.data.notes)
        self._until = trained_until(loop.data)
        return self

    def predict(self, frame: Any, horizon: int | None = None, *, future: Any = None) -> Any:
        """Forecast the steps after the last known target of each series.

        Beyond the horizon that was trained it goes on from its own forecasts, and a warning says
        what that costs. A series that training has not seen is forecast as any other.

        Args:
            frame: the series up to now, with the columns of the training. Rows at the end without
                a target are to be forecast.
            horizon: how many steps; by default the rows without a target, and where there are
                none as many as were trained. Their times follow from the frame.
            future: further rows without a target, with the `known` columns.

        Returns:
            A frame of the kind given, a row for each step: the columns of `group`, the time, and a
            column `q0.1` for each quantile, or `forecast`. With several targets the name of each
            is in front.

        Raises:
            NotFittedError: not trained yet.
            DataError: a frame that `Tables` refuses; `known` columns that steps to forecast lack; a
                series too short for a context.
            OptionError: a horizon below 1, or none where none was trained and no target lacks.
        """
        trained = self._fitted("predict")
        if horizon is not None:
            as_size("predict", "horizon", horizon, minimum=1, maximum=None)
        read = self._read(trained, "predict", frame, future)
        wanted = Future(horizon, trained.data.trained_horizon)
        with use_backend(self.backend_):
            events = _events("predict", trained, read, wanted)
            cuts = cut_to_forecast(trained.data, events)
            left_out = left_out_note(events, cuts)
            cuts = cuts[_is_unknown(trained, events, cuts)]
            if not len(cuts):
                got, expected = "left out for a model without windows", "a number of steps"
                remedy = "Give it, or rows without a target at the end of the frame."
                raise OptionError.of("predict", "horizon", got, expected, remedy)
            forecasts = forecast_cuts(trained, events, cuts)
            notes = left_out, rolling_note(trained, events, cuts)
        for note in filter(None, notes):
            warnings.warn(f"predict(): {note}.", UserWarning, stacklevel=2)
        return _like(trained, forecast_table(trained.data, events, cuts, forecasts), read, frame)

    def backtest(
        self,
        frame: Any,
        origins: int = 12,
        *,
        stride: int = 1,
        horizon: int | None = None,
        refit: bool = False,
    ) -> Any:
        """Forecast from several steps of the past, beside the truth.

        No forecast sees anything but `known` columns of after its origin; without `refit` the
        model itself has, where it was trained on those steps, and a warning says so.

        Args:
            frame: the series, with the columns of the training.
            origins: how many, the last ones of each series.
            stride: steps from one to the next.
            horizon: steps to forecast from each; by default as many as were trained.
            refit: train anew for each origin, on the steps up to it.

        Returns:
            A frame of the kind given, a row for each forecast step: the columns of `group`, the
            last known time as `origin`, the time, `truth`, and the columns of `predict`.

        Raises:
            NotFittedError: not trained yet.
            DataError: a frame that `Tables` refuses; all series are too short.
            OptionError: a number below 1; no horizon, and none was trained.
        """
        trained = self._fitted("backtest")
        wanted = Origins(origins, stride, horizon)
        read = self._read(trained, "backtest", frame)
        with use_backend(self.backend_):
            events = _events("backtest", trained, read)
            column_names("backtest", trained.data.source, trained.levels, is_backtest=True)
            found = backtest(trained, events, wanted, refit=refit)
        note = None if refit else seen_note(self._until, events, found)
        if note:
            warnings.warn(f"backtest(): {note}.", UserWarning, stacklevel=2)
        table = forecast_table(trained.data, events, found.cuts, found.forecasts, is_backtest=True)
        return _like(trained, table, read, frame)

    def score(self, frame: Any) -> float:
        """Return R² of the forecasts of a frame, the mean over the targets; 1 is the best.

        Each step after the first context of a series is forecast once, a horizon at a time.

        Args:
            frame: series that were not trained on, each with a context in front.

        Raises:
            NotFittedError: not trained yet.
            DataError: a frame that `Tables` refuses; a series too short for a context.
        """
        trained = self._fitted("score")
        read = self._read(trained, "score", frame)
        with use_backend(self.backend_):
            events = _events("score", trained, read)
            cuts = cut_to_forecast(trained.data, events)
            forecasts = forecast_cuts(trained, events, cuts)
        points = np.concatenate([forecast.point for forecast in forecasts])
        scores = []
        for index, name in enumerate(trained.data.source.roles.target):
            truths = [events[event].columns[name][a:b] for event, _, a, b in cuts.tolist()]
            scores.append(Score.of(np.concatenate(truths), points[:, index]).r2)
        return float(np.mean(scores))

    def save(self, folder: str | Path) -> None:
        """Write what was trained as the folder of a run, which `load` and `ragged` read.

        The frame is not written: `ragged evaluate`, `report` and `export`, which compares forecasts
        of its rows, need the path of a table in `config.yaml` first; `ragged predict` does not.

        Args:
            folder: is made, or holds a run, which is replaced.

        Raises:
            NotFittedError: not trained yet.
            CheckpointError: a folder with something else in it.
        """
        trained = self._fitted("save")
        with use_backend(self.backend_):
            save_run(as_path("save", "folder", folder), train_parser(), trained, self.history_)

    @classmethod
    def load(cls, folder: str | Path, backend: str | None = None) -> Forecaster:
        """Read the folder of a run, written by `save` or by `ragged train` on a table.

        The arguments of the forecaster are those that the data resolved: `get_params` gives the
        calendar and the labels that were found.

        Args:
            folder: of the run.
            backend: to forecast with; by default the one it was trained on.

        Raises:
            CheckpointError, ConfigError: a folder that is no run, or a damaged one; a class that is
                not of ragged, which is not imported.
        """
        path = as_path("load", "folder", folder)
        with open_run(path, train_parser(), backend) as run:
            arguments = from_config(run.written)
        forecaster = cls(**{**arguments, "backend": backend or arguments["backend"]})
        forecaster._set(run, read_metrics(path), [])
        return forecaster

    def __repr__(self) -> str:
        """The call of the constructor, without what is as by default."""
        defaults = {name: value for name, value in _NAMES.items() if value is not _REQUIRED}
        changed = {k: v for k, v in self.get_params().items() if defaults.get(k, _REQUIRED) != v}
        return f"Forecaster({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    @property
    def _targets(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)

    def _set(self, trained: TrainedModel, history: list[dict[str, Any]], notes: list[str]) -> None:
        self.trained_, self.history_, self.notes_ = trained, history, notes
        self.backend_: str = trained.config.backend if self.backend is None else self.backend
        self._until = {}

    def _fitted(self, function: str) -> TrainedModel:
        if not hasattr(self, "trained_"):
            got, expected = "not trained", "a trained one"
            remedy = "Call fit(frame), or Forecaster.load(folder)."
            raise NotFittedError.of(f"Forecaster.{function}", "self", got, expected, remedy)
        return self.trained_

    def _read(self, trained: TrainedModel, function: str, frame: Any, future: Any = None) -> Any:
        """Return a frame, and rows of the future behind it, as pandas."""
        time = _tables(trained).time_columns
        read, _ = to_pandas(function, frame, self._targets[0], time)
        if future is None:
            return read
        rows, _ = to_pandas(function, future, self._targets[0], time)
        return with_future(read, rows, self._targets)


_REQUIRED = object()
_NAMES: dict[str, Any] = {
    "model": "AttentionLSTM", "target": _REQUIRED, "group": None, "time": None, "known": (),
    "past": (), "static": (), "horizon": None, "context": None, "backend": None, "seed": 0,
    "test": 0.0, "progress": True,
}  # fmt: skip


def _tables(trained: TrainedModel) -> Tables:
    source = trained.data.source
    assert isinstance(source, Tables)
    return source


def _like(trained: TrainedModel, table: Any, read: Any, frame: Any) -> Any:
    """Return a table of forecasts as the user's frame has the series and the times."""
    source = _tables(trained)
    return like(table, (*source.label_columns, source.time_column), read, frame)


def _events(
    function: str, trained: TrainedModel, frame: Any, future: Future | None = None
) -> list[Series]:
    """Read the series of a frame, and tell of labels that the model does not know."""
    source = _tables(trained)
    events = source.read(frame, future)
    for note in source.unknown_labels:
        warnings.warn(f"{function}(): {note}.", UserWarning, stacklevel=3)
    return events


def _source_of(frame: Any) -> CreateSource:
    """Return the function that makes the source of a frame."""

    def create(kind: type[Tables], *, path: str, target: Sequence[str], **options: Any) -> Tables:
        return kind.from_frame(frame, target, **options)

    return create


def _is_unknown(trained: TrainedModel, events: Sequence[Series], cuts: np.ndarray) -> np.ndarray:
    """Return for each row whether it has a step without a target, `(rows,)` bool."""
    targets = trained.data.source.roles.target
    unknown = [
        any(np.isnan(events[event].columns[name][split:stop]).any() for name in targets)
        for event, _, split, stop in cuts.tolist()
    ]
    return np.array(unknown, dtype=bool)
