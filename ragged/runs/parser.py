"""The parser of configurations, built from the signatures of the classes."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ragged.errors import ConfigError, RaggedError
from ragged.runs.config import check_value, nearest

CONFIGS = Path(__file__).parent / "configs"
WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "tuple": "a list",
    "NoneType": "null",
}


def train_parser() -> Any:
    """The parser of a configuration, from files and the command line."""
    from jsonargparse import ActionConfigFile

    from ragged.models import Model

    parser = new_parser(
        "Train a model. Any value of the YAML file can be given here too. The fields of a class: "
        "--data.help, --model.help XTFT, --data.source.help Tables, --trainer.optimizer.help SGD.",
        "ragged train --config storms --backend jax --model.init_args.hidden_size 32",
    )
    parser.add_argument(
        "--config", action=ActionConfigFile, help=f"YAML file, or one of {packaged_configs()}"
    )
    parser.add_argument("--resume", type=str | None, help="folder of a run to go on with")
    parser.add_argument("--name", type=str, default="run", help="the run's name")
    parser.add_argument("--runs", type=str, default="runs", help="the folder of all runs")
    parser.add_argument("--backend", type=str, default="torch", help="torch, jax or a module")
    parser.add_argument("--seed", type=int, default=0, help="seed of values, order and dropout")
    parser.add_subclass_arguments(Model, "model", required=False)
    parts_parser(parser)
    features = ("past_features", "future_features", "target_features", "static_features")
    for name in (*features, "season", "cardinalities", "static_cardinalities"):
        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
    for name in ("context_length", "reference_length"):  # of the models that have one
        parser.link_arguments(
            "data.longest_context", f"model.init_args.{name}", apply_on="instantiate"
        )
    parser.link_arguments("seed", "model.init_args.seed")
    return parser


def parts_parser(parser: Any = None) -> Any:
    """Add the data and the trainer of a run to a parser, a new one by default."""
    from jsonargparse import ArgumentParser

    from ragged.data import EncoderDecoderDataModule
    from ragged.training import TrainerConfig

    parser = parser or ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(EncoderDecoderDataModule, "data", required=False)
    parser.set_defaults({"data": "ragged.data.EncoderDecoderDataModule"})
    parser.add_class_arguments(TrainerConfig, "trainer")
    return parser


def new_parser(description: str, example: str, version: str | None = None) -> Any:
    """Make the parser of a command, with its description and an example of its use."""
    from jsonargparse import ArgumentParser

    return ArgumentParser(
        prog="ragged",
        version=version,
        exit_on_error=False,
        allow_abbrev=False,
        description=description,
        epilog=f"example: {example}",
    )


def packaged_configs() -> list[str]:
    """Name the configurations that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def parse(parser: Any, arguments: Sequence[str] | dict[str, Any]) -> Any:
    """Parse a command line, or a whole configuration as a dict.

    Raises:
        ConfigError: an unknown name or a value of the wrong kind; it names the nearest name.
    """
    from jsonargparse import ArgumentError

    try:
        if isinstance(arguments, dict):
            config = parser.parse_object(deepcopy(arguments))  # lists within are changed
        else:
            config = parser.parse_args(list(arguments))
    except (ArgumentError, argparse.ArgumentError, TypeError, ValueError) as error:
        words = [] if isinstance(arguments, dict) else arguments[:1]
        raise ConfigError(_explain(str(error), *words)) from error
    except RecursionError as error:
        raise ConfigError("config: a value is nested too deeply. Write it flat.") from error
    for name, value in config.items():
        check_value(name.removeprefix("train."), value)
    return config


def build(parser: Any, config: Any, instantiators: Any = None) -> Any:
    """Build the objects of a parsed configuration.

    Args:
        parser: that parsed it.
        config: as `parse` gives it.
        instantiators: functions that build objects of a kind, as jsonargparse takes them.

    Raises:
        RaggedError: what a constructor refuses, as it says it.
        ConfigError: any other value of a wrong kind.
    """
    try:
        return parser.instantiate(config, instantiators=instantiators)
    except (ValueError, TypeError) as error:
        cause: BaseException | None = error
        while cause is not None:  # the parser wraps each error in one about all types it tried
            if isinstance(cause, RaggedError):
                raise cause from None
            cause = cause.__cause__
        raise ConfigError(f"config: {error}") from error


def _explain(message: str, command: str = "train") -> str:
    """Add the remedy to a message of the parser; the first word may be a command or an option."""
    said = f"config: {_reworded(message.strip())}"
    if "not allowed" in message:
        remedy = "Only classes of ragged can be named; --allow-import MODULE admits another module."
        return f"{said}\n{remedy}"
    if re.search("are required|expected one argument|invalid choice", message):
        return f"{said}\nSee `--help`, which shows an example of each command."
    if command.isalpha() and command != "train":
        return f"{said}\nSee `ragged {command} --help`, which shows an example."
    named = re.findall(r"(?:[Oo]ption|arguments:|string:|attribute) ['\"]?-*([\w.]+)", message)
    known = _known_names()
    unknown = [part for name in named for part in name.split(".") if part not in known]
    hint = nearest(unknown[0], known) if unknown else ""
    return f"{said}\nCompare with `ragged train --print_config`{hint}."


def _reworded(message: str) -> str:
    """Say in one line which value is of the wrong kind, where the parser says that and no more."""
    keys = re.findall(r'Parser key "([^"]+)":', message)
    wrong = re.findall(r"Expected an? (.+)\. Got value: (.*)", message)
    union = re.search(r"Subtypes: \[(.*)\]\n(?s:.*)Given value: (.*)", message)
    if union and not wrong and "ragged." not in union[1]:
        wrong = [union.groups()]
    if not keys or len(wrong) != 1:
        return message
    kinds, value = wrong[0]
    names = re.findall(r"<class '\w+'>|typing\.Literal\[.*?\]|\w+\[.*?\]", kinds)
    return f"{'.'.join(keys)} is {value!r}; expected {' or '.join(map(_in_words, names))}."


def _in_words(kind: str) -> str:
    """Name a type as a reader of YAML would.

    >>> _in_words("<class 'int'>"), _in_words("typing.Literal['a', 'b']"), _in_words("list[int]")
    ('an integer', "one of 'a', 'b'", 'list[int]')
    """
    plain = re.fullmatch(r"<class '(\w+)'>", kind)
    choices = re.fullmatch(r"typing\.Literal\[(.*)\]", kind)
    if choices:
        return f"one of {choices[1]}"
    return WORDS.get(plain[1], plain[1]) if plain else kind


def _known_names() -> set[str]:
    """Return every part of the dotted names of a configuration."""
    from ragged import data, models
    from ragged.training import lr_schedules, optimizers

    dotted = {action.dest for action in train_parser()._actions}
    modules = (data, lr_schedules, models, optimizers)
    classes = {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__.startswith(module.__name__)
    }
    arguments = {name for value in classes.values() for name in inspect.signature(value).parameters}
    parts = {part for name in dotted for part in name.split(".")}
    return {*parts, *classes, *arguments, "ragged", "models", "class_path", "init_args"}
