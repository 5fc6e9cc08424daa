"""Run the examples in docstrings on one backend that is installed, and collect garbage seldom."""

import gc
from collections.abc import Iterator

import pytest
from _pytest.doctest import DoctestItem

import ragged


def pytest_collection_finish() -> None:
    """Leave out what the frameworks keep: to look through it took a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def _example_backend(request: pytest.FixtureRequest) -> Iterator[None]:
    available = ragged.available_backends()
    if not isinstance(request.node, DoctestItem) or not available:
        yield
        return
    with ragged.use_backend(available[-1]):  # torch, where it is: it compiles nothing
        yield
