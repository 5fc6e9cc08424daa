"""Put compiled kernels into a wheel, if asked: `make wheel`, or RAGGED_BUNDLE_KERNELS=1.

Without that variable, and in an editable install, this does nothing: the wheel is pure Python.
RAGGED_WHEEL_ARCH names the architecture to compile for, by default this machine's,
RAGGED_WHEEL_LEVELS its levels, RAGGED_WHEEL_CELLS the cells (and ATTENTION, GATED),
RAGGED_WHEEL_DTYPES the dtypes; unless given, all are.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The C++ library is linked in and hidden: it must not meet the one that a framework brings.
LINK = ("-static-libstdc++", "-static-libgcc", "-Wl,--gc-sections", "-s")
LOADERS = {"x86_64": b"ld-linux-x86-64.so.2", "aarch64": b"ld-linux-aarch64.so.1"}
NEEDED = {b"libc.so.6", b"libm.so.6", b"libpthread.so.0", *LOADERS.values()}


class Kernels(BuildHookInterface):
    """Compile the kernels for each level, and mark the wheel with what they need."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the libraries to what the wheel holds."""
        self._made = None
        if version == "editable" or os.environ.get("RAGGED_BUNDLE_KERNELS") != "1":
            return
        machine = os.environ.get("RAGGED_WHEEL_ARCH", "").strip() or platform.machine()
        if sys.platform != "linux" or machine not in LOADERS:
            raise RuntimeError(f"kernels are bundled on Linux, for one of {list(LOADERS)} only")
        self._made = tempfile.TemporaryDirectory(prefix="ragged-")
        made = _compile_all(Path(self.root, "ragged", "kernels"), Path(self._made.name), machine)
        for path in made:
            build_data["force_include"][str(path)] = f"ragged/kernels/built/{path.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform(made)}_{machine}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clear away what was compiled; it is in the wheel now."""
        if self._made:
            self._made.cleanup()


def _compile_all(kernels: Path, folder: Path, machine: str) -> list[Path]:
    recipe, libraries = (_read(kernels / f"{name}.py") for name in ("recipe", "libraries"))
    levels = _chosen("RAGGED_WHEEL_LEVELS", recipe.LEVELS[machine])
    cells = _chosen("RAGGED_WHEEL_CELLS", (*recipe.CELLS, recipe.ATTENTION, recipe.GATED))
    dtypes = _chosen("RAGGED_WHEEL_DTYPES", recipe.REALS)
    usual = "c++" if machine == platform.machine() else f"{machine}-linux-gnu-g++"
    compiler = shlex.split(os.environ.get("CXX", "").strip() or usual)
    if not shutil.which(compiler[0]):
        raise FileNotFoundError(f"no C++ compiler {compiler[0]!r}. Install it, or set CXX.")
    include = _include_of_jaxlib()
    functions = recipe.functions_of(recipe.XLA)  # all that there are
    exported = folder / "exported"
    exported.write_text(f"{{ global: {' '.join(f'{f};' for f in functions)} local: *; }};")

    def build(cell: str, dtype: str, level: str) -> Path:
        source, chosen = kernels / recipe.SOURCES[cell], recipe.choices(cell, dtype)
        digest = recipe.digest_sources((*recipe.FLAGS, *chosen), source, kernels)
        interface = recipe.xla_interface(include) if cell == recipe.XLA else ""
        path = folder / recipe.name_library(source, interface, cell, dtype, level, digest)
        made = path.with_suffix(".made")
        options = (*recipe.FLAGS, f"-march={level}", *chosen, *LINK)
        folders = (f"-I{kernels}", f"-I{include}", f"-Wl,--version-script={exported}")
        command = [*compiler, *options, *folders, str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)} failed: {done.stderr}")
        libraries.seal(made, path)
        return path

    least = max(levels, key=list(recipe.LEVELS[machine]).index)  # for what does no work
    todo = [*product(cells, dtypes, levels), (recipe.XLA, "", least)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda each: build(*each), todo))


def _chosen(variable: str, known: Iterable[str]) -> list[str]:
    names = os.environ.get(variable, "").split() or list(known)
    if unknown := set(names) - set(known):
        raise ValueError(f"{variable} has {unknown}; there are {list(known)}")
    return names


def _read(path: Path) -> ModuleType:
    """Import a file of the package without the package, which needs NumPy."""
    spec = importlib.util.spec_from_file_location(f"ragged_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _include_of_jaxlib() -> Path:
    found = importlib.util.find_spec("jaxlib")
    if found is None or not found.origin:
        raise ModuleNotFoundError(
            "JAX's kernels need jaxlib's headers. Build in an environment that has jaxlib, with "
            "--no-build-isolation, as `make wheel` does."
        )
    return Path(found.origin).with_name("include")


def _platform(libraries: list[Path]) -> str:
    """Name the oldest Linux that has all the C library's symbols that the libraries call."""
    contents = [path.read_bytes() for path in libraries]
    needed = {
        name for each in contents for name in re.findall(rb"\b(?:lib|ld-)[\w+-]+\.so\.\d+", each)
    }
    if needed - NEEDED:
        raise RuntimeError(f"the kernels need {needed - NEEDED}, which not every Linux has")
    versions = [
        (int(major), int(minor))
        for each in contents
        for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", each)
    ]
    major, minor = max(versions)
    return f"manylinux_{major}_{minor}"
