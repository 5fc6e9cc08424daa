"""A column of a country's holidays, by the library `holidays`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragged.errors import MissingExtraError, OptionError

INSTALL = "Install the extra: pip install 'ragged-sequences[tables]'."


def holiday_name(country: str) -> str:
    """Return the name of the column.

    >>> holiday_name("DE-BW")
    'holiday (DE-BW)'
    """
    return f"holiday ({country})"


def holiday_column(dates: Any, country: str) -> np.ndarray:
    """Return 1 at dates that are a holiday, and 0 at others, `(rows,)` float64.

    Args:
        dates: a pandas DatetimeIndex, in its own time zone.
        country: its code of two letters, with a subdivision as in DE-BW if there is one.

    Raises:
        OptionError: a country or a subdivision that the library does not know.
        MissingExtraError: the library is not installed.

    >>> import pandas
    >>> holiday_column(pandas.DatetimeIndex(["2023-07-03", "2023-07-04 12:00"]), "US")
    array([0., 1.])
    """
    try:
        import holidays
    except ImportError as error:
        got, expected = repr(country), "the package holidays"
        raise MissingExtraError.of("Tables", "holidays", got, expected, INSTALL) from error
    code, _, subdivision = country.partition("-")
    try:
        days = holidays.country_holidays(
            code, subdiv=subdivision or None, years=sorted(set(dates.year.tolist()))
        )
    except NotImplementedError as error:
        got, expected = f"{country!r} ({error})", "a country's code, as US or DE-BW"
        raise OptionError.of("Tables", "holidays", got, expected, "Correct it.") from error
    return np.array([float(date in days) for date in dates.date])
