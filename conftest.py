"""Run the examples in docstrings on one backend that is installed."""

from collections.abc import Iterator

import pytest
from _pytest.doctest import DoctestItem

import ragged


@pytest.fixture(autouse=True)
def _example_backend(request: pytest.FixtureRequest) -> Iterator[None]:
    available = ragged.available_backends()
    if not isinstance(request.node, DoctestItem) or not available:
        yield
        return
    with ragged.use_backend(available[-1]):  # torch, where it is: it compiles nothing
        yield
