"""The compiler flags of kernels, and the names of compiled libraries.

A wheel's build (`hatch_build.py`) loads this file alone, without the package and its dependencies.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

FLAGS = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-shared",
    "-fPIC",
    "-pthread",
)
REALS = {"float32": "float", "float64": "double"}
FUNCTIONS = ("recurrent_forward", "recurrent_backward")  # of every cell's library
CELLS = ("LSTM", "GRU", "RNN_TANH", "RNN_RELU")  # of `cells.hpp`; a library has one
ATTENTION = "ATTENTION"  # has libraries of its own
ATTENTION_FUNCTIONS = ("attention_forward", "attention_backward")
GATED = "GATED"  # residual networks: libraries of its own too
GATED_FUNCTIONS = ("gated_forward", "gated_backward")
XLA = "XLA"  # has one library, which calls those of all cells and dtypes from XLA's programs
SOURCES = {
    **dict.fromkeys(CELLS, "recurrent.cpp"),
    ATTENTION: "attention.cpp",
    GATED: "gated.cpp",
    XLA: "xla.cpp",
}

# The features of an architecture's levels beyond the next lower one, by the names of Linux: `abm`
# has lzcnt, `pni` is SSE3. The highest level comes first.
LEVELS = {
    "x86_64": {
        "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
        "x86-64-v3": {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
        "x86-64-v2": {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"},
    },
    "aarch64": {"armv8-a": {"fp", "asimd"}},
}


def find_levels(cpuinfo: str) -> tuple[str, ...]:
    """List the levels that every processor of a machine has, the best first.

    Args:
        cpuinfo: what `/proc/cpuinfo` says.

    >>> find_levels("flags : fpu sse2"), find_levels("Features : fp asimd evtstrm")
    ((), ('armv8-a',))
    """
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set.intersection(*(set(line.split()) for line in lines)) if lines else set()
    return tuple(
        level
        for levels in LEVELS.values()
        for index, level in enumerate(levels)
        if all(needs <= flags for needs in list(levels.values())[index:])
    )


def name_library(
    source: Path, interface: str, cell: str, dtype: str, level: str, digest: str
) -> str:
    """Name the file of a library that a wheel carries."""
    return "-".join(filter(None, (source.stem, interface, cell, dtype, level, digest))) + ".so"


def choices(cell: str, dtype: str) -> tuple[str, ...]:
    """Return the compiler options for a cell, or what stands in its place, and a dtype.

    >>> choices("GRU", "float32"), choices("ATTENTION", "float64"), choices("XLA", "")
    (('-DCELL=GRU', '-DREAL=float'), ('-DREAL=double',), ())
    """
    of_cell = (f"-DCELL={cell}",) if cell in CELLS else ()
    return *of_cell, *((f"-DREAL={REALS[dtype]}",) if dtype else ())


def functions_of(cell: str) -> tuple[str, ...]:
    """Name the functions of a cell's library, or of what stands in its place.

    >>> functions_of("ATTENTION")
    ('attention_forward', 'attention_backward')
    """
    if cell == XLA:
        return *FUNCTIONS, *ATTENTION_FUNCTIONS, *GATED_FUNCTIONS, "bind_kernels"
    return {ATTENTION: ATTENTION_FUNCTIONS, GATED: GATED_FUNCTIONS}.get(cell, FUNCTIONS)


def digest_sources(flags: Sequence[str], source: Path, headers: Path) -> str:
    """Return a digest of sources and flags, without processor and compiler."""
    parts = [*flags, *read_sources(source, headers)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def read_sources(source: Path, headers: Path) -> Iterable[str]:
    """Read the sources of a library, without a framework's headers."""
    return (path.read_text("utf-8") for path in (source, *sorted(headers.glob("*.hpp"))))


def xla_interface(include: Path) -> str:
    """Return the version of XLA's interface for custom calls, from the headers of jaxlib.

    A library built for one version is not loaded with another.
    """
    path = include / "xla" / "ffi" / "api" / "c_api.h"
    text = path.read_text("utf-8") if path.exists() else ""
    versions = dict(re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", text))
    return f"ffi{versions.get('MAJOR', '?')}.{versions.get('MINOR', '?')}"
