"""The command line: `ragged train`, `evaluate`, `report`, `compare`, `predict` and others."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ragged.configuration import (
    check_value,
    load_config,
    nearest,
    restrict_imports,
    take_allowed_imports,
)
from ragged.errors import BackendError, ConfigError, DivergenceError, ExportError, RaggedError

CONFIGS = Path(__file__).parent / "configs"
FAILURES = (BackendError, DivergenceError, ExportError)  # anything else refused is bad input
WRONG_PATHS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 failed, 2 bad usage or input, 130 stopped by the user."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can still be caught
    except KeyboardInterrupt as stopped:
        run = str(stopped) or "RUN"
        print(f"ragged: stopped; `ragged train --resume {run}` goes on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()
        return 1
    except RaggedError as error:
        return _fail(str(error), 1 if isinstance(error, FAILURES) else 2)
    except OSError as error:
        place = "" if error.filename is None else f"{str(error.filename)!r}: "
        return _fail(f"{place}{error.strerror or error}", 2 if type(error) in WRONG_PATHS else 1)
    except MemoryError as error:
        return _fail(f"not enough memory; take smaller sizes or batches. {error}".strip(), 1)


def _fail(message: str, status: int) -> int:
    print(f"ragged: error: {message}", file=sys.stderr)
    return status


def _discard_output() -> None:
    """Let the interpreter's own flush at its end go nowhere: whoever read has closed the pipe."""
    with suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    from ragged.training import commands

    arguments, allowed = take_allowed_imports(arguments)
    restrict_imports(allowed)
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
    parser = _parser("Exact sequence models on rows of different lengths.", "ragged train")
    verbs = parser.add_subcommands(required=False)
    verbs.add_subcommand("train", train_parser(), help="train a model from one YAML file")

    evaluate = _run_parser(
        "Score a run on its test events, beside the baselines.",
        "ragged evaluate runs/storms/2026-01-31_12-00-00 --backend jax",
    )
    verbs.add_subcommand("evaluate", evaluate, help="score a run")

    report = _run_parser(
        "Write everything there is to see of a run into its report.html.",
        "ragged report runs/storms/2026-01-31_12-00-00",
    )
    verbs.add_subcommand("report", report, help="write a page about a run")

    compare = _parser(
        "Print one table of several runs, and draw their losses and scores.",
        "ragged compare runs/storms/* --output compare.png",
    )
    compare.add_argument("folders", type=Path, nargs="*", metavar="RUN", help="folders of runs")
    compare.add_argument("--output", type=Path, default=Path("compare.png"), help="PNG to write")
    verbs.add_subcommand("compare", compare, help="compare runs")

    export = _parser(
        "Write a run's best model as a program that runs without ragged, and how to feed it.",
        "ragged export runs/storms/2026-01-31_12-00-00 --format onnx --output storms_onnx",
    )
    export.add_argument("run", type=Path, help="folder of the run")
    export.add_argument(
        "--format", type=Literal["onnx", "torch", "stablehlo"], required=True, help="of the program"
    )
    export.add_argument(
        "--output", type=Path | None, help="folder to write; default: RUN/exports/FORMAT"
    )
    verbs.add_subcommand("export", export, help="export a run's model")

    predict = _run_parser(
        "Forecast the events of a CSV file with a run's best model, or an exported one.",
        "ragged predict RUN --input storms.csv --output forecast.csv",
    )
    predict.add_argument("--input", type=Path, required=True, help="CSV in the source's format")
    predict.add_argument("--output", type=Path, required=True, help="CSV to write")
    verbs.add_subcommand("predict", predict, help="forecast a CSV file")

    conformance = _parser(
        "Prove that backends give the oracle's numbers, and each other's.",
        "ragged conformance --backend jax --dtype float64 --report report",
    )
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
    info = _parser("Print versions, backends and devices.", "ragged info")
    verbs.add_subcommand("info", info, help="versions, backends, devices")
    return parser


def parse(parser: Any, arguments: Sequence[str] | dict[str, Any]) -> Any:
    """Parse a command line, or a whole configuration as a dict.

    Raises:
        ConfigError: an unknown name or a value of the wrong kind; it names the nearest name.
    """
    from jsonargparse import ArgumentError

    try:
        if isinstance(arguments, dict):
            config = parser.parse_object(arguments)
        else:
            config = parser.parse_args(list(arguments))
    except (ArgumentError, argparse.ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(_explain(str(error))) from error
    except RecursionError as error:
        raise ConfigError("config: a value is nested too deeply. Write it flat.") from error
    for name, value in config.items():
        check_value(name.removeprefix("train."), value)
    return config


def _parser(description: str, example: str) -> Any:
    from jsonargparse import ArgumentParser

    return ArgumentParser(
        prog="ragged",
        exit_on_error=False,
        allow_abbrev=False,
        description=description,
        epilog=f"example: {example}",
    )


def _run_parser(description: str, example: str) -> Any:
    """Begin the parser of a command that reads a run."""
    parser = _parser(description, example)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--backend", type=str | None, help="read the run with this backend")
    return parser


def parts_parser(parser: Any = None) -> Any:
    """Add what a run needs beside its model to a parser: data and trainer."""
    from jsonargparse import ArgumentParser

    from ragged.data import EncoderDecoderDataModule
    from ragged.training import Trainer

    parser = parser or ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(EncoderDecoderDataModule, "data", required=False)
    parser.set_defaults({"data": "ragged.data.EncoderDecoderDataModule"})
    parser.add_class_arguments(Trainer, "trainer")
    return parser


def train_parser() -> Any:
    """The parser of a configuration, from files and the command line."""
    from jsonargparse import ActionConfigFile

    from ragged.models import Model

    parser = _parser(
        "Train a model. Any value of the YAML file can be given here too. The fields of a class: "
        "--data.help, --model.help XTFT, --data.source.help Tables, --trainer.optimizer.help SGD.",
        "ragged train --config storms --backend jax --model.init_args.hidden_size 32",
    )
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
    for name in ("past_features", "future_features", "static_features"):
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
            f"Check the path{nearest(value, _packaged())}."
        )
    load_config(Path(value))  # refuses what YAML's safe loader refuses, with the file's name
    return value


def _known_names() -> set[str]:
    """Every part of a dotted name that a configuration can hold."""
    from ragged import data, learning_rate, models, optimizer

    dotted = {action.dest for action in train_parser()._actions}
    modules = (data, learning_rate, models, optimizer)
    classes = {
        n: v
        for m in modules
        for n, v in vars(m).items()
        if isinstance(v, type) and v.__module__.startswith(m.__name__)
    }
    arguments = {name for value in classes.values() for name in inspect.signature(value).parameters}
    parts = {part for name in dotted for part in name.split(".")}
    return {*parts, *classes, *arguments, "ragged", "models", "class_path", "init_args"}


def _explain(message: str) -> str:
    """Add the remedy to what the parser said."""
    if "not allowed" in message:
        remedy = "Only classes of ragged can be named; --allow-import MODULE admits another module."
        return f"config: {message.strip()}\n{remedy}"
    if re.search("are required|expected one argument|invalid choice", message):
        return f"config: {message.strip()}\nSee `--help`, which shows an example of each command."
    named = re.findall(r"(?:[Oo]ption|arguments:|string:|attribute) ['\"]?-*([\w.]+)", message)
    known = _known_names()
    unknown = [part for name in named for part in name.split(".") if part not in known]
    hint = nearest(unknown[0], known) if unknown else ""
    return f"config: {message.strip()}\nCompare with `ragged train --print_config`{hint}."
