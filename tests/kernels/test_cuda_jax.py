"""JAX's glue of the CUDA kernels, in programs of the CPU, with a library that plays the driver.

The custom calls are those of a GPU but for the stream, as a CPU has none. No GPU has run them.
"""

import ctypes
import shlex
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ragged import kernels
from ragged.errors import KernelError
from ragged.kernels.cuda import cubins, layer
from ragged.kernels.cuda.verdicts import Judge
from ragged.kernels.recipe import xla_interface
from ragged.recurrent.dispatch import LayerCall
from tests.kernels.cuda_cases import LENGTHS, WIDTH, check, solved
from tests.kernels.cuda_fake import keep_verdicts_in
from tests.kernels.cuda_host import HOPPER

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
jax = pytest.importorskip("jax")
glue = pytest.importorskip("ragged_jax.recurrent.cuda_kernels")
import ragged_jax  # noqa: E402
from ragged_jax.recurrent import dispatch, scan  # noqa: E402

jnp = jax.numpy


@pytest.fixture(scope="module")
def target(compiled_driver_of, tmp_path_factory):
    made = tmp_path_factory.mktemp("jax") / "played.so"
    folders = [f"-I{kernels.HEADERS}", f"-I{jax.ffi.include_dir()}"]
    played = f'-DRAGGED_PLAYED="{compiled_driver_of("LSTM").path}"'
    compiler = [*shlex.split(kernels.find_compiler()), *kernels.FLAGS, "-O0", played]
    subprocess.run([*compiler, *folders, str(glue.SOURCE), "-o", str(made)], check=True)
    library = ctypes.CDLL(str(made))
    return glue.Target(HOPPER, 2, glue.register(library, "cpu"), library)


class JaxLayer:
    """A layer in JAX that runs by passes, called as the cases call one."""

    def __init__(self, passes):
        self.passes = passes

    @classmethod
    def launched(cls, target):
        """Make one of our kernels."""
        return cls({name: partial(run, target=target) for name, run in glue.PASSES.items()})

    def forward(self, weights, x, lengths, state, *, layout, width, reverse, resets, to_initial):
        resets = np.zeros((len(lengths), 0), bool) if resets is None else resets
        resets = resets.reshape(len(lengths), -1) if layout == "padded" else resets
        x = jnp.asarray(x, jnp.float32)
        self.shape = (len(lengths), width, -1) if layout == "padded" else (len(x), -1)
        weights = [jnp.asarray(each, jnp.float32) for each in weights.values()]
        self.inputs = [x.reshape(self.shape), *(jnp.asarray(s, jnp.float32) for s in state)]
        self.inputs += weights
        self.rows = jnp.asarray(lengths), jnp.asarray(resets)
        self.options = {"mode": "LSTM", "layout": layout, "width": width, "reverse": reverse}
        self.options |= {"start": "initial" if to_initial else "zeros"}
        forward = partial(self.passes["recurrent_forward"], keep=True, **self.options)
        run = jax.jit(lambda *a: forward(*self.rows, *a))
        y, h, c, kept = run(*self.inputs)
        self.kept = y, kept
        return np.asarray(y).reshape(-1, y.shape[-1]), h, c

    def backward(self, dy, *dstates):
        given = [jnp.asarray(each, jnp.float32) for each in (dy, *dstates)]
        given[0] = given[0].reshape(self.kept[0].shape)
        arrays = (*self.inputs, *self.kept, *given)
        backward = partial(self.passes["recurrent_backward"], wants_x=True, **self.options)
        run = jax.jit(lambda *a: backward(*self.rows, *a))
        dx, dh0, dc0, *weights = (np.asarray(each) for each in run(*arrays))
        return dx.reshape(-1, dx.shape[-1]), *weights, dh0, dc0


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("padded", {}),
        ("packed", {"reverse": True, "resets": True, "to_initial": True}),
    ],
)
def test_outputs_and_gradients_are_the_oracles(fake_driver_of, target, layout, options):
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        check(JaxLayer.launched(target), *solved("LSTM", **options), layout)


def test_lengths_that_are_traced_leave_no_array(fake_driver_of, target):
    case, lengths = solved("LSTM")[0], [3, WIDTH + 1, -1, 2, 0, 1, 1, WIDTH]
    weights = {name: np.asarray(each) for name, each in case.weights.items()}
    options = {"layout": "padded", "width": WIDTH, "reverse": False, "resets": None}
    x = np.ones((8 * WIDTH, 2))
    y, h, _ = JaxLayer.launched(target).forward(
        weights, x, lengths, case.state, **options, to_initial=False
    )  # fmt: skip
    wrong = [not 0 <= length <= WIDTH for length in lengths]
    assert np.isnan(h).all(-1).tolist() == wrong
    assert np.isfinite(h).all(-1).tolist() == [not each for each in wrong]
    assert np.isfinite(y).all()


def test_what_the_driver_refuses_is_named(fake_driver_of, target):
    fake = fake_driver_of("LSTM")
    fake.fail_with(719)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"cuL.* gave 719\. Set RAGGED_KERNELS=0"):
        check(JaxLayer.launched(target), *solved("LSTM"), "padded")


def test_kernels_are_loaded_while_xla_captures_a_graph(fake_driver_of, target, monkeypatch):
    fake = fake_driver_of("LSTM")
    monkeypatch.setattr(glue, "_digest", lambda cubin: "not loaded yet")
    fake.capture(True)
    check(JaxLayer.launched(target), *solved("LSTM"), "padded")


def test_a_kernel_that_this_process_has_not_registered_is_refused(
    fake_driver_of, target, monkeypatch
):
    monkeypatch.setattr(glue, "_register", lambda plan, library: "unknown")
    with pytest.raises(jax.errors.JaxRuntimeError, match="has not registered the kernel unknown"):
        check(JaxLayer.launched(target), *solved("LSTM"), "padded")


def test_without_a_compiler_for_kernels_there_is_a_typed_error(target, monkeypatch):
    monkeypatch.setattr(cubins, "load", lambda plan: None)
    with pytest.raises(KernelError, match="one that can be compiled"):
        check(JaxLayer.launched(target), *solved("LSTM"), "padded")


def test_a_program_for_gpus_has_the_custom_calls(fake_driver_of):
    """Those with a stream, which the others do without; they are compiled and registered here."""
    include = jax.ffi.include_dir()
    interface = xla_interface(Path(include))
    library = kernels.load(glue.SOURCE, "LSTM", "float32", (include,), interface)
    target = glue.Target(HOPPER, 132, glue.register(library, "CUDA"), library)
    case = solved("LSTM")[0]
    options = {"mode": "LSTM", "layout": "padded", "width": WIDTH, "reverse": False}
    run = partial(glue.run_direction, keep=False, target=target, start="zeros", **options)
    arrays = [case.x, *case.state, *case.weights.values()]
    shapes = [jax.ShapeDtypeStruct(each.shape, jnp.float32) for each in arrays]
    lengths, resets = jnp.asarray(LENGTHS), jnp.zeros(0, bool)
    allowed = jax.export.DisabledSafetyCheck.custom_call(target.calls["Forward"])
    program = jax.jit(lambda *given: run(lengths, resets, *given))
    exported = jax.export.export(program, platforms=["cuda"], disabled_checks=[allowed])(*shapes)
    assert exported.mlir_module().count(f'@"{target.calls["Forward"]}"') == 1


def test_without_a_gpu_there_is_no_target():
    assert glue.find_target() is None


CALL = LayerCall("cuda", "float32", hidden_size=5, rows=8, width=WIDTH)


@pytest.fixture
def played(fake_driver_of, target, monkeypatch, tmp_path):
    """Let programs that are lowered here be for the GPU that is played."""
    from ragged_jax import primitives
    from ragged_jax.recurrent import cuda_trial

    find_surrounding = primitives.find_surrounding

    def for_gpu(ctx):
        return "cuda", find_surrounding(ctx)[1]

    keep_verdicts_in(tmp_path, monkeypatch)
    for owner, name, value in (
        (cubins, "is_available", lambda: True),
        (cubins, "digest_sources", lambda: "these"),
        (cuda_trial, "JUDGE", Judge()),
        (cuda_trial, "find_target", lambda: target),
        (glue, "find_target", lambda: target),
    ):
        monkeypatch.setattr(owner, name, value)
    held = []

    def judge(ratio):
        def clock(run):
            held.append(run)
            return ratio if len(held) % 2 else 1.0

        monkeypatch.setattr(cuda_trial.JaxTrial.__init__, "__defaults__", (clock,))
        monkeypatch.setattr(primitives, "find_surrounding", for_gpu)
        return held

    return judge


def test_a_layer_runs_on_them_where_a_trial_says_so(fake_driver_of, played):
    """One trial while a program is lowered; outputs and derivatives are then the same."""
    case = solved("LSTM")[0]
    model = ragged_jax.Recurrent("LSTM", case.x.shape[-1], 5, seed=0)
    x = jnp.asarray(case.x, jnp.float32).reshape(8, WIDTH, -1)
    lengths = jnp.asarray(LENGTHS)

    def loss(x):
        y, (h, c) = model(x, lengths)
        return (y**2).sum() + (h * c).sum()

    expected = jax.jit(jax.value_and_grad(loss))(x)
    held, fake = played(0.5), fake_driver_of("LSTM")
    jax.clear_caches()
    program = jax.jit(jax.value_and_grad(loss)).lower(x).compile()
    assert len(held) == 10
    before = fake.launched.launches
    found = jax.block_until_ready(program(x))
    assert fake.launched.launches - before == 2
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)
    _, moved = jax.jit(partial(jax.jvp, loss))((x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(moved, expected[1].sum(), rtol=1e-5)
    assert len(held) == 10
    jax.clear_caches()


def test_what_is_timed_compiles_nothing(played):
    from ragged_jax.recurrent import cuda_trial

    traces = []

    def noting(run):
        return lambda *given, **options: traces.append(run) or run(*given, **options)

    def clock(run):
        before = len(traces)
        run()
        assert len(traces) == before > 0
        return 1.0

    question = cuda_trial.ask(cuda_trial.find_target(), CALL)
    passes = {key: noting(run) for key, run in scan.PASSES.items()}
    trial = cuda_trial.JaxTrial(question, passes, lambda: passes, clock)
    assert trial.time_kernel() == trial.time_kernel() == trial.time_other() == 1


def test_a_trial_that_fails_late_is_a_verdict(fake_driver_of, played):
    played(0.5)
    fake_driver_of("LSTM").fail_with(719)
    with pytest.warns(RuntimeWarning, match=r"failed on .*cuL.* gave 719"):
        reason = dispatch.recurrent_reasons(CALL)["cuda_kernels"]
    assert reason == "they failed on this GPU"


def test_a_wrong_kernel_is_never_used(played, monkeypatch):
    played(0.5)
    right = layer.multiply_x
    monkeypatch.setattr(layer, "multiply_x", lambda *given: right(*given) + 0.01)
    with pytest.warns(RuntimeWarning, match="never used"):
        reason = dispatch.recurrent_reasons(CALL)["cuda_kernels"]
    assert reason == "they are wrong on this GPU"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"device": "cpu"}, "on a GPU alone"),
        ({"surrounding": "exported"}, "exported"),
        ({}, "2.00 times as long as what runs instead"),
    ],
)
def test_the_dispatch_names_its_reason(played, changed, reason):
    held = played(2.0)
    reasons = dispatch.recurrent_reasons(CALL._replace(**changed))
    assert reason in reasons["cuda_kernels"]
    assert (reasons["scan"], bool(held)) == (None, not changed)
