"""Files and folders that appear whole or not at all, whenever their writing is stopped.

A folder is written beside its place. The old one is moved aside, the new one moved in, and the old
one removed; between the two moves the old one is read where it lies aside.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ragged.errors import CheckpointError

ATTEMPTS = 100

Limits = Mapping[str, int]


def has_leftover(path: Path) -> bool:
    """Whether a killed replacement left the old folder aside, where it can be read."""
    return _aside(path).exists()


def write_file(path: Path, content: bytes) -> None:
    """Write one file, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync(path.parent)


def replace_folder(
    folder: Path,
    files: Mapping[str, bytes],
    mark: str,
    *,
    function: str = "save",
    kind: str = "checkpoint",
) -> None:
    """Put the new folder where the old one is; at every moment one of the two can be read.

    Args:
        folder: its parents are made.
        files: the content of each file.
        mark: the file without which what stands there is not ours to replace.
        function: who writes, for what it says.
        kind: what it writes, likewise.

    Raises:
        CheckpointError: something else stands there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    _check_replaceable(folder, mark, function, kind)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new."))
    try:
        temporary.chmod(0o755)
        for name, content in files.items():
            write_file(temporary / name, content)
        if os.path.lexists(folder):
            os.replace(folder, _aside(folder))
        os.replace(temporary, folder)
    except BaseException:
        _tidy(folder)
        raise
    _sync(folder.parent)
    _remove(_aside(folder))


def _check_replaceable(folder: Path, mark: str, function: str, kind: str) -> None:
    """Refuse to replace what is not ours: a user's file, or a folder of other things."""
    if folder.is_symlink() or not folder.exists() or (folder / mark).exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        got = f"{str(folder)!r}, which is no {kind}"
        expected = f"a new folder, an empty one, or one that {function}() wrote"
        remedy = "Choose another path, or remove what is there."
        raise CheckpointError.of(function, "path", got, expected, remedy)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _tidy(folder: Path) -> None:
    """Undo what an unfinished replacement left: put the old folder back, or remove it."""
    for leftover in folder.parent.glob(f".{folder.name}.new.*"):
        _remove(leftover)
    aside = _aside(folder)
    if os.path.lexists(aside) and not os.path.lexists(folder):
        os.replace(aside, folder)
    _remove(aside)


def _remove(path: Path) -> None:
    """Remove a folder; of a link the link alone, whatever it points at."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make renames outlast a crash of the machine; Windows cannot open folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_folder(folder: Path, required: Limits, optional: Limits) -> dict[str, bytes]:
    """Read files of one and the same folder, though training may replace it in the meantime.

    Args:
        folder: as `replace_folder` wrote it.
        required: the most bytes of each file that must be there.
        optional: the most bytes of each file that may be there.

    Raises:
        CheckpointError: no such folder, a file that is missing or cannot be read.
    """
    for _ in range(ATTEMPTS):
        place = _standing(folder)
        before = _identity(place)
        names = {**required, **{n: m for n, m in optional.items() if os.path.lexists(place / n)}}
        try:
            files = {name: _read_bytes(place / name, most) for name, most in names.items()}
        except CheckpointError:
            if _identity(_standing(folder)) == before:
                raise
            continue
        if _identity(_standing(folder)) == before:
            return files
    got, expected = "being replaced over and over", "it to stand still for a moment"
    raise CheckpointError.of("load", folder, got, expected, "Stop what writes it.")


def _standing(folder: Path) -> Path:
    """The folder, or the one that a replacement has moved aside for now."""
    found = folder if folder.exists() or not _aside(folder).exists() else _aside(folder)
    if not found.is_dir():
        expected = "a checkpoint folder with model.safetensors, config.yaml and state.json"
        raise CheckpointError.of("load", folder, "no folder", expected, "Check the path.")
    return found


def _identity(folder: Path) -> int | None:
    """What tells a folder from another one of its name."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def _read_bytes(path: Path, most: int) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a device or a pipe need never end
            raise OSError(0, "no regular file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > most:
                raise OSError(0, f"more than {most} bytes")
            return file.read()
    except OSError as error:
        raise CheckpointError(
            f"load(): {path.name} of {str(path.parent)!r} cannot be read ({error.strerror}); "
            "expected a whole checkpoint folder. Restore the folder, or load another checkpoint."
        ) from error
