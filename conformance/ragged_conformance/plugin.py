"""The suite's pytest options and fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

import ragged
from ragged.backend import load_backend, missing_members
from ragged.errors import MissingMemberError
from ragged_conformance import programs
from ragged_conformance.adapter import ADAPTERS, Adapter, make_adapter
from ragged_conformance.recording import SUITE, Recorder, backend_of

DTYPES = ("float64", "float32", "bfloat16", "float16")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    group = parser.getgroup("ragged", "ragged's conformance suite")
    group.addoption("--backend", help="one backend, by name or import path; default: torch and jax")
    group.addoption("--dtype", choices=DTYPES, default="float32")
    group.addoption("--device", choices=["cpu", "cuda"], default="cpu")
    group.addoption("--device-name", help="of the report; default: what the framework calls it")
    group.addoption("--exhaustive", action="store_true", help="more random cases; up to an hour")
    group.addoption("--report", metavar="DIR", help="write report.json and report.html there")


def pytest_configure(config: pytest.Config) -> None:
    """Set the options of JAX that hold for a whole process, before any computation."""
    config.addinivalue_line("markers", "operation(*names): the public names that a test proves")
    # Torch warns once a process about the kernel that runs a projection.
    config.addinivalue_line("filterwarnings", "ignore:LSTM with projections is not supported")
    chosen = config.getoption("backend")
    backends = [chosen] if chosen else [n for n in ADAPTERS if n in ragged.available_backends()]
    config.pluginmanager.register(Recorder(config, backends))
    if chosen in (None, *ADAPTERS) and _is_xdist_controller(config):
        return
    for name in backends:
        load_backend(name, partial=True)
    if find_spec("hypothesis"):
        from ragged_conformance.strategies import load_profile

        load_profile(exhaustive=config.getoption("exhaustive"))
    if config.getoption("dtype") == "float64" and "jax" in backends:
        import jax

        jax.config.update("jax_enable_x64", True)


def _is_xdist_controller(config: pytest.Config) -> bool:
    """Whether xdist's workers run every test: this process then imports no framework."""
    processes = config.getoption("numprocesses", None)
    return bool(processes) and not hasattr(config, "workerinput")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Report what a partial backend lacks; those of the suite's own adapters lack nothing."""
    chosen = config.getoption("backend")
    is_other = chosen not in (None, *ADAPTERS)
    missing = missing_members(load_backend(chosen, partial=True)) if is_other else ()
    if missing:
        terminalreporter.write_line(f"backend {chosen!r} lacks {', '.join(missing)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the known limits as expected failures."""
    dtype, device = (str(config.getoption(option)) for option in ("dtype", "device"))
    for item in items:
        backend, name = backend_of(item), f"{item.path.name}::{item.nodeid.partition('::')[2]}"
        if item.path.parent != SUITE:
            continue
        for limit in make_adapter(backend, dtype, device).limits:
            if limit.applies(backend, name, dtype, device):
                reason = f"{limit.reason} {limit.link}".strip()
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def pytest_runtest_logfinish() -> None:
    """Keep a long session below what Linux lets one process map into memory."""
    programs.forget_if_crowded()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Skip what a partial backend lacks."""
    return (yield from _skip_what_is_missing())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Skip what a partial backend lacks."""
    return (yield from _skip_what_is_missing())


def _skip_what_is_missing() -> Iterator[None]:
    try:
        return (yield)
    except MissingMemberError as error:
        pytest.skip(str(error))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for `adapter` on each backend chosen."""
    if "adapter" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("backend")
        metafunc.parametrize("adapter", [chosen] if chosen else list(ADAPTERS), indirect=True)


@pytest.fixture
def dtype(request: pytest.FixtureRequest) -> str:
    """The floating dtype under test."""
    return str(request.config.getoption("dtype"))


@pytest.fixture
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    """The backend under test, selected as `ragged`'s backend."""
    yield from _chosen(request, request.param)


@pytest.fixture
def both(request: pytest.FixtureRequest) -> tuple[Adapter, Adapter]:
    """Torch and JAX, for tests that compare them."""
    if request.config.getoption("backend"):
        pytest.skip("compares two backends; --backend chose one")
    return _adapter(request.config, "torch"), _adapter(request.config, "jax")


@pytest.fixture
def torch_adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    """Torch, for what only it has."""
    yield from _chosen(request, "torch")


@pytest.fixture
def jax_adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    """JAX, for what only it has."""
    yield from _chosen(request, "jax")


def _chosen(request: pytest.FixtureRequest, name: str) -> Iterator[Adapter]:
    if request.config.getoption("backend") not in (None, name):
        pytest.skip(f"is for {name}; --backend chose another")
    adapter = _adapter(request.config, name)
    with ragged.use_backend(name):
        yield adapter


def _adapter(config: pytest.Config, name: str) -> Adapter:
    """Make a backend's adapter, or skip the test with the reason."""
    if name in ADAPTERS and name not in ragged.available_backends():
        pytest.skip(f"the {name} backend's framework is not installed")
    device = str(config.getoption("device"))
    adapter = make_adapter(name, str(config.getoption("dtype")), device)
    if device not in adapter.backend.devices():
        pytest.skip(f"{name} finds no {device} device")
    return adapter
