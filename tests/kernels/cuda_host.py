"""The CUDA kernels run by threads of the host that play a GPU, with what goes around them."""

import ctypes
import functools
import hashlib
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import array_api_compat.numpy as xp
import numpy as np

from ragged import kernels
from ragged.kernels import libraries
from ragged.kernels.cuda import calls, layer, plans
from ragged.recurrent.cells import CELLS

SOURCE = Path(__file__).with_name("cuda_host.cpp")
FOLDER = Path(layer.__file__).parent
FLAGS = ("-std=c++20", "-pthread", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror")
HOPPER = plans.Gpu.of((9, 0))


@functools.cache
def compile_library(plan, source=SOURCE):
    """Compile a library of both passes, or find it among those compiled before."""
    flags = ("-O1", "-shared", "-fPIC")
    paths = [source, *sorted(FOLDER.glob("*.[ch]*")), *sorted(kernels.HEADERS.glob("*.hpp"))]
    parts = [*FLAGS, *flags, *plan.options, *(path.read_text() for path in paths)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    with libraries.cache_folder() as folder, libraries.locked(folder, kernels.TIMEOUT):
        kept = folder / f"{source.stem}-{digest}.so"
        if not libraries.read_sealed(kept):
            flags += ("-include", str(precompiled_header(folder, flags)))
            with tempfile.TemporaryDirectory(dir=folder) as made:
                libraries.seal(
                    compile_plan(plan, Path(made) / "made.so", *flags, source=source), kept
                )
    return kept


def precompiled_header(folder, flags):
    """Compile once what the sources include of the standard library: most of each one's time."""
    text = "".join(re.findall(r"^#include <.*>\n", (FOLDER / "threads.hpp").read_text(), re.M))
    digest = hashlib.sha256("\0".join([*FLAGS, *flags, text]).encode()).hexdigest()[:16]
    header = folder / f"threads-{digest}.hpp"
    compiled = header.with_name(f"{header.name}.gch")
    if not compiled.exists():
        header.write_text(text)  # for a compiler that does not take the other
        with tempfile.TemporaryDirectory(dir=folder) as made:
            path = Path(made) / compiled.name
            command = [*shlex.split(kernels.find_compiler()), *FLAGS, *flags]
            subprocess.run([*command, "-x", "c++-header", str(header), "-o", path], check=True)
            path.rename(compiled)
    return header


def compile_plan(plan, made, *flags, source=SOURCE, folder=FOLDER):
    """Compile both passes for the host, cut as a plan of the forward pass is."""
    command = [*shlex.split(kernels.find_compiler()), *FLAGS, *flags, *plan.options]
    command += [f"-I{folder}", str(source), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return made


class HostLayer:
    """One layer in one direction."""

    def __init__(self, plan, *, stored=np.float32, library=None):
        self.plan, self.stored, self.cell = plan, stored, CELLS[plan.cell]
        self.library = library

    def forward(self, weights, x, lengths, state, *, layout="padded", width, reverse=False,
                resets=None, to_initial=False, clusters=2):  # fmt: skip
        """Run it over x `(places, inputs)`: y and the states."""
        self.clusters, self.lengths = clusters, np.asarray(lengths, np.int32)
        self.tables = layer.make_tables(xp, layout, self.lengths, width, len(x))
        self.resets = None if resets is None else np.ascontiguousarray(resets, np.uint8)
        given = [*self.tables[:2], self.lengths, self.tables.order, self.resets]
        self.rows = calls.Rows(*map(_address, given), len(lengths), reverse, to_initial)
        self.x, *self.state = self._store(x, *state)
        self.weights = dict(zip(weights, self._store(*weights.values()), strict=True))
        self.y = np.zeros((len(x), self.plan.hidden), self.stored)
        self.kept = np.full((len(x), self.cell.kept * self.plan.hidden), np.nan, np.float32)
        of_x = layer.multiply_x(xp, self.x, self.weights["weight_ih"], self.weights["bias_ih"])
        found = self._empty_states()
        self._call(
            "Forward", of_x=self._store(of_x)[0], **_named("{}0", self.state),
            weight_hh=self.weights["weight_hh"], bias_hh=self.weights["bias_hh"], y=self.y,
            **_named("{}", found), kept=self.kept,
        )  # fmt: skip
        return self.y, *found

    def backward(self, dy, *dstates):
        """Return the gradients of x, weights and biases, and of the initial states."""
        sums = plans.SUMS[self.plan.cell] * self.plan.hidden
        dsums, h_before = np.zeros((len(self.x), sums), self.stored), np.zeros_like(self.y)
        found, (dy, *dstates) = self._empty_states(), self._store(dy, *dstates)
        self._call(
            "Backward", weight_hh=self.weights["weight_hh"], **_named("{}0", self.state),
            y=self.y, kept=self.kept, dy=dy, **_named("d{}", dstates), dsums=dsums,
            h_before=h_before, **_named("d{}0", found),
        )  # fmt: skip
        arrays = self.x, self.weights["weight_ih"], dsums, h_before, self.tables.valid
        return *layer.differentiate(xp, self.plan.cell, *arrays), *found

    def _call(self, direction, **arrays):
        addresses = {name: _address(array) for name, array in arrays.items()}
        self._launch(direction, calls.CALLS[direction](rows=self.rows, **addresses))

    def _launch(self, direction, call):
        shared = self.plan._replace(direction=direction).shared
        library = self.library or ctypes.CDLL(str(compile_library(self.plan)))
        launch = getattr(library, f"launch_{direction}")
        launch(ctypes.byref(call), self.clusters, ctypes.c_longlong(shared))

    def _store(self, *arrays):
        return [np.ascontiguousarray(array, self.stored) for array in arrays]

    def _empty_states(self):
        return [np.full_like(part, np.nan) for part in self.state]


def _address(array):
    return None if array is None else array.ctypes.data


def _named(name, states):
    """Name h and c; c is null where the cell has none."""
    return dict(zip((name.format("h"), name.format("c")), [*states, None][:2], strict=True))
