"""The device of the tests here: CUDA's, or the pretended one of `python -m tests.cuda`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.cuda import pretended_device


@pytest.fixture
def cuda() -> str:
    """A CUDA device."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; test_pretended_device.py runs it on a pretended one")
    return "cuda"


@pytest.fixture
def counted(cuda: str) -> Callable[[], AbstractContextManager[Any]]:
    """Count what the pretended device is asked for."""
    if not pretended_device.is_loaded:
        pytest.skip("counts what the pretended device is asked for")
    return pretended_device.counted
