"""The arguments of a `Forecaster` as the configuration of a run, and back."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ragged import models
from ragged.data import EncoderDecoderDataModule, Tables, Windows
from ragged.data.module import DEFAULT_MIN_STEPS
from ragged.errors import ConfigError, OptionError
from ragged.models import Model
from ragged.training import TrainerConfig, optimizers

MODULE = "ragged.data.EncoderDecoderDataModule"
CONTEXTS = 4  # horizons of a context that is left open
# What follows from the data, or from another argument.
LINKED = (
    *("past_features", "future_features", "static_features", "output_size"),
    *("context_length", "reference_length", "seed"),
)


def to_config(arguments: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """Return the configuration of a run, plain values as in its YAML file.

    Args:
        arguments: those of a `Forecaster`.
        backend: its name.

    Raises:
        OptionError: a context without a horizon.
    """
    given = {name: _plain(value) for name, value in arguments.items() if value is not None}
    model = given.pop("model")
    model = dict(model) if isinstance(model, Mapping) else {"class_path": model}
    source = {name: given.pop(name) for name in _ROLES if name in given}
    for name in ("target", "known", "past", "static"):
        if isinstance(source.get(name), str):
            source[name] = [source[name]]
    data: dict[str, Any] = {"test": given.pop("test")}
    windows: dict[str, Any] = {
        name: given.pop(name) for name in ("context", "horizon") if name in given
    }
    if "context" in windows and "horizon" not in windows:
        got, expected = "given without a horizon", "both, or none of them"
        raise OptionError.of("Forecaster", "context", got, expected, "Give horizon too.")
    if windows:
        windows = {"context": default_context(windows["horizon"]), **windows}
    seed = given.pop("seed")
    given.pop("progress", None)
    given.pop("backend", None)
    trainer: dict[str, Any] = {}
    optimizer: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {
        "source": source, "windows": windows, "data": data, "trainer": trainer,
        "optimizer": optimizer, "model": dict(model.get("init_args", {})),
    }  # fmt: skip
    for name, value in given.items():
        sections[place(name)][name] = value
    if sections["model"]:
        model["init_args"] = sections["model"]
    if optimizer:
        chosen = trainer.get("optimizer", _path(type(TrainerConfig().optimizer)))
        chosen = dict(chosen) if isinstance(chosen, Mapping) else {"class_path": chosen}
        chosen["init_args"] = {**chosen.get("init_args", {}), **optimizer}
        trainer["optimizer"] = chosen
    data["source"] = {"class_path": _path(Tables), "init_args": {"path": "", **source}}
    data |= {"windows": windows} if windows else {}
    config = {"model": model, "data": {"class_path": MODULE, "init_args": data}}
    config |= {"trainer": trainer} if trainer else {}
    return {**config, "backend": backend, "seed": seed}


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
    arguments |= _changed(data.get("windows") or {}, Windows)
    arguments |= _changed({k: v for k, v in data.items() if k not in _PARTS}, _DATA)
    arguments |= _changed(trainer, TrainerConfig)
    arguments |= _changed(model["init_args"], _model_class(short))
    arguments = {name: value for name, value in arguments.items() if name not in LINKED}
    chosen = {name: config[name] for name in ("seed", "backend")}
    return {**arguments, **chosen, "test": data["test"]}


def default_context(horizon: int) -> int:
    """Return the steps of a context where only a horizon is given."""
    return max(DEFAULT_MIN_STEPS, CONTEXTS * horizon)


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
_PARTS = ("source", "windows", "test")
_DATA = EncoderDecoderDataModule
_OPTIMIZERS = (optimizers.AdamW, optimizers.Adam, optimizers.SGD)


def _places() -> dict[str, str]:
    parts: dict[str, list[Any]] = {
        "model": [value for value in vars(models).values() if _is_model(value)],
        "optimizer": list(_OPTIMIZERS),
        "windows": [Windows],
        "trainer": [TrainerConfig],
        "data": [_DATA],
        "source": [Tables],
    }
    elsewhere = {*LINKED, *_ROLES, *_PARTS, "path"}
    return {
        name: part
        for part, classes in parts.items()
        for kind in classes
        for name in inspect.signature(kind).parameters
        if name not in elsewhere
    }


def _is_model(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Model) and value is not Model


def _model_class(name: str) -> Any:
    return getattr(models, name, None) or Model


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
    public = getattr(models, kind.__name__, None) is kind
    return f"ragged.models.{kind.__name__}" if public else f"{kind.__module__}.{kind.__name__}"
