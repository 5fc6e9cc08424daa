"""Kernels in C++: bundled with the package, or compiled at the first use.

The sources beside this file use no framework: they take addresses, torch's and, through the custom
calls of `xla.cpp`, JAX's. A wheel may carry their libraries (see `bundled`). Else a compiler
(`c++`, or what `CXX` names) compiles each once, for both backends; a library is kept in the user's
cache folder under a name derived from sources, compiler and processor. Where it cannot be kept
safely (see `libraries`), each process compiles its own. Without either, or with `RAGGED_KERNELS=0`,
backends run what their framework offers, which is slower and gives the same numbers.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from ragged.errors import KernelError, LengthsError
from ragged.kernels import bundled
from ragged.kernels.libraries import cache_folder, locked, read_sealed, seal, temporary_folder
from ragged.kernels.recipe import (
    ATTENTION,
    CELLS,
    FLAGS,
    GATED,
    REALS,
    XLA,
    choices,
    digest_sources,
    functions_of,
    read_sources,
)

HEADERS = Path(__file__).parent
NATIVE = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler supports
TIMEOUT = 120.0  # seconds for a run of the compiler

_warned: list[str] = []  # at most one warning a process


def available() -> bool:
    """Whether kernels are available: bundled with the package, or by a compiler.

    >>> available() or find_compiler() is None
    True
    """
    return is_enabled() and (bool(bundled.levels()) or find_compiler() is not None)


def describe() -> str:
    """Describe in a few words where kernels come from.

    >>> bool(describe())
    True
    """
    if is_enabled() and bundled.levels():
        return f"came with the package, for {bundled.levels()[0]}"
    return find_compiler() or "none: no C++ compiler, or RAGGED_KERNELS=0"


def find_compiler() -> str | None:
    """Return the command of the C++ compiler for the kernels; None if there is none.

    `CXX` may hold a command with arguments, such as `ccache g++`.

    >>> find_compiler() is None or Path(shlex.split(find_compiler())[0]).exists()
    True
    """
    if not is_enabled():
        return None
    return _which(os.environ.get("CXX", "").strip() or "c++", os.environ.get("PATH"))


def is_enabled() -> bool:
    """Whether kernels may run: `RAGGED_KERNELS` is not 0.

    >>> is_enabled() or not available()
    True
    """
    return os.environ.get("RAGGED_KERNELS") != "0" and os.name == "posix"


@cache  # called for every batch
def _which(compiler: str, path: str | None) -> str | None:
    command = [compiler]
    if not shutil.which(compiler, path=path):
        with suppress(ValueError):  # a quote that is never closed
            command = shlex.split(compiler)
    program = shutil.which(command[0], path=path) if command else None
    if program is None and compiler != "c++":
        _warn(f"CXX is {compiler!r}, which is no program here, so a slower path runs. Correct it.")
    return shlex.join([program, *command[1:]]) if program else None


def load(
    source: Path, cell: str, dtype: str, include: tuple[str, ...] = (), interface: str = ""
) -> ctypes.CDLL | None:
    """Load the library of a file for a cell and a dtype.

    It is bundled with the package, or else cached, or else compiled.

    Args:
        source: a C++ file that includes the headers beside this one and has all `functions_of` it.
        cell: one of `CELLS`, or `ATTENTION`, `GATED` or `XLA`.
        dtype: "float32" or "float64"; "" for `XLA`.
        include: more folders with headers.
        interface: the ABI that a bundled library has to be built for.

    Returns:
        The library; None if there is neither a library nor a compiler. If one cannot be compiled,
        loaded or cached, one warning a process gives the reason.
    """
    is_known = dtype in REALS if cell in (*CELLS, ATTENTION, GATED) else cell + dtype == XLA
    if not is_known or not available():
        return None
    if library := _load_bundled(source, cell, dtype, interface):
        return library
    if compiler := find_compiler():
        return _load(compiler, source, cell, dtype, include)
    _warn_bundled(f"None is for {interface or 'these sources'}.")
    return None


def raise_status(status: int, function: str = "recurrent layer") -> None:
    """Raise the error of a function's status; `Status` of `team.hpp` has the same numbers.

    Raises:
        LengthsError: lengths that are not all between 0 and the width.
        MemoryError: there is not enough memory.
        KernelError: anything else.

    >>> raise_status(0)
    """
    if status == 1:
        expected, remedy = "the valid steps of each row", "Do not change them during the call."
        got = "not all between 0 and the width"
        raise LengthsError.of(function, "lengths", got, expected, remedy)
    if status == 2:
        raise MemoryError(
            f"{function}: no memory is left for the kernels. Give fewer rows at once."
        )
    if status:
        raise KernelError(
            f"{function}: the kernels failed. Set RAGGED_KERNELS=0 to do without them."
        )


def _load_bundled(source: Path, cell: str, dtype: str, interface: str) -> ctypes.CDLL | None:
    try:
        digest = digest_sources((*FLAGS, *choices(cell, dtype)), source, HEADERS)
        path = bundled.find(source, interface, cell, dtype, digest)
        return _open(path, cell, "the build of the package") if path else None
    except OSError as error:
        _warn_bundled(str(error))
    return None


def _warn_bundled(problem: str) -> None:
    fallback = "they are compiled here" if find_compiler() else "a slower path runs"
    _warn(
        f"the kernels that came with the package cannot be used, so {fallback}. {problem} "
        "Install the package anew, or set RAGGED_KERNELS=0."
    )


@cache
def _load(
    compiler: str, source: Path, cell: str, dtype: str, include: tuple[str, ...]
) -> ctypes.CDLL | None:
    folders = [f"-I{HEADERS}", *(f"-I{folder}" for folder in include)]
    command = [*shlex.split(compiler), *FLAGS, *choices(cell, dtype), *folders, str(source)]
    problems = []
    for open_folder in (cache_folder, temporary_folder):
        try:
            version = _run([*shlex.split(compiler), "--version"]).stdout
            key = _key(command, version, source)
            name = "-".join(filter(None, (source.stem, cell, dtype, key))) + ".so"
            with open_folder() as folder, locked(folder, TIMEOUT):
                library = _load_from(folder / name, cell, command)
        except subprocess.TimeoutExpired:
            problems.append(f"It ran for more than {TIMEOUT:g} seconds.")
            break
        except (OSError, subprocess.SubprocessError) as error:
            problems.append((getattr(error, "stderr", None) or str(error)).strip()[-2000:])
            continue
        if problems:
            _warn(
                "the kernels are compiled anew by each process, because they cannot be kept: "
                f"{problems[0]}. Set XDG_CACHE_HOME to a folder that you alone can write."
            )
        return library
    _warn(
        f"the kernels could not be compiled by {compiler}, so a slower path runs. "
        f"Set RAGGED_KERNELS=0 to do without them. {problems[-1]}"
    )
    return None


def _load_from(path: Path, cell: str, command: Sequence[str]) -> ctypes.CDLL:
    """Load a cached library; compile it first if it is missing or damaged."""
    if not read_sealed(path):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            seal(_compile(command, Path(folder)), path)
    try:
        return _open(path, cell, command[0])
    except OSError:
        path.unlink()
        raise


def _open(path: Path, cell: str, origin: str) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    if missing := [name for name in functions_of(cell) if not hasattr(library, name)]:
        raise OSError(f"what {origin} made lacks {missing}")
    return library


def _compile(command: Sequence[str], folder: Path) -> Path:
    library = folder / "made.so"
    for native in NATIVE:
        result = _run([*command, *native, "-o", str(library)], temporary=folder)
        if not result.returncode:
            break
    result.check_returncode()
    if not library.is_file():
        raise FileNotFoundError(f"{command[0]} said that all is well, and made nothing")
    return library


def _run(command: Sequence[str], temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command for a limited time, then kill its process group."""
    environment = os.environ if temporary is None else {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        process_group=0,
    ) as process:
        try:
            output, errors = process.communicate(timeout=TIMEOUT)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _warn(message: str) -> None:
    if not _warned:
        _warned.append(message)
        warnings.warn(f"ragged: {message}", RuntimeWarning, stacklevel=4)


def _key(command: Sequence[str], version: str, source: Path) -> str:
    """Return a digest of everything that affects the library."""
    parts = [*command, version, _processor(), *read_sources(source, HEADERS)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """Describe the processor of `native`; machines may share a home folder."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = ("model name", "flags", "Features", "CPU part")
    features = sorted({line for line in lines if line.startswith(names)})
    return "\n".join([platform.machine(), *features])
