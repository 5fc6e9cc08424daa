"""The command line: `ragged train`, `evaluate`, `report`, `compare`, `predict` and others."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ragged import __version__
from ragged.errors import BackendError, ConfigError, DivergenceError, ExportError, RaggedError
from ragged.runs.aliases import rename_option
from ragged.runs.config import (
    load_config,
    nearest,
    restrict_imports,
    take_allowed_imports,
)
from ragged.runs.parser import CONFIGS, new_parser, packaged_configs, parse, train_parser

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
    except KeyboardInterrupt as interrupt:
        run = str(interrupt) or "RUN"
        print(f"ragged: stopped; `ragged train --resume {run}` goes on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()
        return 1
    except RaggedError as error:
        return _fail(str(error), 1 if isinstance(error, FAILURES) else 2)
    except OSError as error:
        prefix = "" if error.filename is None else f"{str(error.filename)!r}: "
        return _fail(f"{prefix}{error.strerror or error}", 2 if type(error) in WRONG_PATHS else 1)
    except UnicodeEncodeError as error:
        remedy = "set PYTHONIOENCODING=utf-8"
        return _fail(f"the output cannot be written in {error.encoding}; {remedy}", 1)
    except MemoryError as error:
        return _fail(f"not enough memory; take smaller sizes or batches. {error}".strip(), 1)


def _fail(message: str, status: int) -> int:
    print(f"ragged: error: {message}", file=sys.stderr)
    return status


def _discard_output() -> None:
    """Redirect stdout to the null device: flushing a closed pipe at exit would fail again."""
    with suppress(OSError), open(os.devnull, "w") as null_device:
        os.dup2(null_device.fileno(), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    from ragged.cli import commands

    arguments, allowed = take_allowed_imports(arguments)
    restrict_imports(allowed)
    parser = create_parser()
    config = parse(parser, _with_config(arguments))
    command = config.subcommand
    if command is None:
        parser.print_help()
    elif command == "train":
        train = config.train
        if train.resume:
            _check_resumed_alone(arguments)
            commands.resume(Path(train.resume), train_parser())
        else:
            commands.train(train_parser(), train)
    elif command == "info":
        commands.info()
    elif command == "conformance":
        return _run_conformance(**vars(config.conformance))
    else:
        getattr(commands, command)(train_parser(), **vars(config[command]))
    return 0


def _check_resumed_alone(arguments: Sequence[str]) -> None:
    """Refuse options beside `--resume`, which would change nothing."""
    options = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    if others := ", ".join(sorted(options - {"--resume"})):
        expected, remedy = "alone: a run goes on as its own config.yaml says", "Change that file."
        raise ConfigError.of("train:", "--resume", f"given with {others}", expected, remedy)


def _run_conformance(
    backend: str | None, dtype: str | None, device: str, report: Path | None, exhaustive: bool
) -> int:
    """Run the conformance suite; 0 if all tests pass, else 1."""
    from ragged_conformance import command

    dtypes = command.DTYPES if dtype is None else (dtype,)
    return command.run(backend, dtypes, device, report, exhaustive)


def create_parser() -> Any:
    """Build the parser of all commands."""
    about = "Exact sequence models on rows of different lengths."
    parser = new_parser(about, "ragged train", __version__)
    subcommands = parser.add_subcommands(required=False)
    subcommands.add_subcommand("train", train_parser(), help="train a model from one YAML file")

    evaluate = _run_parser(
        "Score a run on its test events, beside the baselines.",
        "ragged evaluate runs/storms/2026-01-31_12-00-00 --backend jax",
    )
    subcommands.add_subcommand("evaluate", evaluate, help="score a run")

    report = _run_parser(
        "Write everything there is to see of a run into its report.html.",
        "ragged report runs/storms/2026-01-31_12-00-00",
    )
    subcommands.add_subcommand("report", report, help="write a page about a run")

    compare = new_parser(
        "Print one table of several runs, and draw their losses and scores.",
        "ragged compare runs/storms/* --output compare.png",
    )
    compare.add_argument("folders", type=Path, nargs="*", metavar="RUN", help="folders of runs")
    compare.add_argument("--output", type=Path, default=Path("compare.png"), help="PNG to write")
    subcommands.add_subcommand("compare", compare, help="compare runs")

    export = new_parser(
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
    subcommands.add_subcommand("export", export, help="export a run's model")

    predict = _run_parser(
        "Forecast the series of a table with a run's best model, or an exported one.",
        "ragged predict RUN --input sales.csv --horizon 12 --output forecast.csv",
    )
    predict.add_argument("--input", type=Path, required=True, help="table in the source's format")
    predict.add_argument("--output", type=Path, required=True, help=".csv or .parquet to write")
    predict.add_argument(
        "--horizon", type=int | None, help="steps; default: the rows without a target"
    )
    subcommands.add_subcommand("predict", predict, help="forecast a table")

    backtest = _run_parser(
        "Forecast from several origins of the past, and write the forecasts beside the truth.",
        "ragged backtest RUN --origins 12 --output backtest.csv",
    )
    backtest.add_argument("--output", type=Path, required=True, help=".csv or .parquet to write")
    backtest.add_argument("--input", type=Path | None, help="table; default: the run's own")
    backtest.add_argument("--origins", type=int, default=12, help="how many, the last ones")
    backtest.add_argument("--stride", type=int, default=1, help="steps between origins")
    backtest.add_argument("--horizon", type=int | None, help="steps; default: as trained")
    backtest.add_argument(
        "--refit", action="store_true", help="train anew for each origin, on what came before"
    )
    subcommands.add_subcommand("backtest", backtest, help="forecast the past")

    conformance = new_parser(
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
    subcommands.add_subcommand("conformance", conformance, help="prove a backend")
    info = new_parser("Print versions, backends and devices.", "ragged info")
    subcommands.add_subcommand("info", info, help="versions, backends, devices")
    return parser


def _run_parser(description: str, example: str) -> Any:
    """Create the parser of a command that reads a run."""
    parser = new_parser(description, example)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--backend", type=str | None, help="read the run with this backend")
    return parser


def _with_config(arguments: list[str]) -> list[str]:
    """Replace configurations by their checked text; training uses `storms` by default."""
    if not arguments or arguments[0] != "train":
        return arguments
    result: list[str] = []
    for argument in map(rename_option, arguments):
        key, is_pair, value = argument.partition("=")
        if is_pair and key == "--config":
            result += ["--config", _config_text(value)]
        else:
            is_config = bool(result) and result[-1] == "--config"
            result.append(_config_text(argument) if is_config else argument)
    if not {"--config", "--help", "-h"} & {argument.partition("=")[0] for argument in result}:
        result[1:1] = ["--config", _config_text("storms")]
    return result


def _config_text(value: str) -> str:
    """Read a configuration, by its path or name, and return it as JSON."""
    path = Path(value)
    if value in packaged_configs() and not path.exists():
        path = CONFIGS / f"{value}.yaml"
    if not path.is_file():
        expected = f"a YAML file or one of {packaged_configs()}"
        remedy = f"Check the path{nearest(value, packaged_configs())}."
        raise ConfigError.of("train:", "--config", repr(value), expected, remedy)
    return json.dumps(load_config(path))
