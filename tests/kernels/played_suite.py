"""A plugin for the conformance suite: torch's kernels are those of CUDA, played by the host.

python -m pytest -p tests.kernels.played_suite conformance --backend torch --dtype float32
"""

import ctypes
from functools import partial

from ragged_torch.recurrent import cpp, cuda_kernels, dispatch

from tests.kernels.cuda_host import HOPPER, compile_library


class PlayedDevice:
    """A GPU whose kernels are compiled for the host, one cluster at once."""

    gpu, processors, launches = HOPPER, 1, 0

    def launch(self, plan, call, clusters, stream):
        """Run a kernel on threads of the host."""
        library = ctypes.CDLL(str(compile_library(plan._replace(direction="Forward"))))
        launch = getattr(library, f"launch_{plan.direction}")
        launch(ctypes.byref(call), clusters, ctypes.c_longlong(plan.shared))
        self.launches += 1


DEVICE = PlayedDevice()
TARGET = cuda_kernels.Target(DEVICE, lambda: 0)


def run_arrays(arrays, lengths, call, tokens):
    """Do what `cpp.run_arrays` does."""
    x, h0, c0, *weights = arrays
    return cuda_kernels.run_layer(x, h0, c0, weights, lengths.int(), call, TARGET)


def pytest_configure():
    """Put the kernels in the place of the CPU's."""
    played = partial(cuda_kernels.run, target=TARGET)
    cpp.run_arrays = run_arrays  # of the short way
    cpp.has_kernels = lambda mode, dtype: True  # the CPU's need not be compiled
    dispatch.IMPLEMENTATIONS = tuple(
        each._replace(run=played) if each.name == "kernels" else each
        for each in dispatch.IMPLEMENTATIONS
    )


def pytest_terminal_summary(terminalreporter):
    """Say how often a kernel was launched."""
    terminalreporter.write_line(f"played launches: {DEVICE.launches}")
