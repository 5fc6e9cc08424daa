"""The CUDA driver, called through ctypes: kernels are loaded and launched on a framework's stream.

It needs neither a toolkit nor a framework. No GPU has run this yet: a library with the driver's
functions, which runs the kernels on the host, stands in for it in the tests.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

from ragged.errors import KernelError
from ragged.kernels.cuda import cubins
from ragged.kernels.cuda.calls import Backward, Forward
from ragged.kernels.cuda.plans import Gpu, Plan

LIBRARY = "libcuda.so.1"
PORTABLE_CLUSTER = 8  # blocks: a larger cluster has to be allowed

# The driver's numbers for attributes of a device and of a kernel.
PROCESSORS, MAJOR, MINOR, SHARED = 16, 75, 76, 97
KERNEL_SHARED, KERNEL_CLUSTER = 8, 14
RELAXED = 2  # what a thread may do while a CUDA graph is captured: all

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDriverGetVersion": (ctypes.c_void_p,),
    "cuDeviceGet": (ctypes.c_void_p, ctypes.c_int),
    "cuDeviceGetName": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cuDeviceGetAttribute": (ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (ctypes.c_void_p, ctypes.c_int),
    "cuCtxPushCurrent_v2": (ctypes.c_void_p,),
    "cuCtxPopCurrent_v2": (ctypes.c_void_p,),
    "cuThreadExchangeStreamCaptureMode": (ctypes.c_void_p,),
    "cuGetErrorName": (ctypes.c_int, ctypes.c_void_p),
    "cuLibraryLoadData": (ctypes.c_void_p, ctypes.c_char_p, *(ctypes.c_void_p,) * 2,
                          ctypes.c_uint, *(ctypes.c_void_p,) * 2, ctypes.c_uint),
    "cuLibraryGetKernel": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p),
    "cuKernelGetFunction": (ctypes.c_void_p, ctypes.c_void_p),
    "cuKernelSetAttribute": (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int),
    "cuLaunchKernel": (ctypes.c_void_p, *(ctypes.c_uint,) * 7, *(ctypes.c_void_p,) * 3),
}  # fmt: skip


class Driver:
    """The functions of the driver that kernels need.

    Args:
        library: with the driver's functions.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, types in _SIGNATURES.items():
            getattr(library, name).argtypes = types
        self._library = library
        self._call("cuInit", 0)

    @cached_property
    def version(self) -> int:
        """The newest CUDA version that the driver supports, such as 13000."""
        version = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(version))
        return version.value

    def device(self, index: int) -> Device:
        """Describe the device that has an index in this process."""
        handle, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        self._call("cuDeviceGet", ctypes.byref(handle), index)
        self._call("cuDeviceGetName", name, len(name), handle)
        return Device(self, handle.value, name.value.decode(errors="replace"))

    @contextmanager
    def relaxed(self) -> Iterator[None]:
        """Let this thread load kernels while a CUDA graph is captured, which does not record it."""
        mode = ctypes.c_int(RELAXED)
        self._call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
        try:
            yield
        finally:
            self._call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(text))
            got = (text.value or b"unknown").decode()
            remedy = "Set RAGGED_KERNELS=0 to do without kernels."
            raise KernelError.of("CUDA driver", function, f"{got} ({status})", "success", remedy)


class Device:
    """A GPU, with the kernels that were loaded for it.

    Args:
        driver: that launches them.
        handle: the driver's of the GPU.
        name: of the GPU.
    """

    def __init__(self, driver: Driver, handle: int, name: str) -> None:
        self.name = name
        self.driver, self._handle = driver, handle
        self._kernels: dict[Plan, ctypes.c_void_p | None] = {}

    @cached_property
    def gpu(self) -> Gpu:
        """What kernels for it are compiled for, with the shared memory that it really has."""
        gpu = Gpu.of((self._attribute(MAJOR), self._attribute(MINOR)))
        return gpu._replace(shared=min(gpu.shared, self._attribute(SHARED)))

    @cached_property
    def processors(self) -> int:
        """How many blocks run at once, one a processor."""
        return self._attribute(PROCESSORS)

    def prepare(self, plan: Plan) -> bool:
        """Load a plan's kernel, compiled or kept; whether there is one."""
        if plan not in self._kernels:
            cubin = cubins.load(plan)
            self._kernels[plan] = None if cubin is None else self._load(plan, cubin)
        return self._kernels[plan] is not None

    def launch(self, plan: Plan, call: Forward | Backward, clusters: int, stream: int) -> None:
        """Launch a kernel; it runs when its stream comes to it.

        Args:
            plan: of the kernel.
            call: its argument, copied by the driver.
            clusters: how many; none is launched for none.
            stream: the handle of a CUDA stream of this device.

        Raises:
            KernelError: it cannot be compiled, or the driver refuses it.
        """
        if not clusters:
            return
        if not self.prepare(plan):
            expected, remedy = "one that can be compiled", "Ask prepare() before."
            raise KernelError.of("launch", "plan", plan, expected, remedy)
        kernel = self._kernels[plan]
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(call))
        sizes = (clusters * plan.cluster, 1, 1, plan.threads, 1, 1, plan.shared)
        with self._current():
            self.driver._call("cuLaunchKernel", kernel, *sizes, stream, arguments, None)

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Let the framework's context of this GPU be this thread's, which may have another or none.

        A thread of autograd's has one once the framework has launched something there.
        """
        self.driver._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self.driver._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    @cached_property
    def _context(self) -> ctypes.c_void_p:
        context = ctypes.c_void_p()
        self.driver._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._handle)
        return context

    def _load(self, plan: Plan, cubin: bytes) -> ctypes.c_void_p:
        library, kernel, function = (ctypes.c_void_p() for _ in range(3))
        nothing = (None, None, 0, None, None, 0)
        call = self.driver._call
        with self._current(), self.driver.relaxed():
            call("cuLibraryLoadData", ctypes.byref(library), cubin, *nothing)
            call("cuLibraryGetKernel", ctypes.byref(kernel), library, cubins.FUNCTION.encode())
            call("cuKernelSetAttribute", KERNEL_SHARED, plan.shared, kernel, self._handle)
            if plan.cluster > PORTABLE_CLUSTER:
                call("cuKernelSetAttribute", KERNEL_CLUSTER, 1, kernel, self._handle)
            # Or it would be loaded at its first launch, which may be captured.
            call("cuKernelGetFunction", ctypes.byref(function), kernel)
        return kernel

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self.driver._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._handle)
        return value.value


@cache
def load_driver() -> Driver | None:
    """Load the driver, once a process; None where there is none that can do it.

    >>> load_driver() is None or load_driver().version > 0
    True
    """
    try:
        return Driver(ctypes.CDLL(LIBRARY))
    except (OSError, AttributeError, KernelError):  # none, one before CUDA 12, one without a GPU
        return None
