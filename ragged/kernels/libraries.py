"""Where compiled libraries are kept: only where no other user can put or change one.

A library runs in this process with all its rights. So it is loaded only from a folder that this
user owns and no other user can write or replace, and only whole: its file ends in a digest of its
name and content, which the dynamic loader does not look at. What was installed with the package may
be root's too.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
DIGEST = hashlib.sha256().digest_size


@contextmanager
def kept_folder() -> Iterator[Path]:
    """Give the user's cache folder.

    Raises:
        OSError: there is none, it cannot be made, or another user could change what is in it.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME") or ".")
    folder = (given if given.is_absolute() else _home() / ".cache") / "ragged"
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)  # parents too, whatever the umask
    check_folder(folder)
    yield folder


@contextmanager
def passing_folder() -> Iterator[Path]:
    """Give a folder for a moment; what was loaded from it stays loaded.

    Raises:
        OSError: there is no room for one, or another user could change what is in it.
    """
    with tempfile.TemporaryDirectory(prefix="ragged-") as name:
        check_folder(Path(name))
        yield Path(name)


def check_folder(folder: Path, *, installed: bool = False) -> None:
    """Refuse a folder that another user owns, can write, or can put another one in place of.

    Args:
        folder: any folder.
        installed: it is the package's own, which root may own.

    Raises:
        PermissionError: it is one; its message names what to mend.
    """
    place = folder.resolve(strict=True)
    for each in _steps(folder.absolute()):
        found = each.lstat()
        is_last = each == place
        if not _is_owner(found, or_root=installed or not is_last):
            raise PermissionError(f"{str(each)!r} belongs to the user with id {found.st_uid}")
        sticky = found.st_mode & stat.S_ISVTX and not is_last  # each may change only its own there
        if stat.S_ISDIR(found.st_mode) and not sticky and _others_write(found, installed):
            raise PermissionError(f"other users can write {str(each)!r} (chmod go-w mends it)")


def read_sealed(path: Path, *, installed: bool = False) -> bool:
    """Whether a file is a library that this user, or who installed it, put there, whole."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or not _is_owner(found, or_root=installed):
                return False
            content = file.read()
    except OSError:
        return False
    if _others_write(found, installed):
        return False
    return content[-DIGEST:] == _digest(path.name, content[:-DIGEST])


def seal(made: Path, path: Path) -> None:
    """Move a library to where it is kept, whole or not at all, as several processes may do."""
    content = made.read_bytes()
    with made.open("ab") as file:
        file.write(_digest(path.name, content))
        file.flush()
        os.fsync(file.fileno())
    made.chmod(0o700)
    os.replace(made, path)


@contextmanager
def locked(folder: Path, seconds: float) -> Iterator[None]:
    """Let one process at a time do something in a folder; after so long do it all the same."""
    import fcntl  # there is none where there are no kernels

    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + seconds
        with suppress(OSError):  # a file system without locks
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def _is_owner(found: os.stat_result, *, or_root: bool) -> bool:
    return found.st_uid == os.geteuid() or (or_root and found.st_uid == 0)


def _others_write(found: os.stat_result, installed: bool) -> bool:
    """Whether others can write something; installers leave it to a group where the umask does."""
    alone = installed and _is_own_group(found.st_gid)
    return bool(found.st_mode & (stat.S_IWOTH if alone else OTHERS_WRITE))


def _is_own_group(group: int) -> bool:
    """Whether nobody but this user is in a group, as in one that is named like its only user."""
    import grp  # there is none where there are no kernels
    import pwd

    try:
        found, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return found.gr_name == user.pw_name and not set(found.gr_mem) - {user.pw_name}


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def _home() -> Path:
    try:
        home = Path.home() if os.environ.get("HOME") != "" else Path()
    except RuntimeError as error:
        raise FileNotFoundError("there is no home folder") from error
    if not home.is_absolute():
        raise FileNotFoundError(f"HOME is {str(home)!r}, no absolute path")
    return home


def _steps(path: Path) -> Iterator[Path]:
    """Every folder and link that is passed on the way to an absolute path, which is there."""
    here, ahead = Path("/"), list(reversed(path.parts[1:]))
    yield here
    while ahead:
        part = ahead.pop()
        here = here.parent if part == ".." else here / part
        yield here
        if here.is_symlink():
            target = Path(os.readlink(here))
            ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            here = Path("/") if target.is_absolute() else here.parent
