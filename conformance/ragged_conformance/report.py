"""The report: which operation of which backend was proved, and with how large an error."""

from __future__ import annotations

import html
import json
import platform
import string
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ragged.backend import load_backend, missing_members
from ragged.io.checkpoint import write_file

FORMAT = 1
NOT_TRIED = ""
OUTCOMES = ("passed", "failed", "skipped", "known limit")
LISTS = (
    *("runs", "devices", "operations", "skipped", "known_limits"),
    *("transformations", "failures"),
)


@dataclass(frozen=True)
class Record:
    """The outcome of one test.

    Args:
        test: its name.
        operations: the public names that it proves.
        backend: the backend under test.
        outcome: one of OUTCOMES.
        reason: why it was skipped or failed.
        error: the largest error in units of the tolerance; None where equality is exact.
        reproduce: the lines that run it again.
        transformation: where it tries one: its name, the problem that it was tried on, and the
            outcome, "equal" or "refused: ...".
    """

    test: str
    operations: tuple[str, ...]
    backend: str
    outcome: str
    reason: str = ""
    error: float | None = None
    reproduce: str = ""
    transformation: tuple[str, str, str] | None = None


def describe_run(backends: Sequence[str], dtype: str, device: str) -> dict[str, Any]:
    """Describe a run on a device, by its name: versions, and what a partial backend lacks."""
    return {
        "dtype": dtype,
        "device": device,
        "machine": platform.platform(),
        "python": platform.python_version(),
        "ragged-sequences": _version("ragged-sequences"),
        "backends": {name: _describe_backend(name) for name in backends},
    }


def summarize(run: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """Make a report of one run.

    >>> record = Record("test_a", ("lstm",), "jax", "passed", error=0.25)
    >>> report = summarize({"dtype": "float32", "device": "cpu"}, [record, record])
    >>> row = report["operations"][0]
    >>> row["operation"], row["backend"], row["passed"], row["largest_error"]
    ('lstm', 'jax', 2, 0.25)
    >>> report["devices"][0]["device"], report["devices"][0]["operations"]
    ('cpu', ['lstm'])
    """
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    by_backend: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_backend[record.backend].append(record)
        for operation in record.operations or ("(the suite itself)",):
            groups[operation, record.backend].append(record)
    where = {"dtype": run["dtype"], "device": run["device"]}
    return {
        "format": FORMAT,
        "runs": [{**run, "tests": _outcomes(records)}],
        "devices": [
            {**where, "backend": backend, **_outcomes(group), "operations": _proved(group)}
            for backend, group in sorted(by_backend.items())
        ],
        "operations": [
            {"operation": operation, "backend": backend, **where, **_count(group)}
            for (operation, backend), group in sorted(groups.items())
        ],
        "skipped": [
            {"backend": backend, **where, "reason": reason, "tests": count}
            for (backend, reason), count in sorted(_reasons(records, "skipped").items())
        ],
        "known_limits": [
            {"backend": backend, **where, "reason": reason, "tests": count}
            for (backend, reason), count in sorted(_reasons(records, "known limit").items())
        ],
        "transformations": [
            {"transformation": name, "problem": problem, "backend": r.backend, **where}
            | {"outcome": outcome if r.outcome == "passed" else r.outcome}
            for r in records
            if r.transformation and r.outcome != "skipped"
            for name, problem, outcome in [r.transformation]
        ],
        "failures": [
            {"test": r.test, **where, "reason": r.reason, "reproduce": r.reproduce}
            for r in records
            if r.outcome == "failed"
        ],
    }


def merge(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the reports of several runs.

    >>> one = summarize({"dtype": "float32", "device": "cpu"}, [])
    >>> [run["dtype"] for run in merge([one, one])["runs"]]
    ['float32', 'float32']
    """
    joined = {name: [row for report in reports for row in report[name]] for name in LISTS}
    return {"format": FORMAT, **joined}


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write `report.json` and `report.html` into a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    write_file(folder / "report.html", render(report).encode())


def render(report: dict[str, Any]) -> str:
    """Lay a report out as one HTML page that needs nothing else."""
    page = Path(__file__).with_name("report.html.template").read_text(encoding="utf-8")
    passed, failed, skipped, limits = (
        sum(run["tests"][outcome] for run in report["runs"]) for outcome in OUTCOMES
    )
    verdict = f"{failed} failed" if failed else "all green"
    return string.Template(page).substitute(
        verdict=verdict,
        state="red" if failed else "green",
        runs=_table(_run_rows(report), ("dtype", "device", "backend", "versions", "lacks")),
        machine=html.escape(report["runs"][0].get("machine", "") if report["runs"] else ""),
        counts=f"{passed} passed, {failed} failed, {skipped} skipped, {limits} known limits",
        devices=_table(
            [{**row, "operations": ", ".join(row["operations"])} for row in report["devices"]],
            ("device", "backend", "dtype", *OUTCOMES, "operations"),
        ),
        operations=_table(
            [{**row, "largest_error": _error(row)} for row in report["operations"]],
            ("operation", "backend", "dtype", "device", "largest_error", *OUTCOMES),
        ),
        transformations="\n".join(
            f"<h3>{html.escape(where)}</h3>\n{_table(rows, tuple(rows[0]))}"
            for where, rows in outcomes(report).items()
        )
        or "<p>none</p>",
        skipped=_table(report["skipped"], ("backend", "dtype", "device", "tests", "reason")),
        limits=_table(report["known_limits"], ("backend", "dtype", "device", "tests", "reason")),
        failures=_table(report["failures"], ("test", "dtype", "device", "reason", "reproduce")),
    )


def lines(report: dict[str, Any]) -> list[str]:
    """Lay the operations out as text, one line each."""
    head = f"{'operation':<34}{'backend':<13}{'dtype':<10}{'largest error':>14}{'cases':>7}"
    text = [head + f"{'failed':>8}{'skipped':>9}"]
    for row in report["operations"]:
        cases = row["passed"] + row["failed"] + row["known limit"]
        text.append(
            f"{row['operation']:<34}{row['backend']:<13}{row['dtype']:<10}{_error(row):>14}"
            f"{cases:>7}{row['failed']:>8}{row['skipped']:>9}"
        )
    text.append("")
    for row in report["devices"]:
        counts = ", ".join(f"{row[outcome]} {outcome}" for outcome in OUTCOMES)
        text.append(f"{row['device']}, {row['backend']}, {row['dtype']}: {counts}")
    for where, rows in outcomes(report).items():
        text += ["", f"transformations, {where}"]
        text += [
            f"{row['transformation']:<34}{', '.join(cells)}"
            for row in rows
            for cells in [[f"{n}: {o}" for n, o in list(row.items())[1:] if o != NOT_TRIED]]
        ]
    return text


def outcomes(report: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Lay the outcomes of transformations out as tables, one a backend and dtype.

    >>> record = Record("test_a", (), "jax", "passed", transformation=("vmap", "LSTM", "equal"))
    >>> outcomes(summarize({"dtype": "float32", "device": "cpu"}, [record]))
    {'jax, float32, cpu': [{'transformation': 'vmap', 'LSTM': 'equal'}]}
    """
    tables: dict[str, list[dict[str, str]]] = {}
    groups: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for row in report["transformations"]:
        where = f"{row['backend']}, {row['dtype']}, {row['device']}"
        groups[where][row["transformation"], row["problem"]] = row["outcome"]
    for where, cells in groups.items():
        names, problems = (dict.fromkeys(cell[axis] for cell in cells) for axis in (0, 1))
        tables[where] = [
            {"transformation": name, **{p: cells.get((name, p), NOT_TRIED) for p in problems}}
            for name in names
        ]
    return tables


def _count(records: Sequence[Record]) -> dict[str, Any]:
    errors = [r.error for r in records if r.error is not None]
    return {"largest_error": max(errors, default=None), **_outcomes(records)}


def _proved(records: Sequence[Record]) -> list[str]:
    """The public names that a test of these has passed for."""
    return sorted({name for r in records if r.outcome == "passed" for name in r.operations})


def _outcomes(records: Sequence[Record]) -> dict[str, int]:
    counts = Counter(r.outcome for r in records)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _reasons(records: Sequence[Record], outcome: str) -> Counter[tuple[str, str]]:
    return Counter((r.backend, r.reason) for r in records if r.outcome == outcome)


def _error(row: dict[str, Any]) -> str:
    return "exact" if row["largest_error"] is None else f"{row['largest_error']:.2g}"


def _describe_backend(name: str) -> dict[str, Any]:
    backend = load_backend(name, partial=True)
    missing = missing_members(backend)
    framework = name if "framework" in missing else backend.framework
    return {
        "framework": f"{framework} {_version(framework)}",
        "devices": [] if "devices" in missing else list(backend.devices()),
        "lacks": list(missing),
    }


def _run_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "dtype": run["dtype"],
            "device": run["device"],
            "backend": name,
            "versions": f"{backend['framework']}, ragged {run['ragged-sequences']}, "
            f"Python {run['python']}",
            "lacks": ", ".join(backend["lacks"]) or "nothing",
        }
        for run in report["runs"]
        for name, backend in run["backends"].items()
    ]


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "\n".join(
        f"<tr class='{'bad' if row.get('failed') else ''}'>"
        + "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in columns)
        + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f"<div class='wide'>{table}</div>"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(version unknown)"
