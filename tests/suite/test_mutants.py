"""The tests can fail: every fault turns those that it names red.

    pytest -n 2 tests/suite/test_mutants.py
    pytest -n 2 -p ragged_conformance.plugin tests/suite/test_mutants.py --exhaustive

With `--exhaustive` a backend's faults meet the whole conformance suite instead of the tests named.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
from ragged_conformance.evaluation import one_torch_thread

from tests.mutants import BOTH, FAULTS, SHARED, SHARED_JAX
from tests.mutants.inner import InnerSession, Result
from tests.mutants.mutant import (
    Fault,
    HeaderEdit,
    StaleFaultError,
    fault,
    with_planted,
)
from tests.mutants.programs import forget_programs

TESTS = Path(__file__).parents[1]
SUITE = TESTS.parent / "conformance" / "ragged_conformance"
OUTSIDE = (SHARED, SHARED_JAX)
CASES = [(backend, one) for backend, faults in FAULTS.items() for one in faults]


def files_of(backend: str) -> set[str]:
    """The files of the tests that a backend's faults name."""
    tests = (test for one in FAULTS[backend] for test in one.tests(backend))
    return {test.partition("::")[0] for test in tests}


@contextmanager
def cheap_jax(folder: Path) -> Iterator[None]:
    """Compile each program once for all faults that leave it as it is, and without optimising.

    A folder of programs names them by content, so that a faulty one is another: where there is a
    folder, it serves.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    options = {
        "jax_compilation_cache_dir": jax.config.values["jax_compilation_cache_dir"] or str(folder),
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


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """A folder that xdist's workers share."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "programs"


@pytest.fixture(scope="session")
def everything(pytestconfig) -> bool:
    return pytestconfig.getoption("exhaustive", False)


@pytest.fixture(scope="session")
def session_of(everything) -> Iterator[Callable[[str], InnerSession]]:
    """Give a backend's session, whose tests are collected once in a process."""
    with ExitStack() as opened:

        @functools.cache
        def session(backend: str) -> InnerSession:
            options = [] if backend in (BOTH, *OUTSIDE) else ["--backend", backend]
            if backend in OUTSIDE:
                own = InnerSession(TESTS, files_of(backend), options)
            else:
                own = InnerSession(SUITE, () if everything else files_of(backend), options)
            opened.callback(own.close)
            return own

        yield session


@pytest.fixture
def run_suite(need, session_of, programs):
    """Run tests of a backend's session, all if none are named, in this process."""

    def run(backend: str, tests: list[str]) -> list[Result]:
        need(*backend.partition(",")[0].split(" = "))
        with ExitStack() as stack:
            for name, cheap in (("torch", one_torch_thread()), ("flax", cheap_jax(programs))):
                if find_spec(name):
                    stack.enter_context(cheap)
            return session_of(backend).run(tests)

    return run


@pytest.mark.parametrize("backend", FAULTS)
def test_the_same_tests_are_green_without_a_fault(run_suite, everything, backend: str) -> None:
    """One test of each file, to show that it can be green here; the suite itself runs them all."""
    named = sorted({test for one in FAULTS[backend] for test in one.tests(backend)})
    one_of_each = {test.partition("::")[0]: test for test in named}.values()
    whole = everything and backend not in OUTSIDE
    results = run_suite(backend, [] if whole else list(one_of_each))
    assert not [result.test for result in results if result.outcome == "failed"]
    expected = named if whole else one_of_each
    assert {r.test for r in results if r.outcome == "passed"} >= set(expected)


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
    assert {r.test for r in results if r.outcome == "passed"} == named


@pytest.mark.parametrize(("backend", "fault"), CASES, ids=[f"{b}-{f.name}" for b, f in CASES])
def test_fault_is_caught(
    run_suite, record_property, everything, backend: str, fault: Fault
) -> None:
    named = fault.tests(backend)
    whole = everything and backend not in OUTSIDE
    with fault.applied():
        results = run_suite(backend, [] if whole else named)
    caught = [result.test for result in results if result.is_red]
    record_property("mutants", [fault.name, backend, caught])
    assert caught
    assert whole or set(caught) == set(named)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_no_program_outlives_what_it_was_compiled_from(run_suite, backend: str) -> None:
    (swapped,) = (one for one in FAULTS[backend] if one.name == "gates f and g swapped")
    found = []
    for planted in (nullcontext(), swapped.applied(), nullcontext()):
        with planted:
            found += [result.is_red for result in run_suite(backend, swapped.tests(backend))]
    assert found == [False, True, False]


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
