"""The arguments of a `Forecaster` as the configuration of a run, and back."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ragged.data import EncoderDecoderDataModule, Tables, Windows
from ragged.errors import ConfigError, OptionError
from ragged.models import MODELS, Model
from ragged.training import TrainerConfig, optimizers

MODULE = "ragged.data.EncoderDecoderDataModule"
CONTEXTS, SHORTEST = 3, 16  # horizons of a context that is left open, and its steps at least
# What follows from the data, or from another argument.
LINKED = (
    *("past_features", "future_features", "target_features", "static_features", "season"),
    *("cardinalities", "static_cardinalities"),
    *("output_size", "context_length", "reference_length", "seed"),
)


def check_columns(arguments: Mapping[str, Any]) -> None:
    """Refuse columns whose names are no text, as the numbers that pandas gives unnamed ones.

    Raises:
        OptionError: such a column.
    """
    for argument in ("target", "group", "time", "known", "past", "static"):
        value = arguments[argument]
        columns = [value] if not isinstance(value, Iterable) or isinstance(value, str) else value
        for column in columns:
            if column is not None and not isinstance(column, str):
                expected, remedy = "the name of a column", "Rename it: frame.rename(columns=str)."
                raise OptionError.of("Forecaster", argument, repr(column), expected, remedy)


def to_config(arguments: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """Return the configuration of a run, plain values as in its YAML file.

    Args:
        arguments: those of a `Forecaster`.
        backend: its name.

    Raises:
        OptionError: a context without a horizon, or windows beside it.
    """
    given = {
        name: _plain(value)
        for name, value in arguments.items()
        if value is not None or _takes_none(name)
    }
    parts: dict[str, dict[str, Any]] = {
        "source": _take(given, *_ROLES),
        "windows": _windows(_take(given, "context", "horizon"), given),
        "data": _take(given, "test"),
        "chosen": _take(given, "seed"),
        **{name: {} for name in ("trainer", "optimizer", "model")},
    }
    model = given.pop("model")
    model = dict(model) if isinstance(model, Mapping) else {"class_path": model}
    for name in (name for name in given if name not in ("progress", "backend")):
        parts[place(name)][name] = given[name]
    source, data, trainer = parts["source"], parts["data"], parts["trainer"]
    for name in ("target", "known", "past", "static"):
        if isinstance(source.get(name), str):
            source[name] = [source[name]]
    data["source"] = {"class_path": _path(Tables), "init_args": {"path": "", **source}}
    data |= {"windows": parts["windows"]} if parts["windows"] else {}
    if parts["optimizer"]:
        chosen = trainer.get("optimizer", _path(type(TrainerConfig().optimizer)))
        trainer["optimizer"] = _with_arguments(chosen, parts["optimizer"])
    config = {
        "model": _with_arguments(model, parts["model"]),
        "data": {"class_path": MODULE, "init_args": data},
        "backend": backend,
        **parts["chosen"],
    }
    return {**config, "trainer": trainer} if trainer else config


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `to_config` for the configuration of a run; what is as by default is left out.

    Raises:
        ConfigError: a run of another source than `Tables`.
    """
    data = config["data"]["init_args"]
    source, model, trainer = data["source"], config["model"], config["trainer"]
    if source["class_path"].rpartition(".")[2] != Tables.__name__:
        got, remedy = source["class_path"], "Use `ragged predict` for runs of other sources."
        raise ConfigError.of("Forecaster.load:", "data.source", got, "Tables", remedy)
    short = model["class_path"].removeprefix("ragged.models.")
    arguments = {"model": short, **_changed(source["init_args"], Tables)}
    arguments.pop("path", None)
    for name in ("target", "group"):  # one of them is written alone
        if isinstance(arguments.get(name), list) and len(arguments[name]) == 1:
            (arguments[name],) = arguments[name]
    module = {name: value for name, value in data.items() if name not in _PARTS}
    if isinstance(module.get("windows"), Mapping):
        arguments |= _changed(module.pop("windows"), Windows)
    arguments |= _changed(module, _DATA)
    arguments |= _changed(trainer, TrainerConfig)
    arguments |= _changed(model["init_args"], MODELS.get(short, Model))
    arguments = {name: value for name, value in arguments.items() if name not in LINKED}
    chosen = {name: config[name] for name in ("seed", "backend")}
    return {**arguments, **chosen, "test": data["test"]}


def _take(given: dict[str, Any], *names: str) -> dict[str, Any]:
    """Take some of the arguments out."""
    return {name: given.pop(name) for name in names if name in given}


def _windows(windows: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the windows of a horizon, with a context where that is left open."""
    if "context" in windows and "horizon" not in windows:
        got, expected = "given without a horizon", "both, or none of them"
        raise OptionError.of("Forecaster", "context", got, expected, "Give horizon too.")
    if windows and given.get("windows") is not None:
        got, expected = "given with a horizon", "one of the two"
        raise OptionError.of("Forecaster", "windows", got, expected, "Leave windows out.")
    return {"context": default_context(windows["horizon"]), **windows} if windows else {}


def _with_arguments(section: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a class of a configuration, or its path, with further arguments."""
    chosen = dict(section) if isinstance(section, Mapping) else {"class_path": section}
    both = {**chosen.get("init_args", {}), **arguments}
    return {**chosen, "init_args": both} if both else chosen


def default_context(horizon: int) -> int:
    """Return the steps of a context where only a horizon is given."""
    return max(SHORTEST, CONTEXTS * horizon)


def place(name: str) -> str:
    """Return the part of a configuration that takes an argument.

    Raises:
        OptionError: none does; the error gives the nearest name.

    >>> place("max_epochs"), place("hidden_size"), place("missing"), place("learning_rate")
    ('trainer', 'model', 'source', 'optimizer')
    """
    places = _places()
    if name not in places:
        near = difflib.get_close_matches(name, [*places, *_ROLES, "horizon", "context"], n=1)
        remedy = f"Write {near[0]}." if near else "Leave it out."
        expected = "an argument of a model, Tables, the data module, the trainer or an optimizer"
        raise OptionError.of("Forecaster", name, "given", expected, remedy)
    return places[name]


_ROLES = ("target", "known", "past", "static", "group", "time")
_NAMED = (*_ROLES, "model", "horizon", "context", "backend", "seed", "test", "progress")
_PARTS = ("source", "test")
_DATA = EncoderDecoderDataModule
_OPTIMIZERS = (optimizers.AdamW, optimizers.Adam, optimizers.SGD)


_CLASSES: dict[str, tuple[Any, ...]] = {
    "model": tuple(MODELS.values()),
    "optimizer": _OPTIMIZERS,
    "windows": (Windows,),
    "trainer": (TrainerConfig,),
    "data": (_DATA,),
    "source": (Tables,),
}


def _takes_none(name: str) -> bool:
    """Whether None is a value of an option, as of the largest norm of gradients."""
    if name in _NAMED:
        return False
    signatures = (inspect.signature(kind) for kind in _CLASSES[place(name)])
    kinds = [str(s.parameters[name].annotation) for s in signatures if name in s.parameters]
    return any("None" in kind for kind in kinds)


def _places() -> dict[str, str]:
    elsewhere = {*LINKED, *_ROLES, *_PARTS, "path"}
    return {
        name: part
        for part, classes in _CLASSES.items()
        for kind in classes
        for name in inspect.signature(kind).parameters
        if name not in elsewhere
    }


def _changed(values: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Return the values that are not the defaults of a class."""
    parameters = inspect.signature(kind).parameters
    defaults = {name: _default(parameter) for name, parameter in parameters.items()}
    return {name: v for name, v in values.items() if v != _plain(defaults.get(name, v is None))}


def _default(parameter: inspect.Parameter) -> Any:
    """Return the default of an argument; of the trainer's objects the one that it makes."""
    made = {"optimizer", "lr_schedule"}
    return getattr(TrainerConfig(), parameter.name) if parameter.name in made else parameter.default


def _plain(value: Any) -> Any:
    """Return a value as a YAML file writes it: classes and objects by their path."""
    if isinstance(value, type):
        return _path(value)
    if is_dataclass(value):
        arguments = {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"class_path": _path(type(value)), "init_args": arguments}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _path(kind: type) -> str:
    public = MODELS.get(kind.__name__) is kind
    return f"ragged.models.{kind.__name__}" if public else f"{kind.__module__}.{kind.__name__}"
