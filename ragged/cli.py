"""The command line: `ragged train`, `evaluate`, `report`, `compare`, `predict` and others."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragged.errors import BackendError, ConfigError, DivergenceError, RaggedError

CONFIGS = Path(__file__).parent / "configs"
EPILOG = "example: ragged train --config storms --backend jax --model.init_args.hidden_size 32"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 failed, 2 bad usage or input, 130 stopped by the user."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("ragged: stopped; `ragged train --resume RUN` goes on.", file=sys.stderr)
        return 130
    except RaggedError as error:
        print(f"ragged: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, (DivergenceError, BackendError)) else 2


def _run(arguments: list[str]) -> int:
    from ragged.training import commands

    arguments, allowed = _take_allowed_imports(arguments)
    _restrict_imports(allowed)
    parser = create_parser()
    config = parse(parser, _with_config(arguments))
    verb = config.subcommand
    if verb is None:
        parser.print_help()
    elif verb == "train":
        train = config.train
        if train.resume:
            commands.resume(Path(train.resume), train_parser())
        else:
            commands.train(train_parser(), train)
    elif verb == "info":
        commands.info()
    elif verb == "conformance":
        return _prove(**vars(config.conformance))
    else:
        options = config[verb]
        getattr(commands, verb)(train_parser(), **vars(options))
    return 0


def _prove(
    backend: str | None, dtype: str | None, device: str, report: Path | None, exhaustive: bool
) -> int:
    """Run the conformance suite; 0 if all is green, else 1."""
    from ragged_conformance import command

    dtypes = command.DTYPES if dtype is None else (dtype,)
    return command.run(backend, dtypes, device, report, exhaustive)


def create_parser() -> Any:
    """Build the parser of all commands."""
    from jsonargparse import ArgumentParser

    parser = _parser("Exact sequence models on rows of different lengths.")
    verbs = parser.add_subcommands(required=False)
    verbs.add_subcommand("train", train_parser(), help="train a model from one YAML file")

    evaluate = _parser("Score a run on its test events, beside the baselines.")
    evaluate.add_argument("run", type=Path, help="folder of the run")
    evaluate.add_argument("--backend", type=str | None, help="read the run with this backend")
    verbs.add_subcommand("evaluate", evaluate, help="score a run")

    report = _parser("Write everything there is to see of a run into its report.html.")
    report.add_argument("run", type=Path, help="folder of the run")
    report.add_argument("--backend", type=str | None, help="read the run with this backend")
    verbs.add_subcommand("report", report, help="write a page about a run")

    compare = _parser("Print one table of several runs, and draw their losses and scores.")
    compare.add_argument("folders", type=Path, nargs="*", metavar="RUN", help="folders of runs")
    compare.add_argument("--output", type=Path, default=Path("compare.png"), help="PNG to write")
    verbs.add_subcommand("compare", compare, help="compare runs")

    predict = _parser("Forecast the events of a CSV file with a run's best model.")
    predict.add_argument("run", type=Path, help="folder of the run")
    predict.add_argument("--input", type=Path, required=True, help="CSV in the source's format")
    predict.add_argument("--output", type=Path, required=True, help="CSV to write")
    predict.add_argument("--backend", type=str | None, help="read the run with this backend")
    verbs.add_subcommand("predict", predict, help="forecast a CSV file")

    conformance = _parser("Prove that backends give the oracle's numbers, and each other's.")
    conformance.add_argument(
        "--backend", type=str | None, help="name or import path; default: all installed"
    )
    conformance.add_argument(
        "--dtype", type=str | None, help="float64, float32, bfloat16 or float16; default: first 3"
    )
    conformance.add_argument("--device", type=str, default="cpu", help="cpu or cuda")
    conformance.add_argument("--report", type=Path | None, help="folder for report.html and .json")
    conformance.add_argument(
        "--exhaustive", action="store_true", help="many more random cases; up to an hour"
    )
    verbs.add_subcommand("conformance", conformance, help="prove a backend")
    verbs.add_subcommand(
        "info", ArgumentParser(exit_on_error=False), help="versions, backends, devices"
    )
    return parser


def parse(parser: Any, arguments: Sequence[str] | dict[str, Any]) -> Any:
    """Parse a command line, or a whole configuration as a dict.

    Raises:
        ConfigError: an unknown name or a value of the wrong kind; it names the nearest name.
    """
    from jsonargparse import ArgumentError

    try:
        if isinstance(arguments, dict):
            return parser.parse_object(arguments)
        return parser.parse_args(list(arguments))
    except (ArgumentError, argparse.ArgumentError) as error:
        raise ConfigError(_explain(str(error))) from error


def load_config(path: Path) -> dict[str, Any]:
    """Read a YAML file into plain values; YAML tags that would make objects are refused."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
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
    return config


def _parser(description: str) -> Any:
    from jsonargparse import ArgumentParser

    return ArgumentParser(
        exit_on_error=False, allow_abbrev=False, description=description, epilog=EPILOG
    )


def parts_parser(parser: Any = None) -> Any:
    """Add what a run needs beside its model to a parser: data and trainer."""
    from jsonargparse import ArgumentParser

    from ragged.data import EncoderDecoderDataModule
    from ragged.training import Trainer

    parser = parser or ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(EncoderDecoderDataModule, "data")
    parser.add_class_arguments(Trainer, "trainer")
    return parser


def train_parser() -> Any:
    """The parser of a configuration, from files and the command line."""
    from jsonargparse import ActionConfigFile

    from ragged.models import Model

    parser = _parser("Train a model. Any value of the YAML file can be given here too.")
    parser.add_argument(
        "--config", action=ActionConfigFile, help=f"YAML file, or one of {_packaged()}"
    )
    parser.add_argument("--resume", type=str | None, help="folder of a run to go on with")
    parser.add_argument("--name", type=str, default="run", help="the run's name")
    parser.add_argument("--runs", type=str, default="runs", help="the folder of all runs")
    parser.add_argument("--backend", type=str, default="torch", help="torch, jax or a module")
    parser.add_argument("--seed", type=int, default=0, help="seed of values, order and dropout")
    parser.add_subclass_arguments(Model, "model", required=False)
    parts_parser(parser)
    for name in ("past_features", "future_features"):
        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
    for name in ("context_length", "reference_length"):  # of the models that have one
        parser.link_arguments(
            "data.longest_context", f"model.init_args.{name}", apply_on="instantiate"
        )
    parser.link_arguments("seed", "model.init_args.seed")
    return parser


def _packaged() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def _with_config(arguments: list[str]) -> list[str]:
    """Turn names of packaged configurations into paths; training without one takes `storms`."""
    if not arguments or arguments[0] != "train":
        return arguments
    result: list[str] = []
    for argument in arguments:
        key, is_pair, value = argument.partition("=")
        if is_pair and key == "--config":
            result += ["--config", _config_path(value)]
        else:
            follows = bool(result) and result[-1] == "--config"
            result.append(_config_path(argument) if follows else argument)
    named = {"--config", "--help", "-h"}
    if not named & {argument.partition("=")[0] for argument in result}:
        result[1:1] = ["--config", _config_path("storms")]
    return result


def _config_path(value: str) -> str:
    if value in _packaged() and not Path(value).exists():
        return str(CONFIGS / f"{value}.yaml")
    if not Path(value).is_file():
        raise ConfigError(
            f"train: `--config` is {value!r}; expected a YAML file or one of {_packaged()}. "
            f"Check the path{_nearest(value, _packaged())}."
        )
    load_config(Path(value))  # refuses what YAML's safe loader refuses, with the file's name
    return value


def _take_allowed_imports(arguments: list[str]) -> tuple[list[str], list[str]]:
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
    return rest, [name for name in allowed if name]


_admitted: set[str] = set()  # what earlier calls of this process let in


def _restrict_imports(allowed: list[str]) -> None:
    """Let a YAML file import from `ragged` and the allowed modules, and nothing else."""
    from jsonargparse import set_parsing_settings

    # The parser's settings only ever grow: what was admitted before has to be denied by name.
    denied = sorted(_admitted - set(allowed))
    _admitted.update(allowed)
    set_parsing_settings(
        import_path_denylist=["*", *denied], import_path_allowlist=["ragged", *allowed]
    )


def _known_names() -> set[str]:
    """Every part of a dotted name that a configuration can hold."""
    from ragged import data, models

    dotted = {action.dest for action in train_parser()._actions}
    classes = {n: v for m in (data, models) for n, v in vars(m).items() if isinstance(v, type)}
    arguments = {name for value in classes.values() for name in inspect.signature(value).parameters}
    parts = {part for name in dotted for part in name.split(".")}
    return {*parts, *classes, *arguments, "ragged", "models", "class_path", "init_args"}


def _explain(message: str) -> str:
    """Add the remedy to what the parser said."""
    if "not allowed" in message:
        remedy = "Only classes of ragged can be named; --allow-import MODULE admits another module."
        return f"config: {message.strip()}\n{remedy}"
    named = re.findall(r"(?:[Oo]ption|arguments:|string:|attribute) ['\"]?-*([\w.]+)", message)
    known = _known_names()
    unknown = [part for name in named for part in name.split(".") if part not in known]
    hint = _nearest(unknown[0], known) if unknown else ""
    return f"config: {message.strip()}\nCompare with `ragged train --print_config`{hint}."


def _nearest(name: str, known: Any) -> str:
    found = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; the nearest name is {found[0]!r}" if found else ""
