"""The forms of dates that tables have in common, and the cells that only look like them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from itertools import product
from typing import Any

YEARS = "years"  # as a time_format: two years on end, as 1960/61
SPAN = r"(?P<first>\d{4}) ?[-/\u2013] ?(?P<second>\d{4}|\d{2})"
MONTHS_OF_SPAN = {"-": "%Y-%m", "/": "%Y/%m"}

DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y/%m", "%Y.%m", "%m/%Y", "%m-%Y", "%m.%Y"),
    *("%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%m-%Y", "%m.%d.%Y", "%d.%m.%Y"),
    *("%m/%d/%y", "%d/%m/%y", "%m-%d-%y", "%d-%m-%y", "%m.%d.%y", "%d.%m.%y"),
    *("%Y %b", "%Y %B", "%Y-%b", "%b %Y", "%B %Y", "%b-%Y", "%B-%Y", "%b-%y", "%Y %b %d"),
    *("%b %d %Y", "%B %d %Y", "%b %d, %Y", "%B %d, %Y", "%b-%d-%Y", "%Y-%b-%d"),
    *("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y", "%d.%b.%Y", "%d/%b/%Y"),
    *("%YM%m", "%Y-M%m", "%Y M%m", "%Y%m%d"),
    *("%a %d %b %Y", "%a, %d %b %Y", "%a %b %d %Y", "%a, %b %d, %Y", "%A, %B %d, %Y"),
)
CLOCKS = (
    *("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M", "T%H:%M:%S", "T%H:%M:%S.%f", " %H"),
    *(" %I:%M %p", " %I:%M:%S %p", " %I:%M%p", ", %H:%M", ", %H:%M:%S", ":%H:%M:%S"),
)
# The end of a day as its hour 24: with minutes, or behind a day that has its own separators.
HOUR_24 = (
    r"^(?P<day>.*\d[T ,:]+)24(?P<rest>(?::00){1,2}(?:\.0+)?)(?P<zone> ?(?:Z|[-+]\d\d:?\d\d)?)$",
    r"^(?P<day>\d+[-/.]\w+[-/.]\w+[T ]+)24(?P<rest>(?:00){0,2})(?P<zone>)$",
)
HOUR_24_LAST = r"^(?P<day>.+)24(?P<rest>(?::?00){0,2})(?P<zone>)$"  # where a form ends in an hour


def forms_of(cell: str) -> Sequence[str]:
    """Return the common forms that a cell may have.

    >>> forms_of("01/02/2021 12:00")
    ['%m/%d/%Y %H:%M', '%d/%m/%Y %H:%M']
    """
    marks = re.sub(r"[^\W_]", "", cell)  # strptime is slow: those with other marks are passed over
    forms = [day + clock for day, clock in product(DAYS, CLOCKS)]
    return [f for f in forms if re.sub("%?[a-zA-Z]", "", f) == marks and _fits(cell, f)]


def without_hour_24(text: Any, time_format: str | None) -> tuple[Any, Any]:
    """Return text with hour 0 for hour 24, and where that is so: there the day is the next one.

    Args:
        text: a Series of pandas.
        time_format: the form of the dates, if it is named.

    >>> import pandas
    >>> text, is_next_day = without_hour_24(pandas.Series(["2020-02-28 24:00"]), None)
    >>> text.tolist(), is_next_day.tolist()
    (['2020-02-28 00:00'], [True])
    """
    ends_in_hour = re.search(r"%H(:?%M)?(:?%S)?$", time_format or "")
    patterns = [HOUR_24_LAST] if ends_in_hour else HOUR_24 if time_format is None else ()
    is_next_day = text.isna() & False
    if not ends_in_hour and not text.str.contains("[T ,:]24").any():  # as is fast to see
        patterns = ()
    for pattern in patterns:
        has_24 = text.str.match(pattern)
        if has_24.any():
            text = text.str.replace(pattern, r"\g<day>00\g<rest>\g<zone>", regex=True)
            is_next_day |= has_24
    return text, is_next_day.to_numpy()


def first_years(text: Any) -> Any | None:
    """Return the first of two years on end, as in 1960/61 or 1960-1961; None if they are none.

    >>> import pandas
    >>> first_years(pandas.Series(["1999/00", "2000/01"])).tolist()
    ['1999', '2000']
    """
    parts = text.str.extract(f"^{SPAN}$")
    if parts.isna().to_numpy().any():
        return None
    first, second = parts["first"].astype(int), parts["second"].astype(int)
    after = (first + 1).where(parts["second"].str.len() == 4, (first + 1) % 100)
    return parts["first"] if (second == after).all() else None


def months_of_years(text: Any) -> str | None:
    """Return the form in which two years on end may be months, as 2001-02 may; None if not so.

    >>> import pandas
    >>> months_of_years(pandas.Series(["2001-02", "2002-03"]))
    '%Y-%m'
    """
    form = MONTHS_OF_SPAN.get(text.iloc[0][4])
    return form if form and text.str.fullmatch(r"\d{4}[-/](0[1-9]|1[0-2])").all() else None


def _fits(cell: str, form: str) -> bool:
    try:
        datetime.strptime(cell, form)
    except ValueError:
        return False
    return True
