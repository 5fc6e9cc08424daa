"""Checks of the options of `Tables`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ragged.data.sources import Roles
from ragged.data.tables.categories import AUTO, CategoryOptions
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


def check_categories(
    categories: dict[str, list[str]] | Sequence[str] | str | None,
    labels: dict[str, list[str]] | str | None,
    roles: Roles,
) -> CategoryOptions:
    """Return what is said of columns of words, the labels as text.

    Raises:
        OptionError: a target, a column without a role or in both; a word that is no choice.
    """
    options = {"categories": categories, "labels": labels}
    words = {"categories": ("none",), "labels": ("none", AUTO)}
    for argument, value in options.items():
        if isinstance(value, str) and value not in words[argument]:
            got, expected = repr(value), f"{' or '.join(words[argument])}, or columns"
            raise OptionError.of("Tables", argument, got, expected, "Write {column: [a, b]}.")
        for column in value if value and not isinstance(value, str) else ():
            if column not in {*roles.known, *roles.past, *roles.static}:
                got, expected = f"of '{column}'", "a known, past or static column"
                raise OptionError.of("Tables", argument, got, expected, "Leave it out.")
            if argument == "labels" and column in (categories or ()):
                got, expected = f"of '{column}', which is in categories too", "one of the two"
                raise OptionError.of("Tables", argument, got, expected, "Name it once.")
    embedded, one_hot = map(_as_text, options.values())
    return CategoryOptions(embedded, one_hot)


def _as_text(columns: Any) -> Any:
    """Return labels as text, and none as no column."""
    if isinstance(columns, Mapping):
        return {column: [str(label) for label in labels] for column, labels in columns.items()}
    return {} if columns == "none" else columns


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
