"""What the tests of the CUDA kernels share."""

import functools

import pytest

from ragged.kernels.cuda import cubins, plans
from tests.kernels.cuda_fake import FakeDriver
from tests.kernels.cuda_host import HOPPER


@pytest.fixture(scope="session")
def compiled_driver_of():
    """Compile a library that plays the driver, for a cell of 5 units and batches of 8 rows."""

    @functools.cache
    def compile_driver(cell):
        forward, backward = (
            plans.plan_launch(cell, each, 5, 8, HOPPER, 2, "float32")[0] for each in plans.PASSES
        )
        assert backward._replace(direction="Forward") == forward  # one library has both
        return FakeDriver(forward)

    return compile_driver


@pytest.fixture
def fake_driver_of(compiled_driver_of, monkeypatch):
    """Give the library that plays the driver for a cell; a cubin is the name of a pass.

    What it was told in a test it forgets after it.
    """
    monkeypatch.setattr(cubins, "load", lambda plan: plan.direction.encode())
    given = []

    def give(cell):
        given.append(compiled_driver_of(cell))
        return given[-1]

    yield give
    for driver in given:
        driver.forget()
