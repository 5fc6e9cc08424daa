"""The conformance suite can fail: every fault turns the tests that name it red.

    pytest -n 2 tests/test_sabotage.py
    pytest -n 2 -p ragged_conformance.plugin tests/test_sabotage.py --exhaustive

With `--exhaustive` every fault meets the whole suite of its backend instead of the tests named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ragged.errors import RaggedError
from tests import (
    sabotage,
    sabotage_between,
    sabotage_core,
    sabotage_jax,
    sabotage_losses,
    sabotage_models,
    sabotage_torch,
    sabotage_training,
)
from tests.sabotage import Fault, StaleFaultError

SUITE = Path(__file__).parents[1] / "conformance" / "ragged_conformance"
BOTH = "torch = jax"  # in a backend's place: what only a comparison of the two can see
FAULTS: dict[str, tuple[Fault, ...]] = {
    backend: (
        *sabotage_core.FAULTS,
        *sabotage_losses.FAULTS,
        *own.FAULTS,
        *sabotage_models.faults_of(backend),
        *sabotage_training.faults_of(backend),
    )
    for backend, own in (("torch", sabotage_torch), ("jax", sabotage_jax))
}
FAULTS[BOTH] = (*sabotage_between.FAULTS, *sabotage_training.BETWEEN)
CASES = [(backend, one) for backend, faults in FAULTS.items() for one in faults]

# Nothing that the outer session has set up for this process may be taken down by the inner one.
HERMETIC = (
    *("-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:logging"),
    *("-p", "no:unraisableexception", "-p", "no:threadexception"),
    *("--capture=no", "--tb=short", "-o", "addopts=--import-mode=importlib"),
)

# A crash is no proof that the suite compares anything.
RED = (AssertionError, pytest.fail.Exception, RaggedError)


@contextmanager
def cheap_programs() -> Iterator[None]:
    """Spend little on programs that run once: one thread, and no search for faster code."""
    with ExitStack() as stack:
        if find_spec("torch"):
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        if find_spec("jax"):
            import jax

            option = "jax_disable_most_optimizations"
            stack.callback(jax.config.update, option, jax.config.read(option))
            jax.config.update(option, True)
        yield


class Result(NamedTuple):
    """What became of one test."""

    test: str
    outcome: str
    is_red: bool


class Recorder:
    """A plugin that keeps what became of every test."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Iterator[None]:
        report: Any = yield
        if report.when == "call":
            is_red = report.failed and isinstance(call.excinfo.value, RED)
            self.results.append(Result(item.nodeid.rpartition("/")[2], report.outcome, is_red))
        return report


@pytest.fixture
def run_suite(need, monkeypatch):
    """Run conformance tests of a backend, all if none are named, in this process."""
    for variable in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(backend: str, tests: list[str]) -> list[Result]:
        need(*backend.split(" = "))
        chosen = [] if backend == BOTH else ["--backend", backend]
        places = [str(SUITE / test) for test in tests or [""]]
        recorder = Recorder()
        with cheap_programs():
            code = pytest.main([*HERMETIC, *chosen, *places], plugins=[recorder])
        assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), f"it ended with {code!r}"
        return recorder.results

    return run


@pytest.mark.parametrize("backend", FAULTS)
def test_the_same_tests_are_green_without_a_fault(run_suite, pytestconfig, backend: str) -> None:
    named = {test for one in FAULTS[backend] for test in one.tests(backend)}
    everything = pytestconfig.getoption("exhaustive", False)
    results = run_suite(backend, [] if everything else sorted(named))
    assert not [result.test for result in results if result.outcome == "failed"]
    assert {result.test for result in results if result.outcome == "passed"} >= named


@pytest.mark.parametrize(("backend", "fault"), CASES, ids=[f"{b}-{f.name}" for b, f in CASES])
def test_fault_is_caught(
    run_suite, record_property, pytestconfig, backend: str, fault: Fault
) -> None:
    named = fault.tests(backend)
    everything = pytestconfig.getoption("exhaustive", False)
    with fault.applied():
        results = run_suite(backend, [] if everything else named)
    caught = [result.test for result in results if result.is_red]
    record_property("sabotage", [fault.name, backend, caught])
    assert caught
    assert everything or set(caught) == set(named)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_every_backend_meets_its_faults(backend: str) -> None:
    names = [one.name for one in FAULTS[backend]]
    assert len(set(names)) == len(names) >= 25


MASK = "ragged.masks:padding_mask"


@pytest.mark.parametrize(
    ("target", "old", "message"),
    [
        (MASK, "steps << count", "holds 'steps << count' 0 times"),
        (MASK, "count", "holds 'count' 3 times"),
        ("ragged.masks:padding", "steps < count", "ragged.masks:padding is gone"),
        ("ragged.mask:padding_mask", "steps < count", "ragged.mask:padding_mask is gone"),
    ],
)
def test_a_fault_that_no_longer_fits_is_refused(target: str, old: str, message: str) -> None:
    stale = sabotage.fault("", target, old, "")
    with pytest.raises(StaleFaultError, match=message), stale.applied():
        pass


def test_a_fault_is_undone_whatever_happens() -> None:
    from ragged.masks import padding_mask

    before, fault = padding_mask.__code__, sabotage.fault("", MASK, "steps < count", "steps")
    with pytest.raises(KeyError), fault.applied():  # noqa: PT012
        assert padding_mask.__code__ is not before
        raise KeyError
    assert padding_mask.__code__ is before
