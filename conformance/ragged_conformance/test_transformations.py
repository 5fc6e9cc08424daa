"""Layers and models under every transformation of their frameworks.

Each transformation either gives the oracle's results, or raises the error that its table names; the
report has the table of outcomes. NaN stands at padding throughout.
"""

import functools

import pytest

from ragged_conformance.adapter import Adapter
from ragged_conformance.evaluation import one_thread
from ragged_conformance.recording import record_outcome
from ragged_conformance.transformations import table_of
from ragged_conformance.transformations.comparison import check
from ragged_conformance.transformations.problems import PROBLEMS, Trial

# Warnings of torch's own code, in functorch, the compiler and FSDP.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node"),
    pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides"),
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try every transformation on every problem."""
    chosen, options = metafunc.config.getoption("backend"), metafunc.config.option
    backend = "torch" if "torch_adapter" in metafunc.fixturenames else "jax"
    table = table_of(backend) if chosen in (None, backend) else {}
    cases = [
        pytest.param(
            name, problem, marks=pytest.mark.operation(PROBLEMS[problem].subject.operation)
        )
        for name, line in table.items()
        for problem in PROBLEMS
        if backend != "jax" or PROBLEMS[problem].policy in ("auto", "never")
        if line.dtype == options.dtype and line.is_tried(problem, options.exhaustive)
    ]
    metafunc.parametrize(("transformation", "problem"), cases)


def test_torch(
    torch_adapter: Adapter,
    transformation: str,
    problem: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record_outcome(request.node, transformation, problem, "failed")
    outcome = attempt(torch_adapter, transformation, problem, monkeypatch)
    record_outcome(request.node, transformation, problem, outcome)


def test_jax(
    jax_adapter: Adapter,
    transformation: str,
    problem: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record_outcome(request.node, transformation, problem, "failed")
    outcome = attempt(jax_adapter, transformation, problem, monkeypatch)
    record_outcome(request.node, transformation, problem, outcome)


def attempt(
    adapter: Adapter, transformation: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Transform a problem, compare, and return the outcome."""
    if not PROBLEMS[problem].kernels:
        monkeypatch.setenv("RAGGED_KERNELS", "0")
    line, trial = table_of(adapter.name)[transformation], trial_of(adapter, problem)
    error = line.refusal(problem)
    with one_thread(adapter):
        if error is None:
            check(trial, line.run(trial))
            return "equal"
        with pytest.raises(error):
            line.run(trial)
    return f"refused: {error.__name__}"


@functools.cache
def trial_of(adapter: Adapter, problem: str) -> Trial:
    """A problem on a backend, built once."""
    return Trial(adapter, PROBLEMS[problem])
