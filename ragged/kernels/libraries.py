"""The cache of compiled libraries, where no other user can add or change one.

A library runs in this process with all its rights. So it is loaded only from a folder that this
user owns and no other user can write or replace, and only if complete: its file ends in a digest of
its name and content, which the dynamic loader ignores. Libraries installed with the package may
also belong to root.
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
def cache_folder() -> Iterator[Path]:
    """Create the user's cache folder, if needed, and yield it.

    Raises:
        OSError: there is none, it cannot be made, or another user could change what is in it.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME") or ".")
    folder = (configured if configured.is_absolute() else _home() / ".cache") / "ragged"
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)  # parents too, whatever the umask
    check_folder(folder)
    yield folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create and yield a temporary folder; libraries loaded from it stay loaded.

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
        PermissionError: it is one; the message gives the remedy.
    """
    target = folder.resolve(strict=True)
    for path in _path_prefixes(folder.absolute()):
        status = path.lstat()
        is_last = path == target
        if not _is_owner(status, or_root=installed or not is_last):
            raise PermissionError(f"{str(path)!r} belongs to the user with id {status.st_uid}")
        is_sticky = status.st_mode & stat.S_ISVTX and not is_last  # only owners rename files there
        if stat.S_ISDIR(status.st_mode) and not is_sticky and _others_write(status, installed):
            raise PermissionError(f"other users can write {str(path)!r} (chmod go-w mends it)")


def read_sealed(path: Path, *, installed: bool = False) -> bool:
    """Whether a file is a complete library, written by this user or by who installed it."""
    return read_content(path, installed=installed) is not None


def read_content(path: Path, *, installed: bool = False) -> bytes | None:
    """Read what was sealed in a file; None if it is damaged, or others could have written it."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or not _is_owner(status, or_root=installed):
                return None
            content = file.read()
    except OSError:
        return None
    sealed, digest = content[:-DIGEST], content[-DIGEST:]
    if _others_write(status, installed) or digest != _digest(path.name, sealed):
        return None
    return sealed


def seal(library: Path, path: Path) -> None:
    """Move a library into the cache atomically; several processes may do so at once."""
    content = library.read_bytes()
    with library.open("ab") as file:
        file.write(_digest(path.name, content))
        file.flush()
        os.fsync(file.fileno())
    library.chmod(0o700)
    os.replace(library, path)


@contextmanager
def locked(folder: Path, seconds: float) -> Iterator[None]:
    """Lock a folder for this process; after a timeout continue without the lock."""
    import fcntl  # of POSIX only, as the kernels

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


def _is_owner(status: os.stat_result, *, or_root: bool) -> bool:
    return status.st_uid == os.geteuid() or (or_root and status.st_uid == 0)


def _others_write(status: os.stat_result, installed: bool) -> bool:
    """Whether others can write a file; an installer's umask may leave that to a private group."""
    is_private = installed and _is_own_group(status.st_gid)
    return bool(status.st_mode & (stat.S_IWOTH if is_private else OTHERS_WRITE))


def _is_own_group(group_id: int) -> bool:
    """Whether a group has no other member, as one named like its only user."""
    import grp  # of POSIX only, as the kernels
    import pwd

    try:
        members, user = grp.getgrgid(group_id), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return members.gr_name == user.pw_name and not set(members.gr_mem) - {user.pw_name}


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


def _path_prefixes(path: Path) -> Iterator[Path]:
    """Yield every folder and link that an absolute path resolves through."""
    prefix, remaining = Path("/"), list(reversed(path.parts[1:]))
    yield prefix
    while remaining:
        name = remaining.pop()
        prefix = prefix.parent if name == ".." else prefix / name
        yield prefix
        if prefix.is_symlink():
            target = Path(os.readlink(prefix))
            remaining += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            prefix = Path("/") if target.is_absolute() else prefix.parent
