"""Kernels in C++, compiled for this machine when they are first needed.

The headers beside this file hold the loops and know no framework; each backend adds a file that
hands them its arrays. A compiler (`c++`, or what `CXX` names) compiles that file once; the library
is kept in the user's cache folder under a name that follows from sources, compiler and processor.
Without a compiler, or with `RAGGED_KERNELS=0`, backends run what their framework offers, which is
slower and gives the same numbers.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

HEADERS = Path(__file__).parent
FLAGS = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-shared",
    "-fPIC",
    "-pthread",
)
NATIVE = ("-march=native", "-mcpu=native")  # the first that the compiler knows; else neither
REALS = {"float32": "float", "float64": "double"}


def find_compiler() -> str | None:
    """Name the C++ compiler that kernels would be compiled with; None if there is none.

    >>> find_compiler() is None or Path(find_compiler()).exists()
    True
    """
    if os.environ.get("RAGGED_KERNELS") == "0" or os.name != "posix":
        return None
    return _which(os.environ.get("CXX") or "c++", os.environ.get("PATH"))


@cache  # every batch asks
def _which(compiler: str, path: str | None) -> str | None:
    return shutil.which(compiler, path=path)


@cache
def build(source: Path, dtype: str, include: tuple[str, ...] = ()) -> Path | None:
    """Compile a backend's file for a dtype, unless that has been done before.

    Args:
        source: a C++ file that includes the headers beside this one.
        dtype: "float32" or "float64".
        include: more folders with headers.

    Returns:
        The shared library; None, with a warning, if it cannot be compiled here.
    """
    compiler = find_compiler()
    if compiler is None or dtype not in REALS:
        return None
    folders = [f"-I{HEADERS}", *(f"-I{folder}" for folder in include)]
    command = [compiler, *FLAGS, f"-DREAL={REALS[dtype]}", *folders, str(source)]
    try:
        library = _cache_folder() / f"{source.parent.name}-{dtype}-{_key(command, source)}.so"
        if not library.exists():
            _compile(command, library)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        warnings.warn(
            f"ragged: the kernels could not be compiled by {compiler}, so a slower path runs. "
            f"Set RAGGED_KERNELS=0 to do without them. {output[-2000:]}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return library


def _compile(command: Sequence[str], library: Path) -> None:
    """Write the library whole or not at all, as several processes may do at once."""
    library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        for native in ((flag,) for flag in NATIVE):
            found = _run([*command, *native, "-o", str(made)])
            if not found.returncode:
                break
        else:
            found = _run([*command, "-o", str(made)])
            found.check_returncode()
        os.replace(made, library)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ragged"


def _key(command: Sequence[str], source: Path) -> str:
    """Tell apart whatever may make another library."""
    parts = [*command, _run([command[0], "--version"]).stdout, _processor()]
    parts += [path.read_text() for path in (source, *sorted(HEADERS.glob("*.hpp")))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """Describe what `native` means here; a home folder may be shared by several machines."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join([platform.machine(), *sorted({x for x in lines if x.startswith(names)})])
