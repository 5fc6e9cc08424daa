"""The CUDA kernels compiled for GPUs, without one: what they need, and how they are kept."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from ragged.kernels.cuda import cubins, nvrtc
from ragged.kernels.cuda.plans import REGISTERS, Gpu, make_plan

pytestmark = pytest.mark.skipif(nvrtc.find_library() is None, reason="NVRTC is not installed")

# Compute capability, cell, hidden units, dtype: the most registers a thread may need and the most
# bytes it may spill, forward and backward. Both leave room to the figures of NVRTC 13.5.
TABLE = {
    (80, "LSTM", 128, "float32"): (128, 0, 128, 64),  # half of its weights lie in shared memory
    (90, "LSTM", 256, "float32"): (128, 0, 208, 0),
    (90, "LSTM", 512, "float32"): (128, 0, 255, 0),
    (90, "GRU", 128, "bfloat16"): (128, 0, 128, 0),
    (90, "RNN_TANH", 64, "float16"): (96, 0, 96, 0),
    (100, "LSTM", 128, "float32"): (128, 0, 128, 0),
}


def plan_of(architecture, cell, hidden, dtype, direction="Forward"):
    gpu = Gpu.of(divmod(architecture, 10))
    return make_plan(cell, direction, hidden, gpu=gpu, dtype=dtype)


@pytest.fixture(scope="module")
def compiled():
    """All kernels of the table: plans and what the compiler made of them."""
    compiler = nvrtc.load_compiler()
    plans = {(k, d): plan_of(*k, d) for k in TABLE for d in ("Forward", "Backward")}
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda plan: cubins.compile_plan(plan, compiler), plans.values())
        return {key: (plans[key], each) for key, each in zip(plans, made, strict=True)}


@pytest.mark.parametrize("key", TABLE, ids=lambda key: "-".join(map(str, key)))
def test_kernels_keep_to_the_table(compiled, key):
    forward, of_forward, backward, of_backward = TABLE[key]
    for direction, registers, spilled in (
        ("Forward", forward, of_forward),
        ("Backward", backward, of_backward),
    ):
        plan, made = compiled[key, direction]
        needed = int(re.search(r"Used (\d+) registers", made.log)[1])
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", made.log)
        assert made.cubin[:4] == b"\x7fELF"
        assert needed <= registers
        assert needed * plan.threads <= REGISTERS
        assert len(spills) == 2
        assert max(map(int, spills)) <= spilled
        assert plan.shared <= plan.gpu.shared


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache folder; and kernels that were loaded before are forgotten."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cubins.load.cache_clear()
    cubins._warn.cache_clear()
    yield tmp_path / "ragged"
    cubins.load.cache_clear()


SMALL = plan_of(90, "RNN_RELU", 8, "float32")


def load_again():
    cubins.load.cache_clear()
    return cubins.load(SMALL)


def never(*_):
    raise AssertionError("compiled again")


def test_a_kernel_is_compiled_once(fresh, monkeypatch):
    cubin = cubins.load(SMALL)
    assert cubin[:4] == b"\x7fELF"
    assert [path.suffix for path in fresh.iterdir()] == [".cubin"]
    monkeypatch.setattr(cubins, "compile_plan", never)
    assert load_again() == cubin


def test_other_plans_and_compilers_make_other_kernels():
    other = SMALL._replace(rows=1)
    assert len({cubins._name(*each) for each in [(SMALL, "1"), (SMALL, "2"), (other, "1")]}) == 3


UNSAFE = {
    "others can write it": lambda path: path.chmod(0o666),
    "it is a link": lambda path: path.symlink_to(path.rename(path.with_suffix(".moved"))),
    "it is cut short": lambda path: path.write_bytes(path.read_bytes()[:500]),
}


@pytest.mark.parametrize("why", UNSAFE)
def test_what_others_could_have_changed_is_compiled_anew(fresh, monkeypatch, why):
    cubin = cubins.load(SMALL)
    (path,) = fresh.iterdir()
    UNSAFE[why](path)
    other = nvrtc.Compiled(b"another", "")
    monkeypatch.setattr(cubins, "compile_plan", lambda *_: other)
    assert load_again() == b"another"
    monkeypatch.setattr(cubins, "compile_plan", never)
    assert load_again() == b"another" != cubin


def test_where_it_cannot_be_kept_it_is_compiled_each_time(fresh):
    fresh.mkdir(mode=0o777)
    fresh.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="cannot be kept: other users can write"):
        assert cubins.load(SMALL)
    assert list(fresh.iterdir()) == []


def test_where_it_cannot_be_written_it_is_compiled_once(fresh, monkeypatch):
    made, compile_plan = [], cubins.compile_plan

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cubins, "seal", refuse)
    monkeypatch.setattr(cubins, "compile_plan", lambda *p: made.append(p) or compile_plan(*p))
    with pytest.warns(RuntimeWarning, match="cannot be kept: .*Read-only file system"):
        assert cubins.load(SMALL)
    assert (len(made), [*fresh.iterdir()]) == (1, [])


def test_gpus_that_the_compiler_does_not_know_have_a_reason():
    assert cubins.gpu_reason(Gpu.of((9, 0))) is cubins.gpu_reason(Gpu.of((12, 0))) is None
    reason = cubins.gpu_reason(Gpu.of((1, 3)))
    assert re.fullmatch(r"NVRTC [\d.]+ compiles nothing for compute capability 1\.3", reason)


def test_what_the_compiler_refuses_is_told(fresh, monkeypatch):
    unknown = SMALL._replace(gpu=SMALL.gpu._replace(capability=(1, 0)))
    with pytest.warns(RuntimeWarning, match="so a slower path runs.*NVRTC"):
        assert cubins.load(unknown) is None


def test_without_a_compiler_or_with_kernels_turned_off_there_is_none(fresh, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    assert not cubins.is_available()
    assert cubins.load(SMALL) is None
    monkeypatch.delenv("RAGGED_KERNELS")
    monkeypatch.setattr(nvrtc, "find_library", lambda: None)
    assert load_again() is None
