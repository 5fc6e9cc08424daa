"""The facts of a run's configuration, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragged.data import Normalization
from ragged.evaluation.evaluate import label
from ragged.report.charts import percent
from ragged.report.report_data import ReportData
from ragged.runs.folder import Run

SOURCE_FACTS = {"group": "series told apart by", "time": "time", "frequency": "frequency"}


def configuration_facts(report: ReportData) -> dict[str, str]:
    """Return name and value of what a run was trained with, and on."""
    run, config = report.run, report.run.written
    data, trainer = config["data"]["init_args"], config["trainer"]
    num_parameters = sum(value.size for value in report.parameters.values())
    return {
        "run": "/".join(run.folder.resolve().parts[-2:]),
        "data": _source(data["source"]),
        **_columns(run, data["source"].get("init_args", {})),
        "windows": _windows(data),
        "split": _split(data),
        "transforms": _transforms(run),
        "model": _named(run.module.config.model, config["model"].get("init_args", {})),
        "parameters": f"{num_parameters:,}",
        "loss": f"{report.loss}, the mean over {report.averaged_over}",
        "trained with": f"{run.config.backend}, {run.trainer.precision}, seed {run.config.seed}",
        "epochs": f"at most {trainer['max_epochs']}, patience {trainer['patience']}, batches of "
        f"{data['batch_size']} rows",
        "optimizer": _part(trainer["optimizer"]),
        "learning rate": _part(trainer["lr_schedule"]),
    }


def _source(source: Mapping[str, Any]) -> str:
    kind = source["class_path"].rpartition(".")[2]
    path = source.get("init_args", {}).get("path")
    return f"{path} ({kind})" if path else kind


def _columns(run: Run, arguments: Mapping[str, Any]) -> dict[str, str]:
    roles = run.data.source.roles
    named = {
        "targets": roles.target,
        "known ahead": roles.known,
        "known in the past": roles.past,
        "static": roles.static,
    }
    facts = {
        name: ", ".join(label(run.data, column) for column in columns)
        for name, columns in named.items()
        if columns
    }
    facts.setdefault("known ahead", "nothing")
    for argument, name in SOURCE_FACTS.items():
        value = arguments.get(argument)
        if value is not None:
            facts[name] = ", ".join(value) if isinstance(value, list) else str(value)
    return facts


def _windows(data: Mapping[str, Any]) -> str:
    windows = data.get("windows")
    if isinstance(windows, Mapping):
        return _arguments(windows)
    return f"an event is a row, {percent(data['context_fraction'])} of it context"


def _split(data: Mapping[str, Any]) -> str:
    ways = {"time": "each series by its steps", "events": "by series"}
    by = ways.get(data.get("split") or "", "by series, a single one by its steps")
    shares = f"validation {percent(data['validation'])}, test {percent(data['test'])}"
    return f"{by}; {shares}"


def _transforms(run: Run) -> str:
    """Name the chain of each column; what most columns have is said once."""
    chains = Normalization.from_dict(run.normalization).chains
    names = {column: " of ".join(type(t).__name__ for t in c[::-1]) for column, c in chains.items()}
    usual = max(names.values(), key=list(names.values()).count)
    others = [f"{column} {name}" for column, name in names.items() if name != usual]
    return "; ".join([usual or "none", *others])


def _part(section: Any) -> str:
    """Describe a class with its arguments."""
    if isinstance(section, str):
        return section.rpartition(".")[2]
    return _named(section["class_path"].rpartition(".")[2], section.get("init_args", {}))


def _named(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{name}: {_arguments(arguments)}" if arguments else name


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items() if value is not None)
