"""What each test proves, of which backend, and with how large an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragged_conformance import report, tolerances
from ragged_conformance.adapter import make_adapter

PROPERTY = "ragged_conformance"
SUITE = Path(__file__).parent
COLLECTED = pytest.StashKey[dict[str, set[str]]]()  # the names each module proves


class Recorder:
    """Collects one record a test, from this process or from xdist's workers."""

    def __init__(self, config: pytest.Config, backends: list[str]) -> None:
        self.config = config
        self.backends = backends
        self.records: dict[str, report.Record] = {}
        config.stash[COLLECTED] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note what a module proves, whatever will be deselected later."""
        if item.path.parent == SUITE:
            proved = self.config.stash[COLLECTED].setdefault(item.path.stem, set())
            proved.update(operations(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note what the test is about, before anything of it runs."""
        tolerances.MEASURED.clear()
        if item.path.parent == SUITE:
            facts = {
                "operations": operations(item),
                "backend": backend_of(item),
                "command": command(item),
            }
            item.user_properties.append((PROPERTY, facts))
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Iterator[None]:
        """Add the largest error, and to a failure what reproduces it."""
        facts: Any = dict(item.user_properties).get(PROPERTY, {})
        facts["error"] = max(tolerances.MEASURED, default=None)
        result: Any = yield
        if result.failed and "command" in facts:
            result.sections.append(("reproduce", facts["command"]))
        return result

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the outcome of a test."""
        facts = dict(report.user_properties).get(PROPERTY)
        if facts is not None and (report.when == "call" or not report.passed):
            self.records[report.nodeid] = _record(report, facts)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the report, once: not in a worker."""
        folder = self.config.getoption("report")
        if folder and not hasattr(session.config, "workerinput"):
            run = report.describe_run(
                self.backends, self.config.getoption("dtype"), self._device_name()
            )
            report.write(Path(folder), report.summarize(run, list(self.records.values())))

    def _device_name(self) -> str:
        """The device's own name, if a backend knows it or `--device-name` gives it."""
        given, dtype, device = map(self.config.getoption, ("device_name", "dtype", "device"))
        names = [make_adapter(each, dtype, device).device_name for each in self.backends]
        return str(given or next((name for name in names if name != device), device))


def record_outcome(item: pytest.Item, transformation: str, problem: str, outcome: str) -> None:
    """Note a transformation's outcome for the report."""
    facts: Any = dict(item.user_properties)[PROPERTY]
    facts["transformation"] = (transformation, problem, outcome)


def operations(item: pytest.Item) -> list[str]:
    """The public names that a test proves."""
    names = [name for mark in item.iter_markers("operation") for name in mark.args]
    return sorted(set(names))


def backend_of(item: pytest.Item) -> str:
    """The backend under test: one, both against each other, or none but the core."""
    names = getattr(item, "fixturenames", ())
    if "adapter" in names:
        return str(item.callspec.params["adapter"])  # type: ignore[attr-defined]
    for fixture, backend in (("both", "torch = jax"), ("torch_adapter", "torch")):
        if fixture in names:
            return backend
    return "jax" if "jax_adapter" in names else "core"


def command(item: pytest.Item) -> str:
    """The lines that run one test again."""
    config = item.config
    name = f"{item.path.stem}::{item.nodeid.partition('::')[2]}"
    options = [f"--{option} {config.getoption(option)}" for option in ("dtype", "device")]
    if config.getoption("backend"):
        options.insert(0, f"--backend {config.getoption('backend')}")
    if config.getoption("exhaustive"):
        options.append("--exhaustive")
    return f"python -m pytest --pyargs {' '.join(options)} \\\n  'ragged_conformance.{name}'"


def _record(outcome: Any, facts: dict[str, Any]) -> report.Record:
    limit = getattr(outcome, "wasxfail", None)
    state = "known limit" if limit is not None and outcome.skipped else outcome.outcome
    reason = ""
    if state == "skipped":
        reason = outcome.longrepr[2] if isinstance(outcome.longrepr, tuple) else ""
        reason = reason.removeprefix("Skipped: ")
    elif state == "failed":
        crash = getattr(outcome.longrepr, "reprcrash", None)
        reason = str(crash.message if crash else outcome.longreprtext).strip().splitlines()[0]
    return report.Record(
        test=outcome.nodeid,
        operations=tuple(facts["operations"]),
        backend=facts["backend"],
        outcome=state,
        reason=limit or reason,
        error=facts.get("error"),
        reproduce=facts["command"] if state == "failed" else "",
        transformation=facts.get("transformation"),
    )
