"""Cells as users write them: numbers with their marks and signs, words, and unknown ones."""

from __future__ import annotations

import re
import sys
from datetime import date
from typing import Any

import numpy as np

# What pandas takes for unknown, and what statistics offices write.
UNKNOWN = frozenset(
    (
        *("", "NA", "N/A", "n/a", "na", "#N/A", "#NA", "#N/A N/A", "<NA>", "NULL", "null", "None"),
        *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "-", ".", "?"),
    )
)
NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
# With marks of thousands: 1,234.5 or 1 234 567.
GROUPED = (
    r"[-+]?\d{1,3}(?P<groups>(?P<mark>[.,' _\u00a0\u202f])\d{3}((?P=mark)\d{3})*)"
    r"((?P<decimal>(?!(?P=mark))[.,])\d*)?"
)
SIGNS = "$\u20ac\u00a3\u00a5\u20b9%"  # of money, and of percent
SIGNED = (
    rf"(?P<minus>[-+]?) ?(?P<before>[{SIGNS[:-1]}]?) ?"
    rf"(?P<number>[-+\d.].*?)\s*(?P<after>[{SIGNS}]?)"
)
LIKE_NUMBER = r"[-+]?[\d.,]*\d[\d.,]*(e[-+]?\d+)?|[-+]?inf(inity)?"
TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def label_of(cell: Any) -> str:
    """Return a cell as text; whole numbers have no decimals where a column has unknown cells."""
    value = _to_python(cell)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def without_sign(cell: Any) -> tuple[Any, str]:
    """Return a cell without the sign of money or percent, and the sign.

    >>> without_sign("12.5 %"), without_sign("-$1,234"), without_sign("12")
    (('12.5', '%'), ('-1,234', '$'), ('12', ''))
    """
    found = re.fullmatch(SIGNED, plain(cell)) if isinstance(cell, str) else None
    if found is None or bool(found["before"]) == bool(found["after"]):
        return cell, ""
    return found["minus"] + found["number"], found["before"] + found["after"]


def plain(text: str) -> str:
    """Return the text of a number without blanks around it, its minus as keyboards have it."""
    return text.strip().replace("\u2212", "-")


def as_series(cells: Any) -> Any:
    """Return the cells of a column as a pandas Series; categories that are numbers are numbers."""
    series = cells.to_pandas() if is_arrow(cells) else cells
    categories = getattr(series.dtype, "categories", None)
    if categories is None or categories.dtype.kind not in "iufb":
        return series
    return type(series)(np.asarray(series), index=series.index, name=series.name)


def is_arrow(cells: Any) -> bool:
    """Whether cells are Arrow's, which those of text files are."""
    return hasattr(cells, "dictionary_encode")


def cells_of(series: Any) -> Any:
    """Return the cells of a Series: numbers as an array, others as a list, None where unknown."""
    kind = series.dtype.kind
    if kind in "iu" and not series.hasnans:
        return series.to_numpy(dtype=np.int64 if kind == "i" else np.uint64)
    if kind in "iuf":
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    if kind == "M":
        return [None if stamp != stamp else stamp.to_pydatetime(warn=False) for stamp in series]
    return [_decoded(cell) for cell in series.to_numpy(dtype=object, na_value=None)]


def _decoded(cell: Any) -> Any:
    """Decode bytes; those that are not UTF-8 are returned, and refused by `Table`."""
    try:
        return cell.decode() if isinstance(cell, bytes) else cell
    except UnicodeDecodeError:
        return cell


def is_like_number(cell: Any) -> bool:
    """Whether a cell is a number, or was meant as one: 1.234,5 is, with another decimal mark."""
    if not isinstance(cell, str):
        return not isinstance(cell, bytes)
    text = plain(without_sign(cell)[0])
    return re.fullmatch(LIKE_NUMBER, text, re.IGNORECASE) is not None


def _to_python(cell: Any) -> Any:
    """Convert a cell to a plain value: stripped text, or a Python scalar for a NumPy one."""
    return cell.strip() if isinstance(cell, str) else getattr(cell, "item", lambda: cell)()


def shown(cell: Any) -> str:
    """Format a cell for an error message."""
    value = _to_python(cell)
    if value is None or value != value or value == "":
        return "an empty cell"
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return "a number beyond float64"  # its digits may be too many for Python to print
    return repr(str(value) if isinstance(value, date) else value)
