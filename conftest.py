"""Run the examples in docstrings on one backend that is installed, and save time elsewhere."""

import functools
import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from _pytest.doctest import DoctestItem

import ragged


def pytest_collection_finish() -> None:
    """Save what all tests spend time on."""
    _collect_garbage_seldom()
    _lower_in_one_context()


def _collect_garbage_seldom() -> None:
    """Leave out what the frameworks keep: to look through it took a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _lower_in_one_context() -> None:
    """Let JAX keep MLIR's context: to make one for each program took a tenth of the time."""
    mlir: Any = sys.modules.get("jax._src.interpreters.mlir")
    if hasattr(mlir, "make_ir_context"):  # private: where it is gone, nothing is saved
        mlir.make_ir_context = functools.cache(mlir.make_ir_context)


@pytest.fixture(autouse=True)
def _example_backend(request: pytest.FixtureRequest) -> Iterator[None]:
    available = ragged.available_backends()
    if not isinstance(request.node, DoctestItem) or not available:
        yield
        return
    with ragged.use_backend(available[-1]):  # torch, where it is: it compiles nothing
        yield
