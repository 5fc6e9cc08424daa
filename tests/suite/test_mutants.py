"""The tests can fail: every fault turns those that it names red.

    pytest -n 2 tests/suite/test_mutants.py
    pytest -n 2 -p ragged_conformance.plugin tests/suite/test_mutants.py --exhaustive

With `--exhaustive` a backend's faults meet the whole conformance suite instead of the tests named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ragged_conformance.evaluation import one_torch_thread

from ragged.errors import RaggedError
from tests.mutants import BOTH, FAULTS, SHARED, SHARED_JAX
from tests.mutants.mutant import (
    Fault,
    HeaderEdit,
    StaleFaultError,
    fault,
    forget_programs,
    with_planted,
)

TESTS = Path(__file__).parents[1]
SUITE = TESTS.parent / "conformance" / "ragged_conformance"
OUTSIDE = (SHARED, SHARED_JAX)
CASES = [(backend, one) for backend, faults in FAULTS.items() for one in faults]

# Nothing that the outer session has set up for this process may be taken down by the inner one, of
# which there are hundreds: they also do without what no test of the suite needs.
HERMETIC = (
    *("-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:logging"),
    *("-p", "no:unraisableexception", "-p", "no:threadexception"),
    *("-p", "no:junitxml", "-p", "no:pastebin", "-p", "no:stepwise", "-p", "no:unittest"),
    *("-p", "no:setuponly", "-p", "no:setupplan", "-p", "no:subtests", "-p", "no:legacypath"),
    *("--capture=no", "--tb=short", "-o", "addopts=--import-mode=importlib"),
)

# A crash is no proof that the suite compares anything.
RED = (AssertionError, pytest.fail.Exception, RaggedError)


@contextmanager
def cheap_jax(folder: Path) -> Iterator[None]:
    """Compile each program once for all faults that leave it as it is, and without optimising."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    options = {
        "jax_compilation_cache_dir": str(folder),  # by content: a faulty program is another one
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": True,
    }
    before = {option: jax.config.values[option] for option in options}
    try:
        for option, value in options.items():
            jax.config.update(option, value)
        compilation_cache.reset_cache()
        yield
    finally:
        for option, value in before.items():
            jax.config.update(option, value)
        compilation_cache.reset_cache()


def in_file(node: str) -> str:
    """A test's name without the folders of its file."""
    file, _, test = node.partition("::")
    return f"{Path(file).name}::{test}"


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
            self.results.append(Result(in_file(item.nodeid), report.outcome, is_red))
        return report


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """A folder that xdist's workers share."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "programs"


@pytest.fixture
def run_suite(need, monkeypatch, programs):
    """Run conformance tests of a backend, all if none are named, in this process."""
    for variable in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(backend: str, tests: list[str]) -> list[Result]:
        need(*backend.partition(",")[0].split(" = "))
        chosen = [] if backend in (BOTH, *OUTSIDE) else ["--backend", backend]
        folder = TESTS if backend in OUTSIDE else SUITE
        places = [str(folder / test) for test in tests or [""]]
        recorder = Recorder()
        with ExitStack() as stack:
            for name, cheap in (("torch", one_torch_thread()), ("flax", cheap_jax(programs))):
                if find_spec(name):
                    stack.enter_context(cheap)
            code = pytest.main([*HERMETIC, *chosen, *places], plugins=[recorder])
        assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), f"it ended with {code!r}"
        return recorder.results

    return run


@pytest.mark.parametrize("backend", FAULTS)
def test_the_same_tests_are_green_without_a_fault(run_suite, pytestconfig, backend: str) -> None:
    """One test of each file, to show that it can be green here; the suite itself runs them all."""
    named = sorted({test for one in FAULTS[backend] for test in one.tests(backend)})
    one_of_each = {test.partition("::")[0]: test for test in named}.values()
    everything = pytestconfig.getoption("exhaustive", False) and backend not in OUTSIDE
    results = run_suite(backend, [] if everything else list(one_of_each))
    assert not [result.test for result in results if result.outcome == "failed"]
    expected = named if everything else one_of_each
    assert {r.test for r in results if r.outcome == "passed"} >= set(map(in_file, expected))


def test_kernels_that_hold_all_faults_are_green_while_none_is_planted(run_suite) -> None:
    named = {
        test
        for one in FAULTS["torch"]
        if any(isinstance(edit, HeaderEdit) for edit in one.edits)
        for test in one.tests("torch")
    }
    forget_programs()
    with with_planted(0):
        results = run_suite("torch", sorted(named))
    forget_programs()
    assert {r.test for r in results if r.outcome == "passed"} == set(map(in_file, named))


@pytest.mark.parametrize(("backend", "fault"), CASES, ids=[f"{b}-{f.name}" for b, f in CASES])
def test_fault_is_caught(
    run_suite, record_property, pytestconfig, backend: str, fault: Fault
) -> None:
    named = fault.tests(backend)
    everything = pytestconfig.getoption("exhaustive", False) and backend not in OUTSIDE
    with fault.applied():
        results = run_suite(backend, [] if everything else named)
    caught = [result.test for result in results if result.is_red]
    record_property("mutants", [fault.name, backend, caught])
    assert caught
    assert everything or set(caught) == set(map(in_file, named))


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_every_backend_meets_its_faults(backend: str) -> None:
    names = [one.name for one in FAULTS[backend]]
    assert len(set(names)) == len(names) >= 25


MASK = "ragged.ops.masks:padding_mask"


@pytest.mark.parametrize(
    ("target", "old", "message"),
    [
        (MASK, "steps << count", "holds 'steps << count' 0 times"),
        (MASK, "count", "holds 'count' 3 times"),
        ("ragged.ops.masks:padding", "steps < count", "ragged.ops.masks:padding is gone"),
        ("ragged.mask:padding_mask", "steps < count", "ragged.mask:padding_mask is gone"),
    ],
)
def test_a_fault_that_no_longer_fits_is_refused(target: str, old: str, message: str) -> None:
    stale = fault("", target, old, "")
    with pytest.raises(StaleFaultError, match=message), stale.applied():
        pass


def test_a_fault_is_undone_whatever_happens() -> None:
    from ragged.ops.masks import padding_mask

    before, planted = padding_mask.__code__, fault("", MASK, "steps < count", "steps")
    with pytest.raises(KeyError), planted.applied():  # noqa: PT012
        assert padding_mask.__code__ is not before
        raise KeyError
    assert padding_mask.__code__ is before
