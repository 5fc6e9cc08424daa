"""The kernels' libraries as custom calls of JAX's programs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import jax

from ragged import kernels
from ragged.kernels.recipe import (
    ATTENTION,
    ATTENTION_FUNCTIONS,
    CELLS,
    FUNCTIONS,
    GATED,
    GATED_FUNCTIONS,
    REALS,
    SOURCES,
    XLA,
    functions_of,
    xla_interface,
)

CALLED = kernels.HEADERS / SOURCES[XLA]


def load_library(source: Path, cell: str, dtype: str) -> ctypes.CDLL | None:
    """Load the library of a source with XLA's headers, compiled or kept; None where there is none.

    Args:
        source: one of `ragged.kernels` with custom calls.
        cell: what is compiled of it.
        dtype: of its arrays.
    """
    include = jax.ffi.include_dir()
    return kernels.load(source, cell, dtype, (include,), xla_interface(Path(include)))


def load_kernels(source: Path, cell: str, dtype: str) -> str | None:
    """Let XLA's programs call the kernels of a cell and a dtype.

    Returns:
        The version, which ends the names of the custom calls; None where there are no kernels.
    """
    if (library := kernels.load(source, cell, dtype)) is None or (called := _calls()) is None:
        return None
    calls, version = called
    pointers = (ctypes.cast(getattr(library, f), ctypes.c_void_p) for f in functions_of(cell))
    places = (*CELLS, ATTENTION, GATED).index(cell), list(REALS).index(dtype)
    calls.bind_kernels(*map(ctypes.c_int64, places), *pointers)
    return version


@cache
def _calls() -> tuple[ctypes.CDLL, str] | None:
    library = load_library(CALLED, XLA, "")
    if library is None:
        return None
    functions = *FUNCTIONS, *ATTENTION_FUNCTIONS, *GATED_FUNCTIONS
    return library, register(library, functions, "cpu")


def register(
    library: ctypes.CDLL, functions: Iterable[str], platform: str, *, prefix: str = ""
) -> str:
    """Make functions of a library known to XLA, by `FUNCTION_` and the name that is returned.

    It is the library's own name: a program that XLA has kept may call another version's.
    """
    version = f"{prefix}{Path(library._name).stem}"
    for function in functions:
        handler = jax.ffi.pycapsule(getattr(library, function))
        jax.ffi.register_ffi_target(f"{function}_{version}", handler, platform=platform)
    return version
