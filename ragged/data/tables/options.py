"""Checks of the options of `Tables`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from ragged.data.sources import Roles
from ragged.errors import OptionError


def check_roles(roles: Mapping[str, Sequence[str]]) -> None:
    """Refuse a column in two roles, one text instead of a list, and no target.

    Raises:
        OptionError: such roles.
    """
    seen: dict[str, str] = {}
    for role, columns in roles.items():
        if isinstance(columns, str):
            got, expected = repr(columns), "a list of columns"
            raise OptionError.of("Tables", role, got, expected, f"Write ['{columns}'].")
        for column in columns:
            if column in seen:
                got, expected = f"with '{column}', which is in {seen[column]} too", "one role each"
                raise OptionError.of("Tables", role, got, expected, "Name each column once.")
            seen[column] = role
    if not roles["target"]:
        raise OptionError.of("Tables", "target", "empty", "a column to forecast", "Name one.")


def check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        OptionError: such a value.
    """
    if value not in choices:
        raise OptionError.of("Tables", argument, repr(value), f"one of {choices}", "Name one.")


def check_driver(driver: str | None, known: Sequence[str]) -> None:
    """Refuse a driver that is no known column.

    Raises:
        OptionError: such a driver.
    """
    if driver is not None and driver not in known:
        expected, remedy = f"one of the known columns {list(known)}", "Name it in known too."
        raise OptionError.of("Tables", "driver", repr(driver), expected, remedy)


def check_labels(
    labels: dict[str, list[str]] | str | None, roles: Roles
) -> dict[str, list[str]] | None:
    """Return the labels as text, None where they are to be found.

    Raises:
        OptionError: labels of a target, or of a column without a role; another word than none.
    """
    if isinstance(labels, str):
        if labels != "none":
            got, expected = repr(labels), "none, or the labels of each column"
            raise OptionError.of("Tables", "labels", got, expected, "Write {column: [a, b]}.")
        return {}
    for column in labels or {}:
        if column not in {*roles.known, *roles.past, *roles.static}:
            expected = "a known, past or static column"
            raise OptionError.of("Tables", "labels", f"of '{column}'", expected, "Leave it out.")
    return labels and {column: [str(name) for name in names] for column, names in labels.items()}


def check_units(units: dict[str, str], columns: Sequence[str]) -> dict[str, str]:
    """Return a copy of the units; refuse one of a column without a role.

    Raises:
        OptionError: such a column; the error gives the nearest name.
    """
    for column in units:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            remedy = f"Write '{near[0]}'." if near else "Leave it out."
            got, expected = f"of '{column}'", f"one of {list(columns)}"
            raise OptionError.of("Tables", "units", got, expected, remedy)
    return dict(units)
