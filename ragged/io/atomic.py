"""Atomic writes of files and folders.

A folder is written beside its path. The old one is renamed to a backup, the new one to the path,
and the backup removed; between the two renames the backup is read.
"""

from __future__ import annotations

import glob
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from ragged.errors import CheckpointError

ATTEMPTS = 100

Limits = Mapping[str, int]


def has_leftover(path: Path) -> bool:
    """Whether a killed replacement left a backup of the old folder, which can be read."""
    return _backup_path(path).exists()


def write_file(path: Path, content: bytes) -> None:
    """Write one file atomically, with the rights that the umask leaves."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def replace_folder(
    folder: Path,
    files: Mapping[str, bytes],
    marker: str,
    *,
    function: str = "save",
    kind: str = "checkpoint",
) -> None:
    """Replace a folder; at every moment the old or the new one can be read.

    Args:
        folder: the path; its parents are created.
        files: the content of each file.
        marker: the file that identifies a folder that may be replaced.
        function: its name, for errors.
        kind: of the content, for errors.

    Raises:
        CheckpointError: the path is another file or folder, or has no name, as "." has none.
    """
    if folder.name in ("", ".."):  # nor would a shell stay in a folder that is replaced
        got, expected = repr(str(folder)), "a path that ends in the name of a folder"
        raise CheckpointError.of(function, "path", got, expected, "Name a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(folder)
    _check_replaceable(folder, marker, function, kind)
    temporary = folder.with_name(f".{folder.name}.new.{secrets.token_hex(8)}")
    try:
        temporary.mkdir()
        for name, content in files.items():
            write_file(temporary / name, content)
        if os.path.lexists(folder):
            os.replace(folder, _backup_path(folder))
        os.replace(temporary, folder)
    except BaseException:
        _clean_up(folder)
        raise
    _sync(folder.parent)
    _remove(_backup_path(folder))


def _check_replaceable(folder: Path, marker: str, function: str, kind: str) -> None:
    """Refuse to replace a file, or a folder of other content."""
    if folder.is_symlink() or not folder.exists() or (folder / marker).exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        got = f"{str(folder)!r}, which is no {kind}"
        expected = f"a new folder, an empty one, or one that {function}() wrote"
        remedy = "Choose another path, or remove what is there."
        raise CheckpointError.of(function, "path", got, expected, remedy)


def _backup_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _clean_up(folder: Path) -> None:
    """Clean up after an unfinished replacement: restore the backup, or remove it."""
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.new.*"):
        _remove(leftover)
    backup = _backup_path(folder)
    if os.path.lexists(backup) and not os.path.lexists(folder):
        os.replace(backup, folder)
    _remove(backup)


def _remove(path: Path) -> None:
    """Remove a folder or file; of a link, the link only."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Flush renames to disk; Windows cannot open folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_folder(folder: Path, required: Limits, optional: Limits) -> dict[str, bytes]:
    """Read files of one version of a folder, which training may replace meanwhile.

    Args:
        folder: as `replace_folder` wrote it.
        required: the maximum bytes of each file that must exist.
        optional: the maximum bytes of each file that may exist.

    Raises:
        CheckpointError: no such folder, a file that is missing or cannot be read.
    """
    for _ in range(ATTEMPTS):
        current = _current_folder(folder)
        inode = _inode(current)
        limits = {**required, **{n: m for n, m in optional.items() if os.path.lexists(current / n)}}
        try:
            files = {name: _read_bytes(current / name, limit) for name, limit in limits.items()}
        except CheckpointError:
            if _inode(_current_folder(folder)) == inode:
                raise
            continue
        if _inode(_current_folder(folder)) == inode:
            return files
    got, expected = "being replaced over and over", "it to stand still for a moment"
    raise CheckpointError.of("load", folder, got, expected, "Stop what writes it.")


def _current_folder(folder: Path) -> Path:
    """Return the folder, or its backup while it is replaced."""
    is_replaced = not folder.exists() and has_leftover(folder)
    current = _backup_path(folder) if is_replaced else folder
    if not current.is_dir():
        expected = "a checkpoint folder with model.safetensors, config.yaml and state.json"
        raise CheckpointError.of("load", folder, "no folder", expected, "Check the path.")
    return current


def _inode(folder: Path) -> int | None:
    """Return the number that identifies a folder, None if there is none."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    try:
        if path.exists() and not path.is_file():  # reading a device or a pipe may never end
            raise OSError(0, "no regular file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > max_bytes:
                raise OSError(0, f"more than {max_bytes} bytes")
            return file.read()
    except OSError as error:
        raise CheckpointError(
            f"load(): {path.name} of {str(path.parent)!r} cannot be read ({error.strerror}); "
            "expected a whole checkpoint folder. Restore the folder, or load another checkpoint."
        ) from error
