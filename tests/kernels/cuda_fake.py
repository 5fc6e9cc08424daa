"""The driver's functions played by the host: launches are run by its threads, and remembered."""

import ctypes
from contextlib import nullcontext

from ragged.kernels.cuda import verdicts
from ragged.kernels.cuda.driver import Driver
from tests.kernels.cuda_host import SOURCE, HostLayer, compile_library


def keep_verdicts_in(folder, monkeypatch):
    """Keep verdicts in a test's own folder; libraries stay where they were compiled before."""
    monkeypatch.setattr(verdicts, "cache_folder", lambda: nullcontext(folder))


class Launched(ctypes.Structure):
    """What the driver was asked for last."""

    _fields_ = (
        *((name, ctypes.c_uint) for name in ("grid", "threads", "shared")),
        ("stream", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("limit", "nonportable", "launches", "device")),
    )


class FakeDriver:
    """A driver for one cell; a cubin is the name of its pass."""

    def __init__(self, plan):
        self.plan, self.path = plan, compile_library(plan, SOURCE.with_name("fake_driver.cpp"))
        self.library = ctypes.CDLL(str(self.path))
        self.library.get_launched.restype = ctypes.POINTER(Launched)
        self.fail_with, self.forget = self.library.fail_with, self.library.forget
        self.let_framework, self.capture = self.library.let_framework, self.library.capture

    @property
    def launched(self):
        return self.library.get_launched().contents

    @property
    def device(self):
        return self.device_at(0)

    def device_at(self, index):
        return Driver(self.library).device(index)


class DrivenLayer(HostLayer):
    """A layer whose kernels are launched through the driver."""

    def __init__(self, plan, device):
        super().__init__(plan)
        self.device = device

    def _launch(self, direction, call):
        self.device.launch(self.plan._replace(direction=direction), call, self.clusters, 7)
