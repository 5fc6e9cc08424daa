"""JAX's binding of cuDNN behind the layers, with cuDNN played by JAX's own reference of it."""

import numpy as np
import pytest

from ragged.kernels.cuda.verdicts import Judge, checked_lengths, describe
from ragged.recurrent.dispatch import LayerCall
from tests.kernels.cuda_cases import LENGTHS, WIDTH, check, solved

jax = pytest.importorskip("jax")
pytest.importorskip("ragged_jax")
import ragged_jax  # noqa: E402
from jax.experimental import rnn  # noqa: E402
from ragged_jax import primitives  # noqa: E402
from ragged_jax.precision import use_tf32  # noqa: E402
from ragged_jax.recurrent import cpp, cuda_trial, cudnn, dispatch  # noqa: E402

from tests.kernels.test_cuda_jax import JaxLayer  # noqa: E402

jnp = jax.numpy
CALL = LayerCall("cuda", "float32", hidden_size=5, rows=8, width=WIDTH)


@pytest.fixture
def played(monkeypatch):
    """Play cuDNN: a length that it refuses gives NaN, and so does padding."""

    def lstm(x, h0, c0, weights, lengths, inputs, hidden, layers, dropout, both_ways, precision):
        assert (lengths.dtype, precision) == (jnp.int32, jax.lax.Precision.HIGHEST)
        sizes = inputs, hidden, layers, both_ways
        unpacked = rnn.unpack_lstm_weights(weights, *sizes)
        given = x, h0, c0, *unpacked, lengths, inputs, hidden, layers, dropout, both_ways
        y, h, c = rnn.lstm_ref(*given)
        valid = jnp.arange(x.shape[1])[None, :, None] < lengths[:, None, None]
        refused = jnp.any((lengths < 1) | (lengths > x.shape[1]))
        y, h, c = (jnp.where(refused, jnp.nan, each) for each in (y, h, c))
        return jnp.where(valid, y, jnp.nan), h, c

    monkeypatch.setattr(rnn, "lstm", lstm)


@pytest.fixture
def gpu(played, monkeypatch, tmp_path):
    """Let programs that are lowered here be for a GPU, whose clock is given."""

    def judge(ratio):
        held = []

        def clock(run):
            held.append(run)
            return ratio if len(held) % 2 else 1.0

        find_surrounding = primitives.find_surrounding
        for owner, name, value in (
            (primitives, "find_surrounding", lambda ctx: ("cuda", find_surrounding(ctx)[1])),
            (cudnn, "find_device", lambda: "Played GPU"),
            (cudnn, "_binding_error", lambda: None),
            (cuda_trial, "JUDGE", Judge()),
            (cuda_trial.JaxTrial.__init__, "__defaults__", (clock,)),
        ):
            monkeypatch.setattr(owner, name, value)
        return held

    cpp.has_kernels("LSTM", "float32")  # are compiled where they are kept: what is judged is not
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.clear_caches()
    yield judge
    jax.clear_caches()


@pytest.mark.parametrize("reverse", [False, True])
def test_outputs_and_gradients_are_the_oracles(played, reverse):
    check(JaxLayer(cudnn.PASSES), *solved("LSTM", reverse=reverse), "padded")


def test_resets_are_left_to_the_scan(played):
    case = solved("LSTM", reverse=True, resets=True, to_initial=True)
    check(JaxLayer(cudnn.PASSES), *case, "padded")


def test_a_layer_runs_on_it_where_a_trial_says_so(gpu, monkeypatch):
    model = ragged_jax.Recurrent("LSTM", 2, 5, seed=0)
    x, lengths = jnp.asarray(solved("LSTM")[0].x, jnp.float32), jnp.asarray(LENGTHS)

    def loss(x):
        y, (h, c) = model(x, lengths)
        return (y**2).sum() + (h * c).sum()

    def moved(x):
        return jax.jvp(loss, (x,), (jnp.ones_like(x),))[1]

    def members(x):
        return jax.vmap(loss)(jnp.stack([x, 2 * x]))

    def curved(x):
        along = jnp.ones_like(x)
        _, reverse_over = jax.jvp(jax.grad(loss), (x,), (along,))
        forward_over = jax.grad(moved)(x)
        return reverse_over, forward_over, jax.jvp(moved, (x,), (along,))[1]

    programs = jax.value_and_grad(loss), moved, members, curved
    expected = [jax.jit(each)(x) for each in programs]
    held = gpu(0.5)
    calls, real = [], rnn.lstm
    monkeypatch.setattr(rnn, "lstm", lambda *given: calls.append(1) or real(*given))
    jax.clear_caches()
    with jax.debug_nans(True):
        jax.jit(loss).lower(x)
        assert len(held) == 10  # one trial
        calls.clear()
        found = [programs[0](x), *(jax.jit(each)(x) for each in programs[1:])]
    assert len(calls) > len(programs)
    assert len(held) == 10
    for actual, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)


def test_a_slower_one_gives_way_to_the_scan_and_info_says_so(gpu, monkeypatch):
    held, rows, real = gpu(2.0), [], rnn.lstm
    monkeypatch.setattr(rnn, "lstm", lambda x, *given: rows.append(len(x)) or real(x, *given))
    with use_tf32(True):  # a trial is held in float32
        reasons = dispatch.recurrent_reasons(CALL)
    assert {*rows} == {*map(len, checked_lengths(CALL.rows))} == {5, 8}
    assert reasons["cudnn"] == "on this GPU they take 2.00 times as long as what runs instead"
    assert (reasons["scan"], len(held)) == (None, 10)
    layer = f"LSTM 5 float32 by cuDNN of JAX {jax.__version__}"
    without = f"as jax {jax.__version__} without it"
    told = f"{layer}, 8 x 16 on Played GPU: 0.50 times as fast {without}, unused"
    assert told in describe()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"device": "cpu"}, "on a GPU alone"),
        ({"mode": "GRU"}, "LSTM in float32 alone"),
        ({"dtype": "bfloat16"}, "LSTM in float32 alone"),
        ({"proj_size": 2}, "no projection"),
        ({"layout": "jagged"}, "padded rows alone"),
        ({"width": 0}, "no step"),
        ({"policy": "never"}, "asks for padding"),
        ({"surrounding": "exported"}, "exported"),
        ({}, "no GPU"),
    ],
)
def test_the_dispatch_names_its_reason(changed, reason):
    assert reason in dispatch.recurrent_reasons(CALL._replace(**changed))["cudnn"]


def test_a_wrong_one_is_never_used(gpu, monkeypatch):
    gpu(0.5)
    right = rnn.lstm
    monkeypatch.setattr(rnn, "lstm", lambda *given: [each + 0.01 for each in right(*given)])
    with pytest.warns(RuntimeWarning, match="never used"):
        reason = dispatch.recurrent_reasons(CALL)["cudnn"]
    assert reason == "they are wrong on this GPU"
