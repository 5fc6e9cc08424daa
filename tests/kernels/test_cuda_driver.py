"""The driver's glue with a library that plays the driver: no GPU is needed, and none has run it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ragged import kernels
from ragged.errors import KernelError
from ragged.kernels.cuda import calls, cubins, driver, plans
from tests.kernels.cuda_cases import check, solved
from tests.kernels.cuda_fake import DrivenLayer
from tests.kernels.cuda_host import HOPPER

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
PLAN = plans.make_plan("LSTM", "Forward", 5, gpu=HOPPER)


@pytest.fixture
def fake(fake_driver_of):
    return fake_driver_of("LSTM")


def test_launches_run_what_they_are_given(fake):
    layer = DrivenLayer(PLAN, fake.device)
    check(layer, *solved("LSTM"), "packed", clusters=2)
    sizes = (fake.launched.grid, fake.launched.threads, fake.launched.stream)
    assert sizes == (2 * PLAN.cluster, PLAN.threads, 7)
    assert fake.launched.shared == PLAN._replace(direction="Backward").shared
    assert fake.launched.launches == 2


def test_the_device_is_asked_what_it_is(fake):
    device = fake.device
    assert (device.name, device.gpu, device.processors) == ("Played GPU", HOPPER, 2)
    assert driver.Driver(fake.library).version == 13000


def test_nothing_is_launched_for_no_rows(fake):
    layer = DrivenLayer(PLAN, fake.device)
    weights = solved("LSTM")[0].weights
    state = np.zeros((0, 5)), np.zeros((0, 5))
    y, h, _ = layer.forward(weights, np.zeros((0, 2)), [], state, width=3, clusters=0)
    assert (len(y), len(h), fake.launched.launches) == (0, 0, 0)


def test_large_clusters_are_allowed_first(fake):
    assert fake.device.prepare(PLAN._replace(cluster=16))
    assert fake.launched.nonportable == 1


@pytest.mark.parametrize("framework", [-1, 0])
def test_a_launch_is_in_the_context_of_its_gpu_whatever_the_threads_is(fake, framework):
    fake.let_framework(framework)  # none, as in a fresh thread, or another GPU's
    layer = DrivenLayer(PLAN, fake.device_at(1))
    with ThreadPoolExecutor(1) as thread:
        thread.submit(check, layer, *solved("LSTM"), "packed").result()
        assert thread.submit(fake.library.get_current).result() == framework
    assert fake.launched.device == 1


def test_kernels_are_loaded_while_a_graph_is_captured_and_nothing_stays_relaxed(fake):
    fake.capture(True)
    check(DrivenLayer(PLAN, fake.device), *solved("LSTM"), "packed")
    with pytest.raises(KernelError, match=r"cuKernelGetFunction.*\(900\)"):
        fake.device.driver._call("cuKernelGetFunction", *2 * [fake.library.get_launched()])


def test_what_the_driver_refuses_is_named(fake, monkeypatch):
    device, call = fake.device, calls.Forward()
    device.prepare(PLAN)
    fake.fail_with(719)
    with pytest.raises(KernelError, match=r"cuLaunchKernel.*CUDA_ERROR_PLAYED \(719\)"):
        device.launch(PLAN, call, 1, 0)
    with pytest.raises(KernelError, match="cuLibraryLoadData"):
        device.prepare(PLAN._replace(rows=2))
    monkeypatch.setattr(cubins, "load", lambda plan: None)
    with pytest.raises(KernelError, match="one that can be compiled"):
        device.launch(PLAN._replace(rows=1), call, 1, 0)


def test_where_there_is_no_driver_there_is_none(monkeypatch):
    monkeypatch.setattr(driver, "LIBRARY", "libcuda-of-nobody.so")
    driver.load_driver.cache_clear()
    assert driver.load_driver() is None
    driver.load_driver.cache_clear()
