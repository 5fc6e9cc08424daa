"""Checks of configurations: plain values, no other files, and only allowed imports."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ragged.backend import ENTRY_POINT_GROUP
from ragged.errors import ConfigError
from ragged.runs import aliases

SECTIONS = (
    *("model", "data", "data.init_args.source"),
    *("trainer", "trainer.optimizer", "trainer.lr_schedule"),
)
NEEDED = ("backend", "name", "runs", "model", "data")
LARGEST_INTEGER = 2**31 - 1  # of the frameworks' seeds and counters


def load_config(path: Path) -> dict[str, Any]:
    """Read an untrusted YAML file into plain values.

    Raises:
        ConfigError: a file that cannot be read, is beyond the bounds of `safe_yaml`, holds no
            mapping, or refers to another file, which would be read unchecked.
    """
    import yaml

    from ragged.io import safe_yaml

    try:
        config = safe_yaml.read(path)
    except OSError as error:
        raise ConfigError(
            f"config: {str(path)!r} cannot be read ({error.strerror}); expected a YAML file. "
            "Check the path; a run's own is RUN/config.yaml."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config: {str(path)!r} is no plain YAML: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(
            f"config: {str(path)!r} holds no mapping; see `ragged train --print_config`."
        )
    check_sections(path, config)
    return aliases.rename(config)


def check_sections(path: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that refers to another file, has an empty section or such numbers.

    Raises:
        ConfigError: such a section, and the file at `path`; or a number that is not finite.
    """
    for name, value in config.items():
        _check_section(path, str(name), value)


def _check_section(path: Path, name: str, value: Any) -> None:
    """Refuse a section that the parser would read from a file, or ignore."""
    is_file = isinstance(value, str) and os.path.exists(value)
    if name == "config" or (name in SECTIONS and is_file):
        got, expected = f"{value!r}, another file", "the section itself"
    elif value == {} and not name.endswith("init_args"):
        got, expected = "empty", "values"
    elif name in SECTIONS and isinstance(value, (list, int, float)):
        got, expected = repr(value), "a mapping"
    else:
        check_value(name, value)
        for key, nested in value.items() if isinstance(value, dict) else ():
            _check_section(path, f"{name}.{key}", nested)
        for nested in value if isinstance(value, list) else ():
            _check_section(path, name, nested)
        return
    remedy = "Write it out, all in one file, or leave it out."
    raise ConfigError.of("config:", name, got, expected, remedy, file=path)


def check_class_paths(path: Path, config: Any) -> None:
    """Refuse a configuration that names a class of a package that is not allowed.

    Raises:
        ConfigError: such a class; it names the file at `path`.
    """
    if isinstance(config, dict):
        name = config.get("class_path")
        if isinstance(name, str) and "." in name and not _is_inside(name, {"ragged", *_allowed}):
            expected, remedy = "a class of ragged", "Open the run with `ragged --allow-import`."
            raise ConfigError.of("load:", "class_path", repr(name), expected, remedy, file=path)
    nested = config.values() if isinstance(config, dict) else config
    for value in nested if isinstance(config, dict | list) else ():
        check_class_paths(path, value)


def check_value(name: str, value: Any) -> None:
    """Refuse values of the right type that are missing, not finite or too large."""
    if value is None and name in NEEDED:
        remedy = "Write it out; `ragged train --print_config` shows a whole configuration."
        raise ConfigError.of("config:", name, None, "given", remedy)
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, float) and not math.isfinite(item):
            raise ConfigError.of("config:", name, item, "a finite number", "Change it.")
        if isinstance(item, int) and abs(item) > LARGEST_INTEGER:
            got = f"an integer of {item.bit_length()} bits"
            raise ConfigError.of("config:", name, got, "at most 31", "Lower it.")
    if name == "backend":
        _check_backend(value)


def _check_backend(name: str) -> None:
    """Refuse a backend that is neither registered nor allowed: choosing one imports it."""
    known = sorted(entry_points(group=ENTRY_POINT_GROUP).names)
    if name not in known and not _is_inside(name, _allowed):
        remedy = f"--allow-import MODULE admits another module{nearest(name, known)}."
        raise ConfigError.of("config:", "backend", repr(name), f"one of {known}", remedy)


def _is_inside(name: str, modules: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def take_allowed_imports(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split off `--allow-import MODULE`, which is needed before parsing."""
    others, allowed = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--allow-import":
            allowed.append(next(remaining, ""))
        elif argument.startswith("--allow-import="):
            allowed.append(argument.partition("=")[2])
        else:
            others.append(argument)
    for name in allowed:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(
                f"`--allow-import` is {name!r}; expected the dotted name of a module. Name one."
            )
    return others, allowed


_allowed: frozenset[str] = frozenset()  # by this call
_admitted: set[str] = set()  # by earlier calls of this process


def restrict_imports(allowed: list[str]) -> None:
    """Restrict the imports of a YAML file to `ragged` and the allowed modules."""
    from jsonargparse import set_parsing_settings

    global _allowed
    _allowed = frozenset(allowed)
    # Settings of the parser accumulate: modules allowed before have to be denied by name.
    denied = sorted(_admitted - _allowed)
    _admitted.update(allowed)
    try:
        set_parsing_settings(
            import_path_denylist=["*", *denied], import_path_allowlist=["ragged", *allowed]
        )
    except ValueError as error:
        raise ConfigError(f"`--allow-import` names what cannot be allowed: {error}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence with the known name nearest to a wrong one.

    >>> nearest("storm", ["magnet", "storms"])
    "; the nearest name is 'storms'"
    """
    matches = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; the nearest name is {matches[0]!r}" if matches else ""
