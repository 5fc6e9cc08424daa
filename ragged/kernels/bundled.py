"""Libraries that came with the package: a wheel may carry some, compiled for a few processors."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ragged.kernels.libraries import check_folder, read_sealed
from ragged.kernels.recipe import find_levels, name_library

FOLDER = Path(__file__).parent / "built"  # a checkout has none
CPUINFO = Path("/proc/cpuinfo")


@cache
def levels() -> tuple[str, ...]:
    """List the levels of this processor that the package has libraries for, the best first."""
    if not FOLDER.is_dir():
        return ()
    found = find_levels(CPUINFO.read_text() if CPUINFO.exists() else "")
    return tuple(level for level in found if any(FOLDER.glob(f"*-{level}-*.so")))


def find(source: Path, interface: str, cell: str, dtype: str, digest: str) -> Path | None:
    """Find the library of a source as it stands for this processor; None if there is none.

    Raises:
        OSError: there is one, which another user could have changed, or which is damaged.
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
