"""Compiled kernels, kept like the C++ libraries.

A cubin runs on the GPU with all rights of this process there. So the same rules hold as for a
library: it is read only from a folder that this user owns and no other user can write, and only if
it is complete (see `libraries`). Where it cannot be kept, each process compiles its own.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ragged import kernels
from ragged.errors import KernelError
from ragged.kernels.cuda import nvrtc
from ragged.kernels.cuda.plans import Gpu, Plan
from ragged.kernels.libraries import cache_folder, locked, read_content, seal

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "recurrent.cu"
FUNCTION = "recurrent"  # the kernel's name in a cubin

# Functions of the sources are the device's unless they say otherwise: `cells.hpp` is the CPU's too.
# Division need not be right to the last bit. The assembler says what a kernel needs.
OPTIONS = (
    "--std=c++17",
    "--device-as-default-execution-space",
    "--prec-div=false",
    "--ptxas-options=-v",
)


def is_available() -> bool:
    """Whether kernels for GPUs can be compiled: there is NVRTC, and `RAGGED_KERNELS` is not 0.

    >>> is_available() or nvrtc.find_library() is None or not kernels.is_enabled()
    True
    """
    return kernels.is_enabled() and nvrtc.find_library() is not None


def gpu_reason(gpu: Gpu) -> str | None:
    """Say why nothing can be compiled for a GPU; None = it can, or the first kernel will tell."""
    try:
        compiler = nvrtc.load_compiler()
    except OSError:
        return None
    if compiler is None or gpu.architecture in compiler.architectures:
        return None
    major, minor = gpu.capability
    return f"NVRTC {compiler.version} compiles nothing for compute capability {major}.{minor}"


@cache
def load(plan: Plan) -> bytes | None:
    """Return the cubin of a plan: kept, or else compiled.

    Returns:
        The cubin; None if there is no compiler. If it cannot be compiled or kept, one warning a
        reason says so.
    """
    if not is_available():
        return None
    try:
        compiler = nvrtc.load_compiler()
        return None if compiler is None else _load(plan, compiler)
    except (KernelError, OSError) as error:
        _warn(f"no kernel could be compiled for the GPU, so a slower path runs. {error}")
    return None


def compile_plan(plan: Plan, compiler: nvrtc.Compiler) -> nvrtc.Compiled:
    """Compile a plan.

    Raises:
        KernelError: the compiler refuses it.
    """
    return compiler.compile(SOURCE.read_text("utf-8"), _headers(), _options(plan), SOURCE.name)


def digest_sources() -> str:
    """Return a digest of all that kernels are made of but their plans: sources and compiler.

    Raises:
        OSError: the compiler cannot be loaded.
    """
    compiler = nvrtc.load_compiler()
    return _digest(compiler.version if compiler else "", OPTIONS)


def describe() -> str:
    """Describe in a few words where kernels for GPUs come from.

    Raises:
        OSError: the compiler cannot be loaded.

    >>> bool(describe())
    True
    """
    compiler = nvrtc.load_compiler() if kernels.is_enabled() else None
    if compiler is None:
        return "none: nvidia-cuda-nvrtc is not installed, or RAGGED_KERNELS=0"
    return f"compiled by NVRTC {compiler.version}"


def _load(plan: Plan, compiler: nvrtc.Compiler) -> bytes:
    cubin = None
    try:
        with cache_folder() as folder, locked(folder, kernels.TIMEOUT):
            path = folder / _name(plan, compiler.version)
            if (kept := read_content(path)) is not None:
                return kept
            cubin = compile_plan(plan, compiler).cubin
            _keep(cubin, path)
    except OSError as error:
        _warn(
            f"kernels for the GPU are compiled anew by each process, because they cannot be kept: "
            f"{error}. Set XDG_CACHE_HOME to a folder that you alone can write."
        )
    return cubin or compile_plan(plan, compiler).cubin


def _keep(cubin: bytes, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "made.cubin"
        made.write_bytes(cubin)
        seal(made, path)


def _name(plan: Plan, version: str) -> str:
    """Name a cubin by what it is, and by a digest of all that it is made of."""
    sizes = f"{plan.hidden}-{plan.rows}-{plan.dtype}-{plan.gpu.architecture}"
    return f"{plan.cell}-{plan.direction}-{sizes}-{_digest(version, _options(plan))}.cubin"


@cache
def _digest(version: str, options: Sequence[str]) -> str:
    """Return a digest of sources, compiler and options."""
    parts = [version, *options, SOURCE.read_text("utf-8")]
    parts += [text for each in sorted(_headers().items()) for text in each]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _options(plan: Plan) -> tuple[str, ...]:
    return (f"--gpu-architecture={plan.gpu.architecture}", *OPTIONS, *plan.options)


@cache
def _headers() -> Mapping[str, str]:
    """The texts of the headers, by the names that the sources include them by."""
    own = {path.name: path for path in FOLDER.glob("*.cuh")}
    shared = {f"../{name}": FOLDER.parent / name for name in ("cells.hpp", "device_rows.hpp")}
    paths = {**own, **shared}
    return {name: path.read_text("utf-8") for name, path in paths.items()}


@cache
def _warn(message: str) -> None:
    warnings.warn(f"ragged: {message}", RuntimeWarning, stacklevel=4)
