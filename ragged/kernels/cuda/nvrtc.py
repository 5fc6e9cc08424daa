"""NVIDIA's runtime compiler, from the wheel that PyTorch's and JAX's CUDA builds bring.

The wheel `nvidia-cuda-nvrtc` alone compiles: it needs neither a GPU, nor a driver, nor a toolkit.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ragged.errors import KernelError

PATTERN = "*/lib/libnvrtc.so.*"  # cu13/lib, cuda_nvrtc/lib
BUILTINS = "libnvrtc-builtins.so.*"  # which older wheels do not find beside them
SONAME = re.compile(r"libnvrtc\.so\.([\d.]+)")  # `.alt` holds another build of the same


class Compiled(NamedTuple):
    """What the compiler made of a kernel, and said of it."""

    cubin: bytes
    log: str


class Compiler:
    """A library of NVRTC.

    Args:
        path: of the library.

    Raises:
        OSError: it cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self._builtins = [ctypes.CDLL(str(each)) for each in path.parent.glob(BUILTINS)]
        self._library = ctypes.CDLL(str(path))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = f"{major.value}.{minor.value}"
        self.architectures = self._find_architectures()

    def compile(
        self, source: str, headers: Mapping[str, str], options: Sequence[str], name: str
    ) -> Compiled:
        """Compile a source.

        Args:
            source: its text.
            headers: texts by the names that it includes them by.
            options: of the compiler.
            name: of the source, in messages.

        Raises:
            KernelError: the compiler refuses it.
        """
        program = ctypes.c_void_p()
        texts = [text.encode() for text in headers.values()]
        names = [each.encode() for each in headers]
        self._check(
            self._library.nvrtcCreateProgram(
                ctypes.byref(program),
                *(source.encode(), name.encode()),
                *(len(headers), _strings(texts), _strings(names)),
            )
        )
        try:
            given = _strings([option.encode() for option in options])
            status = self._library.nvrtcCompileProgram(program, len(options), given)
            log = self._read(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            self._check(status, log)
            return Compiled(self._read(program, "CUBIN"), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _find_architectures(self) -> frozenset[str]:
        """Name the GPUs that it compiles for, such as "sm_90"."""
        count = ctypes.c_int()
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        numbers = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(numbers))
        return frozenset(f"sm_{number}" for number in numbers)

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        content = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, content))
        return content.raw

    def _check(self, status: int, log: str = "") -> None:
        if status:
            error = self._library.nvrtcGetErrorString(status).decode()
            expected, remedy = "success", "Set RAGGED_KERNELS=0 to do without kernels."
            raise KernelError.of("NVRTC", "status", f"{error} {log}".strip(), expected, remedy)


def find_library() -> Path | None:
    """Find the newest library of NVRTC that is installed as a wheel; None if there is none.

    >>> find_library() is None or find_library().exists()
    True
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    found = [path for folder in folders for path in folder.glob(PATTERN)]
    return max(filter(_version, found), key=_version, default=None)


@cache
def load_compiler() -> Compiler | None:
    """Load the compiler, once a process; None if none is installed.

    Raises:
        OSError: it cannot be loaded.
    """
    path = find_library()
    return Compiler(path) if path else None


def _version(path: Path) -> tuple[int, ...]:
    match = SONAME.fullmatch(path.name)
    return tuple(map(int, match[1].split("."))) if match else ()


def _strings(values: Sequence[bytes]) -> Any:
    return (ctypes.c_char_p * len(values))(*values)
