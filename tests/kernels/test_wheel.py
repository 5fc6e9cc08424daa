"""A wheel that carries the kernels: installed where there is no compiler, it runs on them."""

import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ragged import kernels
from ragged.kernels import bundled, recipe

pytest.importorskip("hatchling")
ROOT = Path(__file__).parents[2]
X86 = recipe.LEVELS["x86_64"]
LEAST = list(X86)[-1]
linux = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64") or kernels.find_compiler() is None,
    reason="wheels with kernels are for Linux on x86-64, and need a compiler",
)


def build(folder, **environment):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", folder, ROOT]
    found = {k: v for k, v in os.environ.items() if not k.startswith("RAGGED_")} | environment
    done = subprocess.run(command, env=found, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = Path(folder).glob("*.whl")
    return path


SCRIPT = """
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

import ragged
from ragged import kernels
from ragged.kernels import bundled

installed, cpuinfo, *backends = sys.argv[1:]
bundled.CPUINFO = Path(cpuinfo)
assert Path(ragged.__file__).is_relative_to(installed), ragged.__file__
assert kernels.find_compiler() is None
x, lengths = np.ones((3, 5, 2), np.float32), [3, 0, 5]


def run_torch(layer):
    import torch

    y, _ = layer(torch.from_numpy(x), lengths)
    y.sum().backward()


def run_jax(layer):
    import jax
    from flax import nnx

    layer(x, lengths)
    gradient = nnx.grad(lambda layer: layer(x, lengths)[0].sum())(layer)
    jax.block_until_ready(gradient)


for backend in backends:
    own = import_module(f"ragged_{backend}.recurrent.cpp")
    calls, call = set(), own._call
    own._call = lambda name, *rest, **options: (calls.add(name), call(name, *rest, **options))[1]
    with ragged.use_backend(backend):
        globals()[f"run_{backend}"](ragged.LSTM(2, 3, seed=0))
    assert calls == {"recurrent_forward", "recurrent_backward"}, calls
    library = kernels.load(own.SOURCE, "LSTM", "float32")
    print(Path(library._name).name)
"""


@linux
def test_an_installed_wheel_runs_on_its_kernels_without_a_compiler(need, tmp_path):
    need("torch", "jax")
    best, *others = recipe.find_levels(bundled.CPUINFO.read_text()) or [None]
    if not others:
        pytest.skip("there are not two levels to choose from")
    asked = {"RAGGED_BUNDLE_KERNELS": "1", "RAGGED_WHEEL_LEVELS": f"{LEAST} {best}"}
    asked |= {"RAGGED_WHEEL_CELLS": "LSTM", "RAGGED_WHEEL_DTYPES": "float32"}  # all take minutes
    quick = tmp_path / "quick"  # how fast they are is measured elsewhere
    quick.write_text(f'#!/bin/sh\nexec {kernels.find_compiler()} "$@" -O0\n')
    quick.chmod(0o755)
    asked["CXX"] = str(quick)
    wheel = build(tmp_path / "dist", **asked)
    assert re.search(r"-py3-none-manylinux_\d+_\d+_x86_64\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as opened:
        built = [name for name in opened.namelist() if "/built/" in name]
        about = opened.read(next(n for n in opened.namelist() if n.endswith("/WHEEL"))).decode()
    assert len(built) == len((LEAST, best)) + len((recipe.XLA,))
    assert "Root-Is-Purelib: false" in about
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", installed, wheel], check=True, capture_output=True)

    lesser = tmp_path / "cpuinfo"
    lesser.write_text("flags : " + " ".join(X86[LEAST]))
    empty = [tmp_path / name for name in ("home", "cache", "bin")]
    for folder in empty:
        folder.mkdir()
    home, cache, path = map(str, empty)
    environment = {"HOME": home, "XDG_CACHE_HOME": cache, "PATH": path, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(installed)
    for cpuinfo, level, backends in (
        (bundled.CPUINFO, best, ("torch", "jax")),
        (lesser, LEAST, ("torch",)),
    ):
        command = [sys.executable, "-W", "error", "-c", SCRIPT, installed, cpuinfo, *backends]
        run = subprocess.run(
            command, cwd=home, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        used = run.stdout.splitlines()
        assert len(used) == len(backends)
        assert all(re.match(f"recurrent.*-float32-{level}-", name) for name in used)
    assert [each for folder in empty for each in folder.rglob("*")] == []


def test_a_wheel_for_another_architecture_is_compiled_and_named_for_it(need, tmp_path):
    need("jax")  # whose headers are used
    compiler, said = tmp_path / "compiler", tmp_path / "said"
    compiler.write_text(
        f'#!/bin/sh\necho "$@" >> {said}\nfor made; do :; done\n'
        'echo libc.so.6 ld-linux-aarch64.so.1 GLIBC_2.17 GLIBC_2.34 > "$made"\n'
    )
    compiler.chmod(0o755)
    asked = {"RAGGED_BUNDLE_KERNELS": "1", "RAGGED_WHEEL_ARCH": "aarch64", "CXX": str(compiler)}
    wheel = build(tmp_path / "dist", **asked)
    assert wheel.name.endswith("-py3-none-manylinux_2_34_aarch64.whl")
    with zipfile.ZipFile(wheel) as opened:
        built = [name for name in opened.namelist() if "/built/" in name]
    commands = said.read_text().splitlines()
    assert len(built) == len(commands) == len(recipe.REALS) * (len(recipe.CELLS) + 2) + 1
    assert all("-armv8-a-" in name for name in built)
    assert all(" -march=armv8-a " in command for command in commands)


def test_unless_asked_a_wheel_is_pure(tmp_path):
    wheel = build(tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as opened:
        assert not [name for name in opened.namelist() if name.endswith(".so")]
