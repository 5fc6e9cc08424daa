"""The kernels' libraries as custom calls of JAX's programs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path

import jax

from ragged import kernels
from ragged.kernels.recipe import xla_interface


def load_library(source: Path, cell: str, dtype: str) -> ctypes.CDLL | None:
    """Load the library of a source with XLA's headers, compiled or kept; None where there is none.

    Args:
        source: one of `ragged.kernels` with custom calls.
        cell: what is compiled of it.
        dtype: of its arrays.
    """
    include = jax.ffi.include_dir()
    return kernels.load(source, cell, dtype, (include,), xla_interface(Path(include)))


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
