"""The kernels' C++ itself: under sanitizers, at its limits of memory and threads, and how exact."""

import ctypes
import functools
import hashlib
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from ragged_conformance.recurrent import MODES, arrays_of

import ragged
from ragged import kernels
from ragged.kernels import bundled, recipe

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
SOURCES = Path(__file__).parent


def compile_source(name, made, *flags, compiler=None):
    """Compile one of `tests/kernels` with the product's headers; what was said if it failed."""
    compiler = compiler or shlex.split(kernels.find_compiler())
    options = ["-std=c++17", "-pthread", *flags, f"-I{kernels.HEADERS}", "-o", str(made)]
    command = [*compiler, *options, str(SOURCES / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


KEPT = Path(sys.prefix) / "harnesses"


def compile_kept(name, source, *flags):
    """Compile a harness, or find it as it was compiled of the same sources before."""
    compiler = kernels.find_compiler()
    version = subprocess.check_output([*shlex.split(compiler), "--version"], text=True)
    paths = [*sorted(SOURCES.glob("*.[ch]pp")), *sorted(kernels.HEADERS.glob("*.[ch]pp"))]
    parts = [compiler, version, kernels._processor(), *flags, *(path.read_text() for path in paths)]
    kept = KEPT / f"{name}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}"
    if not kept.exists():
        KEPT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder:
            made = Path(folder) / "made"
            said = compile_source(source, made, *flags)
            assert not said, said
            for old in KEPT.glob(f"{name}-*"):
                old.unlink()
            made.replace(kept)
    return kept


SANITIZERS = {
    "address": (
        *("-Og", "-fsanitize=address,undefined,float-cast-overflow"),
        *("-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS"),
        # Each access is looked at in a function, not where it is: a fifth less to compile.
        *("--param", "asan-instrumentation-with-call-threshold=0"),
    ),
    "thread": ("-O1", "-fsanitize=thread"),
}


# Cells differ in how many values they have a unit (a ReLU in as many as a tanh), dtypes and levels
# in how many fit a vector, all in the skeleton of all cells, where all threads are too. What is
# made for this processor alone, with the most rows in registers, takes the longest to compile.
CPUINFO = bundled.CPUINFO.read_text() if bundled.CPUINFO.exists() else ""
LOWER = (*recipe.find_levels(CPUINFO)[1:], "native")[0]
SANITIZED = [("address", "LSTM", "float64", "native"), ("address", "GRU", "float32", "native")]
BESIDE = {  # the harness of what is no cell
    kernels.ATTENTION: "attention_harness.cpp",
    kernels.GATED: "gated_harness.cpp",
}
SANITIZED += [("address", cell, "float32", LOWER) for cell in ("RNN_TANH", *BESIDE)]
SANITIZED += [("thread", cell, "float32", LOWER) for cell in ("LSTM", kernels.ATTENTION)]


@functools.cache
def has_sanitizer(name):
    """Whether the compiler has it, and its library."""
    with tempfile.TemporaryDirectory() as folder:
        return not compile_source("nothing.cpp", Path(folder) / "nothing", *SANITIZERS[name])


@pytest.mark.parametrize(("name", "cell", "dtype", "level"), SANITIZED)
def test_sanitizers_find_nothing(name, cell, dtype, level):
    if not has_sanitizer(name):
        pytest.skip(f"the compiler has no sanitizer of {name}")
    flags = (f"-march={level}", *kernels.choices(cell, dtype), *SANITIZERS[name])
    source = BESIDE.get(cell, "harness.cpp")
    made = compile_kept(f"{name}-{cell}-{dtype}-{level}", source, *flags)
    done = subprocess.run([made], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


CROSS, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")


@pytest.mark.skipif(not CROSS or not EMULATOR, reason="no cross compiler, or no qemu-user, here")
@pytest.mark.parametrize("cell", ["LSTM", kernels.ATTENTION])
def test_another_architecture_computes_what_plain_loops_do(tmp_path, cell):
    made, options = tmp_path / "harness", ("-O1", "-static", "-march=armv8-a")
    source = BESIDE.get(cell, "harness.cpp")
    chosen = kernels.choices(cell, "float32")
    assert not compile_source(source, made, *options, *chosen, compiler=[CROSS])
    done = subprocess.run([EMULATOR, made], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def elementary(tmp_path_factory):
    """The kernels' own functions of a dtype, compiled as the product compiles them."""

    @functools.cache
    def load(dtype):
        made = tmp_path_factory.mktemp("elementary") / f"{dtype}.so"
        flags = (*kernels.FLAGS, f"-DREAL={kernels.REALS[dtype]}")
        for native in kernels.NATIVE:
            said = compile_source("elementary.cpp", made, *flags, *native)
            if not said:
                break
        assert not said
        return ctypes.CDLL(str(made))

    return load


def evaluate(library, name, x):
    y = np.empty_like(x)
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (x, y))
    getattr(library, f"evaluate_{name}")(*pointers, ctypes.c_int64(len(x)))
    return y


EXACT = {
    "expm1": np.expm1,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
LIMITS = {"float32": 87, "float64": 708}  # beyond them e^x or e^-x is no normal number


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", EXACT)
def test_functions_are_right_to_three_units_of_the_last_place(elementary, name, dtype):
    if dtype == "float64" and np.finfo(np.longdouble).eps >= np.finfo(dtype).eps:
        pytest.skip("nothing here is more exact than float64")
    drawn, limit = np.random.default_rng(0), LIMITS[dtype]
    tiny = np.finfo(dtype).tiny
    x = np.concatenate([np.geomspace(tiny, limit, 20_000), np.linspace(0, limit, 20_000)])
    x = np.concatenate([x, drawn.uniform(0, 2, 20_000), drawn.uniform(0, 40, 20_001)])
    x = np.sort(np.concatenate([-x, x])).astype(dtype)
    found, expected = evaluate(elementary(dtype), name, x), EXACT[name](x.astype(np.longdouble))
    unit = np.spacing(np.abs(expected).astype(dtype))
    assert np.abs((found - expected) / unit).max() <= 3


@pytest.mark.parametrize("dtype", LIMITS)
def test_functions_saturate_and_let_nothing_vanish(elementary, dtype):
    limit, inf = LIMITS[dtype], np.inf
    for beyond in (1.001 * limit, 2 * limit, 1e30, inf):
        x = np.array([-beyond, beyond], dtype)
        assert evaluate(elementary(dtype), "sigmoid", x).tolist() == [0, 1]
        assert evaluate(elementary(dtype), "tanh", x).tolist() == [-1, 1]
    wide = np.linspace(-2 * limit, 2 * limit, 10_001).astype(dtype)
    for name, bounds in (("sigmoid", (0, 1)), ("tanh", (-1, 1))):
        found = evaluate(elementary(dtype), name, wide)
        assert (found.min(), found.max()) == bounds
        assert (np.diff(found) >= -4 * np.finfo(dtype).eps).all()
    for name in EXACT:
        for count in (1, 7, 16, 17):  # in every lane, alone too
            x = np.zeros(count, dtype)
            x[-1] = np.nan
            found = evaluate(elementary(dtype), name, x)
            assert np.isnan(found).tolist() == np.isnan(x).tolist()


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("is_turned", [False, True])
def test_products_of_every_tile_are_exact(elementary, dtype, is_turned):
    """Of small whole numbers, whose sums no order rounds."""
    library, drawn, count = elementary(dtype), np.random.default_rng(0), 7
    lanes = (ctypes.c_int64 * 4).in_dll(library, "boundaries")[3] // 4
    for rows, vectors in itertools.product(range(1, 15), range(1, 10)):
        shapes = (rows, count), (count, vectors * lanes), (rows, vectors * lanes)
        a, b, c = (drawn.integers(-9, 10, shape).astype(dtype) for shape in shapes)
        given, found = np.ascontiguousarray(a.T if is_turned else a), c.copy()
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (given, b, found))
        sizes = map(ctypes.c_int64, (rows, vectors, count))
        library.evaluate_product(*sizes, ctypes.c_bool(is_turned), *pointers)
        assert (found == c + a @ b).all()


def test_sizes_of_tests_are_past_every_boundary(elementary):
    """What the conformance suite and the harness run follows from these."""
    for dtype in LIMITS:
        found = (ctypes.c_int64 * 4).in_dll(elementary(dtype), "boundaries")
        assert all(size <= most for size, most in zip(found, (48, 128, 6, 64), strict=True))


@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_at_a_valid_step_goes_on_as_ieee_has_it(need, mode, backend, value):
    need(backend)
    lengths, x = [4, 3, 5, 4], np.random.default_rng(0).normal(size=(4, 5, 2))
    x[1, 1, 0] = value
    with ragged.use_backend(backend) as chosen:
        layer = MODES[mode].build(2, 3, seed=0)
        parameters = chosen.get_parameters(layer)
        found = layer(x.astype(np.float32), ragged.Lengths(lengths, 5))
    with np.errstate(all="ignore"):
        expected = MODES[mode].oracle(parameters, x, lengths)
    for got, right in zip(arrays_of(found), arrays_of(expected), strict=True):
        np.testing.assert_allclose(chosen.to_numpy(got), right, rtol=1e-5, atol=1e-6)


AT_THE_LIMIT = """
import resource, torch, ragged
from pathlib import Path
torch.manual_seed(0)
with ragged.use_backend("torch"):
    layer = ragged.LSTM(16, 64, seed=0)
x, lengths = torch.randn(16, 20, 16), [20] * 12 + [0] * 4

def run():
    y, _ = layer(x, lengths)
    y.square().sum().backward()
    return float(y.detach().double().sum()), layer.weight_ih_l0.grad.clone()

def limit(more):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))

total, gradient = run()
layer.zero_grad()
torch.get_num_threads = lambda: 64  # of the kernels alone: torch's own do not survive this
limit(7 << 20)  # no stack for a thread
again, other = run()
assert abs(again - total) < 1e-3, (again, total)
assert torch.allclose(other, gradient, rtol=1e-3, atol=1e-3)  # which imports nothing
x = torch.randn(4, 3, 4096)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
with ragged.use_backend("torch"):
    layer = ragged.LSTM(4096, 64, seed=0)
limit(1 << 20)
try:
    layer(x, [3] * 4)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_without_memory_there_is_an_error_and_without_threads_there_are_fewer(need):
    need("torch")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AT_THE_LIMIT],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stderr == ""
    assert (
        done.stdout
        == "recurrent layer: no memory is left for the kernels. Give fewer rows at once.\n"
    )
