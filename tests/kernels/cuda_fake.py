"""The driver's functions played by the host: launches are run by its threads, and remembered."""

import ctypes

from ragged.kernels.cuda.driver import Driver
from tests.kernels.cuda_host import SOURCE, HostLayer, compile_plan


class Launched(ctypes.Structure):
    """What the driver was asked for last."""

    _fields_ = (
        *((name, ctypes.c_uint) for name in ("grid", "threads", "shared")),
        ("stream", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("limit", "nonportable", "launches")),
    )


class FakeDriver:
    """A driver for one cell; a cubin is the name of its pass."""

    def __init__(self, plan, folder):
        source = SOURCE.with_name("fake_driver.cpp")
        made = compile_plan(plan, folder / "cuda.so", "-O1", "-shared", "-fPIC", source=source)
        self.path, self.library = made, ctypes.CDLL(str(made))
        self.library.get_launched.restype = ctypes.POINTER(Launched)
        self.fail_with, self.forget = self.library.fail_with, self.library.forget

    @property
    def launched(self):
        return self.library.get_launched().contents

    @property
    def device(self):
        return Driver(self.library).device(0)


class DrivenLayer(HostLayer):
    """A layer whose kernels are launched through the driver."""

    def __init__(self, plan, device):
        super().__init__(plan, None)
        self.device = device

    def _launch(self, direction, call):
        self.device.launch(self.plan._replace(direction=direction), call, self.clusters, 7)
