"""Tables of forecasts: the user's own columns and times, one row a step, in full precision."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragged.data import EncoderDecoderDataModule, Series, Source
from ragged.errors import DataError, OptionError
from ragged.evaluation.forecasts import RowForecast
from ragged.io.checkpoint import write_file

SUFFIXES = (".csv", ".parquet")


def forecast_table(
    data: EncoderDecoderDataModule,
    events: Sequence[Series],
    cuts: np.ndarray,
    forecasts: Sequence[RowForecast],
    *,
    is_backtest: bool = False,
    for_file: bool = False,
) -> Any:
    """Lay forecasts out as a pandas DataFrame, a row for each step.

    Its columns are those that tell series apart, the time, and a column for each quantile, or
    `forecast` where the model has none; in files, and where there are several targets, with the
    target's name in front, and in files with its unit behind.

    Args:
        data: the data module.
        events: the series.
        cuts: `(rows, 4)` int64, of the forecasts.
        forecasts: one for each row.
        is_backtest: add the time of the last known step as `origin`, and the truth.
        for_file: see above.

    Raises:
        DataError: as `column_names`.
    """
    import pandas

    source, rows = data.source, cuts.tolist()
    counts = [stop - split for *_, split, stop in rows]
    columns: list[Any] = []
    for index in range(len(source.label_columns)):
        labels = [_label(events[event], index) for event, *_ in rows]
        columns.append(pandas.Series(labels).repeat(counts).reset_index(drop=True))
    if is_backtest:
        origins = [_stamps(events[event], split - 1, split) for event, _, split, _ in rows]
        columns.append(_joined(origins).repeat(counts).reset_index(drop=True))
    times = [_stamps(events[event], split, stop) for event, _, split, stop in rows]
    columns.append(_joined(times))
    joined = RowForecast.joined(forecasts) if rows else None
    for index, name in enumerate(source.roles.target if joined else ()):
        assert joined is not None
        values = [each[:, index] for each in (joined.levels.values() or [joined.point])]
        if is_backtest:
            truths = [events[event].columns[name][split:stop] for event, _, split, stop in rows]
            values.insert(0, np.concatenate(truths))
        columns += [source.raw_target(name, each)[1] for each in values]
    levels = tuple(joined.levels) if joined else ()
    options = {"is_backtest": is_backtest, "for_file": for_file}
    names = column_names("forecast_table", source, levels, **options)
    return pandas.DataFrame(dict(zip(names, columns, strict=joined is not None)))


def column_names(
    function: str,
    source: Source,
    levels: Sequence[float],
    *,
    is_backtest: bool = False,
    for_file: bool = False,
) -> list[str]:
    """Name the columns of a table of forecasts at the levels of quantiles; see `forecast_table`.

    Raises:
        DataError: a column of `group`, or of the time, has the name of another.
    """
    names = [*source.label_columns, *(["origin"] if is_backtest else []), source.time_column]
    own = [f"q{level:g}" for level in levels] or ["forecast"]
    own = ["truth", *own] if is_backtest else own
    for target in source.roles.target:
        header, _ = source.raw_target(target, np.empty(0))
        unit = source.raw_unit(target) if for_file else ""
        is_named = for_file or len(source.roles.target) > 1
        full = [f"{header}_{key}" if is_named else key for key in own]
        names += [f"{name} [{unit}]" for name in full] if unit else full
    for name in names:
        if names.count(name) > 1:
            argument = "time" if name == source.time_column else "group"
            got, expected = f"'{name}'", "another name: forecasts have a column of that one"
            raise DataError.of(function, argument, got, expected, "Rename the column.")
    return names


def check_output(function: str, path: Path) -> None:
    """Refuse a path that `write_table` cannot write, before anything is computed.

    Raises:
        OptionError: another suffix than .csv or .parquet, a folder that is not there, or a folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        got, remedy = repr(str(path)), "Name the file forecast.csv, say."
        expected = f"a name that ends in one of {SUFFIXES}"
        raise OptionError.of(function, "output", got, expected, remedy)
    if not path.parent.is_dir():
        got = f"in {str(path.parent)!r}, which is no folder"
        raise OptionError.of(function, "output", got, "a folder that is there", "Make it first.")
    if path.is_dir():
        got, remedy = f"{str(path)!r}, which is a folder", "Name a file within it."
        raise OptionError.of(function, "output", got, "a file", remedy)


def check_not_read(function: str, output: Path, input: Path) -> None:
    """Refuse an output that would replace the table that is read, or one of a folder of them.

    Raises:
        OptionError: it would.
    """
    if not output.exists() or not input.exists():
        return
    if output.samefile(input) or (input.is_dir() and output.parent.samefile(input)):
        got, expected = f"{str(output)!r}, which is read", "another file than the table"
        raise OptionError.of(function, "output", got, expected, "Name a new one.")


def write_table(path: Path, table: Any) -> None:
    """Write a table as CSV or Parquet, by the name of the file."""
    buffer = io.BytesIO()
    if path.suffix.lower() == ".parquet":
        table.to_parquet(buffer, index=False)
    else:
        table.to_csv(buffer, index=False, lineterminator="\n")
    write_file(path, buffer.getvalue())


def _label(event: Series, index: int) -> Any:
    return event.name if event.labels is None else event.labels[index]


def _stamps(event: Series, start: int, stop: int) -> Any:
    import pandas

    return pandas.Series(event.stamps[start:stop])


def _joined(stamps: Sequence[Any]) -> Any:
    """Put times one after the other; numbers that are all whole become integers."""
    import pandas

    if not stamps:
        return pandas.Series([], dtype="float64")
    joined = pandas.concat(stamps, ignore_index=True)
    is_whole = joined.dtype.kind == "f" and bool((joined == np.floor(joined)).all())
    return joined.astype("int64") if is_whole and joined.abs().max() < 2**53 else joined
