"""Bundled libraries: a wheel may contain some, compiled for a few levels of processors."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ragged.kernels.libraries import check_folder, read_sealed
from ragged.kernels.recipe import find_levels, name_library

FOLDER = Path(__file__).parent / "built"  # missing in a checkout
CPUINFO = Path("/proc/cpuinfo")


@cache
def levels() -> tuple[str, ...]:
    """List the levels of this processor that the package has libraries for, the best first."""
    if not FOLDER.is_dir():
        return ()
    supported = find_levels(CPUINFO.read_text() if CPUINFO.exists() else "")
    return tuple(level for level in supported if any(FOLDER.glob(f"*-{level}-*.so")))


def find(source: Path, interface: str, cell: str, dtype: str, digest: str) -> Path | None:
    """Find the library of a source for this processor; None if there is none.

    Raises:
        OSError: the library is damaged, or another user could have changed it.
    """
    for level in levels():
        path = FOLDER / name_library(source, interface, cell, dtype, level, digest)
        if path.exists():
            check_folder(FOLDER, installed=True)
            if not read_sealed(path, installed=True):
                raise PermissionError(
                    f"{str(path)!r} is damaged, or others than root and this user can write it"
                )
            return path
    return None
