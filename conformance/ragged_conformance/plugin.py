"""The suite's pytest options and fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ragged
from ragged_conformance.adapter import ADAPTERS, Adapter

DTYPES = ("float64", "float32", "bfloat16", "float16")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    group = parser.getgroup("ragged", "ragged's conformance suite")
    group.addoption("--backend", choices=list(ADAPTERS), help="one backend; default: all there are")
    group.addoption("--dtype", choices=DTYPES, default="float32")
    group.addoption("--device", choices=["cpu", "cuda"], default="cpu")
    group.addoption("--exhaustive", action="store_true", help="more random cases; up to an hour")


def pytest_configure(config: pytest.Config) -> None:
    """Set what JAX and CUDA take for a whole process, before anything is computed."""
    config.addinivalue_line("markers", "operation(*names): the public names that a test proves")
    # Torch says once a process which of its own kernels runs a projection.
    config.addinivalue_line("filterwarnings", "ignore:LSTM with projections is not supported")
    found = ragged.available_backends()
    if config.getoption("dtype") == "float64" and "jax" in found:
        import jax

        jax.config.update("jax_enable_x64", True)
    if config.getoption("device") == "cuda":  # TF32 keeps 10 bits and is no float32
        if "jax" in found:
            import jax

            jax.config.update("jax_default_matmul_precision", "highest")
        if "torch" in found:
            import torch

            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False


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
    """The backend under test, chosen as `ragged`'s own."""
    yield from _chosen(request, request.param)


@pytest.fixture
def both(request: pytest.FixtureRequest) -> tuple[Adapter, Adapter]:
    """Torch and JAX, for tests that compare them."""
    if request.config.getoption("backend"):
        pytest.skip("compares two backends; --backend chose one")
    return make_adapter(request.config, "torch"), make_adapter(request.config, "jax")


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
    adapter = make_adapter(request.config, name)
    with ragged.use_backend(name):
        yield adapter


def make_adapter(config: pytest.Config, name: str) -> Adapter:
    """Make a backend's adapter, or skip the test with the reason."""
    if name not in ragged.available_backends():
        pytest.skip(f"the {name} backend's framework is not installed")
    device = str(config.getoption("device"))
    found = ADAPTERS[name](name, str(config.getoption("dtype")), device)
    if device not in found.backend.devices():
        pytest.skip(f"{name} finds no {device} device")
    return found
