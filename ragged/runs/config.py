"""What a configuration may say: plain values, no other files, and only allowed imports."""

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
LARGEST_INTEGER = 2**31 - 1  # of the frameworks' seeds and counters


def load_config(path: Path) -> dict[str, Any]:
    """Read a YAML file into plain values, whoever wrote it.

    Raises:
        ConfigError: a file that cannot be read, is beyond the bounds of `safe_yaml`, holds no
            mapping, or refers to another file, which would be read without these checks.
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
    """Refuse a configuration that refers to another file, or says nothing where it should.

    Raises:
        ConfigError: such a section; it names the file at `path`.
    """
    for name, value in config.items():
        _check_section(path, str(name), value)


def _check_section(path: Path, name: str, value: Any) -> None:
    """Refuse what the parser would read from elsewhere, or pass over without a word."""
    is_file = isinstance(value, str) and os.path.exists(value)
    if name == "config" or (name in SECTIONS and is_file):
        got, expected = f"{value!r}, another file", "the section itself"
    elif value == {} and not name.endswith("init_args"):
        got, expected = "empty", "values"
    elif name in SECTIONS and isinstance(value, (list, int, float)):
        got, expected = repr(value), "a mapping"
    else:
        for key, part in value.items() if isinstance(value, dict) else ():
            _check_section(path, f"{name}.{key}", part)
        return
    remedy = "Write it out, all in one file, or leave it out."
    raise ConfigError.of("config:", name, got, expected, remedy, file=path)


def check_value(name: str, value: Any) -> None:
    """Refuse what is of the right type and yet no value that anything can be set to."""
    for each in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(each, float) and not math.isfinite(each):
            raise ConfigError.of("config:", name, each, "a finite number", "Change it.")
        if isinstance(each, int) and abs(each) > LARGEST_INTEGER:
            got = f"an integer of {each.bit_length()} bits"
            raise ConfigError.of("config:", name, got, "at most 31", "Lower it.")
    if name == "backend":
        _check_backend(value)


def _check_backend(name: str) -> None:
    """Refuse a backend that is neither registered nor allowed: choosing one imports it."""
    known = sorted(entry_points(group=ENTRY_POINT_GROUP).names)
    if name not in known and not any(f"{name}.".startswith(f"{each}.") for each in _allowed):
        remedy = f"--allow-import MODULE admits another module{nearest(name, known)}."
        raise ConfigError.of("config:", "backend", repr(name), f"one of {known}", remedy)


def take_allowed_imports(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split off `--allow-import MODULE`, which has to be known before anything is parsed."""
    rest, allowed = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--allow-import":
            allowed.append(next(remaining, ""))
        elif argument.startswith("--allow-import="):
            allowed.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    for name in allowed:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(
                f"`--allow-import` is {name!r}; expected the dotted name of a module. Name one."
            )
    return rest, allowed


_allowed: frozenset[str] = frozenset()  # what this call lets in
_admitted: set[str] = set()  # what earlier calls of this process let in


def restrict_imports(allowed: list[str]) -> None:
    """Let a YAML file import from `ragged` and the allowed modules, and nothing else."""
    from jsonargparse import set_parsing_settings

    global _allowed
    _allowed = frozenset(allowed)
    # The parser's settings only ever grow: what was admitted before has to be denied by name.
    denied = sorted(_admitted - _allowed)
    _admitted.update(allowed)
    try:
        set_parsing_settings(
            import_path_denylist=["*", *denied], import_path_allowlist=["ragged", *allowed]
        )
    except ValueError as error:
        raise ConfigError(f"`--allow-import` names what cannot be allowed: {error}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Name the known name that is most like a wrong one, to end a sentence with.

    >>> nearest("storm", ["magnet", "storms"])
    "; the nearest name is 'storms'"
    """
    found = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; the nearest name is {found[0]!r}" if found else ""
