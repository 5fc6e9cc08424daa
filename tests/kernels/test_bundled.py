"""Libraries that came with the package: which is taken, and which are refused."""

import os
import re
import shlex
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from ragged import kernels
from ragged.kernels import bundled, libraries, recipe

compiled = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
V4, V3, V2 = recipe.LEVELS["x86_64"]
BELOW = {
    V2: "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
    V3: "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
    V4: "avx512f avx512bw avx512cd avx512dq avx512vl",
}
HASWELL = f"fpu sse2 {BELOW[V2]} {BELOW[V3]}"
SKYLAKE = f"{HASWELL} {BELOW[V4]}"


def cpuinfo(*processors):
    return "".join(f"processor\t: {i}\nflags\t\t: {p}\n\n" for i, p in enumerate(processors))


def without(flag, flags):
    return " ".join(each for each in flags.split() if each != flag)


@pytest.mark.parametrize(
    ("processors", "levels"),
    [
        ([SKYLAKE], (V4, V3, V2)),
        ([HASWELL, HASWELL], (V3, V2)),
        ([BELOW[V2]], (V2,)),
        (["fpu sse2"], ()),
        ([], ()),
        ([SKYLAKE, HASWELL], (V3, V2)),  # a process may be moved to the lesser one
        ([f"{BELOW[V2]} {BELOW[V4]}"], (V2,)),  # each level has all of those below it
        *(([without(flag, SKYLAKE)], (V3, V2)) for flag in BELOW[V4].split()),
        *(([without(flag, SKYLAKE)], (V2,)) for flag in BELOW[V3].split()),
        *(([without(flag, SKYLAKE)], ()) for flag in BELOW[V2].split()),
    ],
)
def test_the_levels_are_those_that_every_processor_has(processors, levels):
    assert recipe.find_levels(cpuinfo(*processors)) == levels


@compiled
def test_a_compiler_agrees_on_this_processor(tmp_path):
    lines = (f'if (__builtin_cpu_supports("{level}")) puts("{level}");' for level in (V4, V3, V2))
    source = "#include <cstdio>\nint main() { " + " ".join(lines) + " }"
    command = [*shlex.split(kernels.find_compiler()), "-x", "c++", "-", "-o", tmp_path / "program"]
    made = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    if made.returncode or not bundled.CPUINFO.exists():
        pytest.skip("no compiler that knows the levels")
    found = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    assert recipe.find_levels(bundled.CPUINFO.read_text()) == tuple(found.stdout.split())


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library that any backend's may be, compiled once for all tests here."""
    folder = tmp_path_factory.mktemp("library")
    functions = "".join(f'extern "C" int {name}() {{ return 7; }}\n' for name in recipe.FUNCTIONS)
    (folder / "made.cpp").write_text(functions)
    command = [*shlex.split(kernels.find_compiler()), "-shared", "-fPIC", str(folder / "made.cpp")]
    subprocess.run([*command, "-o", str(folder / "made.so")], check=True)
    return folder / "made.so"


@pytest.fixture
def package(library, monkeypatch, tmp_path):
    """An installed package with a library for v2 and v3, on a processor that has both."""
    folder, source = tmp_path / "built", tmp_path / "some.cpp"
    folder.mkdir(mode=0o755)
    source.write_text(library.with_suffix(".cpp").read_text())
    (tmp_path / "cpuinfo").write_text(cpuinfo(HASWELL))
    monkeypatch.setattr(bundled, "FOLDER", folder)
    monkeypatch.setattr(bundled, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(kernels, "_warned", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = (*kernels.FLAGS, *recipe.choices("LSTM", "float32"))
    digest = recipe.digest_sources(flags, source, kernels.HEADERS)
    for level in (V2, V3):
        copy = shutil.copy(library, tmp_path / "copy.so")
        path = folder / recipe.name_library(source, "abi1", "LSTM", "float32", level, digest)
        libraries.seal(Path(copy), path)
        path.chmod(0o644)  # as it is installed
    forget()
    yield source
    forget()


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def forget():
    kernels._load.cache_clear()
    bundled.levels.cache_clear()


def load(source, interface="abi1"):
    return kernels.load(source, "LSTM", "float32", interface=interface)


def is_bundled(found):
    return Path(found._name).parent == bundled.FOLDER


@compiled
def test_what_came_with_the_package_needs_no_compiler(package, no_compiler, tmp_path):
    assert kernels.find_compiler() is None
    assert kernels.available()
    found = load(package)
    assert is_bundled(found)
    assert V3 in found._name
    assert found.recurrent_forward() == 7
    assert V3 in kernels.describe()
    assert not (tmp_path / "cache").exists()


@compiled
def test_it_is_taken_before_a_compiler_is_asked(package, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "/no/compiler")  # which is told where one is needed
    assert kernels.available()
    assert is_bundled(load(package))
    assert not (tmp_path / "cache").exists()


@compiled
def test_a_lesser_processor_gets_its_own(package, no_compiler):
    bundled.CPUINFO.write_text(cpuinfo(BELOW[V2]))
    assert V2 in load(package)._name
    bundled.CPUINFO.write_text(cpuinfo("fpu"))
    forget()
    assert not kernels.available()
    assert load(package) is None


@compiled
def test_a_better_processor_gets_the_best_there_is(package, no_compiler):
    bundled.CPUINFO.write_text(cpuinfo(SKYLAKE))
    assert V3 in load(package)._name


@compiled
def test_all_is_turned_off(package, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    assert not kernels.available()
    assert load(package) is None
    assert "none" in kernels.describe()


STALE = {
    "the source": lambda source: source.write_text(source.read_text() + "// more\n"),
    "the flags": lambda source: None,
    "the interface": lambda source: None,
}


@compiled
@pytest.mark.parametrize("what", STALE)
def test_a_stale_one_is_never_loaded(package, monkeypatch, what):
    STALE[what](package)
    if what == "the flags":
        monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, "-O0"))
    interface = "abi2" if what == "the interface" else "abi1"
    assert not is_bundled(load(package, interface))  # compiled, without a word
    forget()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(RuntimeWarning, match=f"a slower path runs. None is for {interface}") as told:
        assert load(package, interface) is None
    assert len(told) == 1


UNSAFE = {
    "others can write it": lambda path: path.chmod(0o666),
    "its group can write it": lambda path: path.chmod(0o664),
    "others can write its folder": lambda path: path.parent.chmod(0o777),
    "others can write the folder above": lambda path: path.parents[1].chmod(0o777),
    "it is a link": lambda path: path.symlink_to(path.rename(path.with_suffix(".moved"))),
    "it is cut short": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "it is of another name": lambda path: shutil.copy(next(path.parent.glob(f"*{V2}*")), path),
}
OWNED = {
    "another owns it": lambda path: os.chown(path, 12345, 12345),
    "another owns its folder": lambda path: os.chown(path.parent, 12345, 12345),
}


@compiled
@pytest.mark.parametrize("why", [*UNSAFE, *(pytest.param(each, marks=root) for each in OWNED)])
def test_what_others_can_change_is_refused(package, no_compiler, monkeypatch, why):
    monkeypatch.setattr(libraries, "_is_own_group", lambda group: False)
    (path,) = bundled.FOLDER.glob(f"*{V3}*")
    {**UNSAFE, **OWNED}[why](path)
    with pytest.warns(RuntimeWarning, match="came with the package cannot be used") as told:
        assert load(package) is None
    assert len(told) == 1
    assert re.search("a slower path runs.*Install the package anew", str(told[0].message))
    kernels._load.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a process is told once
        assert load(package) is None


@compiled
def test_one_that_is_refused_is_compiled(package):
    for path in bundled.FOLDER.iterdir():
        path.chmod(0o666)
    with pytest.warns(RuntimeWarning, match="so they are compiled here"):
        assert not is_bundled(load(package))


@compiled
def test_the_users_own_group_may_write_it(package, no_compiler, monkeypatch):
    monkeypatch.setattr(libraries, "_is_own_group", lambda group: True)
    bundled.FOLDER.chmod(0o775)  # what the umask 002 makes
    for path in bundled.FOLDER.iterdir():
        path.chmod(0o664)
    assert is_bundled(load(package))


@compiled
@root
def test_root_may_have_installed_it(package, no_compiler, monkeypatch):
    monkeypatch.setattr(libraries.os, "geteuid", lambda: 12345)
    assert is_bundled(load(package))


def test_a_wheel_exports_what_each_library_is_loaded_for():
    exported = recipe.functions_of(recipe.XLA)  # the one list that all are linked with
    assert {f for cell in recipe.SOURCES for f in recipe.functions_of(cell)} <= set(exported)
