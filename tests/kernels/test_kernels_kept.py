"""The folder of compiled libraries: what may be loaded from it, and what happens where none may."""

import os
import re
import shlex
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from ragged import kernels
from ragged.kernels import libraries

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
SOURCE = """
extern "C" int recurrent_forward() { return 7; }
extern "C" int recurrent_backward() { return 8; }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A library as a backend's would be, compiled once for all tests here."""
    folder = tmp_path_factory.mktemp("some_backend")
    (folder / "kernels.cpp").write_text(SOURCE)
    command = [
        *shlex.split(kernels.find_compiler()),
        "-shared",
        "-fPIC",
        str(folder / "kernels.cpp"),
    ]
    subprocess.run([*command, "-o", str(folder / "made.so")], check=True)
    return folder


@pytest.fixture
def place(made, monkeypatch, tmp_path):
    """A process that has loaded nothing and told nothing yet, with a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(kernels, "_warned", [])
    compiler(tmp_path, monkeypatch, f'cp "{made}/made.so" "$out"')
    forget()
    yield tmp_path / ".cache" / "ragged"
    forget()


def compiler(folder, monkeypatch, body):
    """Make a shell script the compiler; it counts its runs, and `$out` is the file to write."""
    script = folder / "compiler"
    script.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo 1 && exit\necho run >> "$0.runs"\n'
        f'for out in "$@"; do :; done\n{body}\n'
    )
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))


def runs(folder):
    path = folder / "compiler.runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def forget():
    kernels._load.cache_clear()
    kernels._which.cache_clear()


def load(made):
    return kernels.load(made / "kernels.cpp", "LSTM", "float32")


def load_again(made):
    """Load as another process would; the loader itself keeps a file that it has seen."""
    forget()
    (path,) = folder_of(load(made)).glob("*.so")
    return path


def folder_of(library):
    return Path(library._name).parent


def test_a_library_is_kept_for_this_user_alone(place, made, tmp_path):
    old = os.umask(0)
    try:
        library = load(made)
    finally:
        os.umask(old)
    assert library.recurrent_forward() == 7
    (path,) = place.iterdir()
    assert str(path) == library._name
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (place.parent, place, path)]
    assert modes == [0o700] * 3
    load_again(made)
    assert runs(tmp_path) == 1


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "text": lambda path: path.write_text("no library"),
    "one bit": lambda path: path.write_bytes(bytes([*(b := path.read_bytes())[:-1], b[-1] ^ 1])),
    "foreign": lambda path: path.write_bytes(Path(sys.executable).read_bytes()[:100_000]),
    "of another name": lambda path: path.write_bytes(sealed_as("another.so", path)),
    "without a seal": lambda path: path.write_bytes(path.read_bytes()[: -libraries.DIGEST]),
    "a link": lambda path: path.symlink_to(path.rename(path.with_suffix(".moved"))),
    "others can write it": lambda path: path.chmod(0o666),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


def sealed_as(name, path):
    content = path.read_bytes()[: -libraries.DIGEST]
    return content + libraries._digest(name, content)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_library_is_built_anew(place, made, tmp_path, damage):
    load(made)
    (path,) = place.iterdir()
    copy = path.with_name("loaded.so")  # what is loaded already must not be written over
    path.rename(copy)
    path.write_bytes(copy.read_bytes())
    copy.unlink()
    path.chmod(0o700)
    DAMAGE[damage](path)
    assert load_again(made) == path
    assert runs(tmp_path) == 2
    assert libraries.read_sealed(path)


@root
def test_another_users_library_is_built_anew(place, made, tmp_path):
    load(made)
    (path,) = place.iterdir()
    os.chown(path, 12345, 12345)
    load_again(made)
    assert (runs(tmp_path), path.stat().st_uid) == (2, os.geteuid())


def others(folder):
    os.chown(folder, 12345, 12345)


UNSAFE = {
    "others can write it": lambda cache: cache.chmod(0o777),
    "its group can write it": lambda cache: cache.chmod(0o770),
    "others can write its parent": lambda cache: cache.parent.chmod(0o757),
    "it is a file": lambda cache: (cache.rmdir(), cache.write_text("")),
    "it leads to where others write": lambda cache: relink(cache, 0o777),
}
OWNED = {
    "another owns it": others,
    "another owns its parent": lambda cache: others(cache.parent),
    "another owns the sticky folder's own": lambda cache: (cache.chmod(0o1777), others(cache)),
}


def relink(cache, mode):
    target = cache.parents[1] / "target"
    target.mkdir()
    target.chmod(mode)
    cache.rmdir()
    cache.symlink_to(target)


@pytest.mark.parametrize("why", [*UNSAFE, *(pytest.param(each, marks=root) for each in OWNED)])
def test_nothing_is_loaded_from_where_others_write(place, made, why):
    place.mkdir(parents=True, mode=0o700)
    {**UNSAFE, **OWNED}[why](place)
    with pytest.warns(RuntimeWarning, match="cannot be kept: .*XDG_CACHE_HOME") as told:
        library = load(made)
    assert len(told) == 1
    assert folder_of(library) != place
    assert library.recurrent_forward() == 7
    assert not folder_of(library).exists()  # it stays loaded
    assert place.is_file() or not list(place.iterdir())
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a process is told once
        assert load(made).recurrent_forward() == 7


def test_a_link_to_a_folder_of_ones_own_is_followed(place, made):
    place.mkdir(parents=True, mode=0o700)
    relink(place, 0o700)
    assert folder_of(load(made)) == place


def test_a_relative_cache_home_is_ignored(place, made, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert folder_of(load(made)) == place
    assert not (tmp_path / "here").exists()


def unknown_home():
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", ["", "relative", "none"])
def test_without_a_home_each_process_compiles(place, made, monkeypatch, home):
    if home == "none":
        monkeypatch.setattr(Path, "home", unknown_home)
    monkeypatch.setenv("HOME", home)
    with pytest.warns(RuntimeWarning, match="home folder|HOME is"):
        assert load(made).recurrent_forward() == 7


def test_no_room_is_told(place, made, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(libraries.os, "fsync", fail)
    with pytest.warns(RuntimeWarning, match="could not be compiled by .*No space left"):
        assert load(made) is None
    assert list(place.iterdir()) == []


def test_where_nothing_is_safe_there_are_no_kernels(place, made, monkeypatch, tmp_path):
    tmp_path.chmod(0o777)
    monkeypatch.setattr(libraries.tempfile, "tempdir", str(tmp_path))
    with pytest.warns(RuntimeWarning, match="a slower path runs.*other users can write"):
        assert load(made) is None


FAILURES = {
    "writes nothing": (":", "made nothing"),
    "writes rubbish": ('echo rubbish > "$out"', "invalid ELF header|file too short"),
    "says rubbish": (r"printf '\377\376\0 no' >&2; exit 1", "no"),
    "lacks the functions": ('c++ -shared -x c++ /dev/null -o "$out"', "lacks .'recurrent_forward'"),
    "ends by a signal": ("kill -9 $$", "died with|SIGKILL"),
    "hangs": ("sleep 1000", "more than 0.3 seconds"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_compiler_that_fails_is_told_once(place, made, monkeypatch, tmp_path, failure):
    body, message = FAILURES[failure]
    compiler(tmp_path, monkeypatch, body)
    if failure == "hangs":
        monkeypatch.setattr(kernels, "TIMEOUT", 0.3)
    begin = time.monotonic()
    with pytest.warns(RuntimeWarning, match="could not be compiled") as told:
        assert load(made) is None
    assert len(told) == 1
    assert re.search(message, str(told[0].message))
    assert time.monotonic() - begin < 60
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("value", ["/no/compiler", "", "'c++", "not_executable"])
def test_a_compiler_that_is_none_is_told(place, made, monkeypatch, tmp_path, value):
    (tmp_path / "not_executable").write_text("")
    monkeypatch.setenv("CXX", str(tmp_path / value) if "_" in value else value)
    if not value:
        assert kernels.find_compiler().endswith("c++")
        return
    with pytest.warns(RuntimeWarning, match="CXX is .*, which is no program"):
        assert kernels.find_compiler() is None
    assert load(made) is None


def test_a_compiler_may_be_a_command_with_arguments(place, made, monkeypatch, tmp_path):
    compiler(tmp_path, monkeypatch, f'[ "$1" = g++ ] && cp "{made}/made.so" "$out"')
    monkeypatch.setenv("CXX", f"{tmp_path}/compiler g++")
    assert load(made).recurrent_forward() == 7


TOGETHER = """
import os, sys
from pathlib import Path
from ragged import kernels

def run():
    child = os.fork()
    if child:
        return child
    os._exit(kernels.load(Path(sys.argv[1]), "LSTM", "float32").recurrent_forward())

children = [run() for _ in range(20)]
print({os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children})
"""


def test_twenty_processes_at_once_compile_once(place, made, monkeypatch, tmp_path):
    compiler(tmp_path, monkeypatch, f'sleep 0.5; cp "{made}/made.so" "$out"')
    command = [sys.executable, "-W", "error", "-c", TOGETHER, str(made / "kernels.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{7}\n", "")
    assert runs(tmp_path) == 1
    assert len(list(place.iterdir())) == 1
