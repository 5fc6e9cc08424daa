"""Kernels compiled for this machine: what is built, what happens where it cannot be."""

import ctypes
import warnings
from pathlib import Path

import numpy as np
import pytest
from ragged_conformance.recurrent import MODES, arrays_of

import ragged
from ragged import kernels
from ragged.errors import LengthsError
from ragged.kernels import recipe
from ragged.recurrent.cells import CELLS
from ragged.recurrent.explain import recurrent_reasons

compiled = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache folder, for this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, "-O0"))
    kernels._load.cache_clear()
    yield tmp_path / "ragged"
    kernels._load.cache_clear()


@pytest.fixture
def source(tmp_path):
    """A small file in a backend's place."""
    path = tmp_path / "some_backend" / "kernels.cpp"
    path.parent.mkdir()
    path.write_text(
        '#include "cells.hpp"\nextern "C" int recurrent_forward() { return sizeof(REAL); }\n'
        'extern "C" int recurrent_backward() { return ragged::CELL<REAL>::GATES; }\n'
    )
    return path


@compiled
def test_a_library_is_compiled_once(fresh, source, monkeypatch):
    library = kernels.load(source, "LSTM", "float32")
    kernels._load.cache_clear()
    monkeypatch.setattr(kernels, "_compile", None)  # a second process finds it there
    assert kernels.load(source, "LSTM", "float32")._name == library._name
    assert [str(path) for path in fresh.iterdir()] == [library._name]


@compiled
def test_other_sources_dtypes_and_processors_make_other_libraries(fresh, source, monkeypatch):
    made = [kernels.load(source, "LSTM", dtype) for dtype in ("float32", "float64")]
    assert [library.recurrent_forward() for library in made] == [4, 8]
    source.write_text(source.read_text() + "// more\n")
    kernels._load.cache_clear()
    made.append(kernels.load(source, "LSTM", "float32"))
    monkeypatch.setattr(kernels, "_processor", lambda: "another")
    kernels._load.cache_clear()
    made.append(kernels.load(source, "LSTM", "float32"))
    assert len({library._name for library in made}) == 4


@compiled
def test_every_cell_has_its_own_library(fresh, source):
    made = {mode: kernels.load(source, mode, "float32") for mode in CELLS}
    assert tuple(made) == kernels.CELLS
    assert len({library._name for library in made.values()}) == len(made)
    for mode, library in made.items():
        assert library.recurrent_backward() == CELLS[mode].gates
    assert kernels.load(source, "PEEPHOLE", "float32") is None


@compiled
def test_what_cannot_be_compiled_is_told_and_leaves_nothing(fresh, source, monkeypatch):
    monkeypatch.setattr(kernels, "_warned", [])
    source.write_text("this is no C++")
    with pytest.warns(RuntimeWarning, match="could not be compiled by .*RAGGED_KERNELS=0"):
        assert kernels.load(source, "LSTM", "float32") is None
    assert list(fresh.iterdir()) == []


def test_other_dtypes_have_no_kernels(fresh, source):
    assert kernels.load(source, "LSTM", "bfloat16") is None


def test_they_can_be_done_without(fresh, source, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    assert kernels.find_compiler() is None
    assert kernels.load(source, "LSTM", "float32") is None


@compiled
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["torch", "jax"])
def test_backends_do_without_them_and_give_the_same(need, monkeypatch, name, mode):
    need(name)
    lengths, x = ragged.Lengths([3, 0, 5]), np.ones((3, 5, 2), np.float32)
    kinds, outputs = [], []
    with ragged.use_backend(name) as backend:
        for value in "10":
            monkeypatch.setenv("RAGGED_KERNELS", value)
            reasons = recurrent_reasons(backend, lengths, "cpu", hidden_size=3, mode=mode)
            kinds.append(next(kind for kind, reason in reasons.items() if reason is None))
            y, _ = MODES[mode].build(2, 3, seed=0)(x, lengths)
            outputs.append(backend.to_numpy(y))
    assert kinds[0] == "kernels" != kinds[1]
    np.testing.assert_allclose(*outputs, atol=1e-6)


@compiled
@pytest.mark.parametrize("mode", MODES)
def test_workers_share_rows_and_change_nothing(need, monkeypatch, mode):
    need("torch")
    import torch
    from ragged_torch.recurrent import cpp as own

    lengths = np.random.default_rng(0).integers(0, 41, 130)
    layer = build(mode, 16, 64)
    x = torch.randn(130, 40, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for team in (own.find_team(), None):
            monkeypatch.setattr(own, "find_team", lambda team=team: team)
            results = arrays_of(layer(x, lengths))
            loss = sum((array**2).sum() for array in results)
            found.append([*results, *torch.autograd.grad(loss, list(layer.parameters()))])
            monkeypatch.undo()
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@compiled
@pytest.mark.parametrize("mode", MODES)
def test_what_is_kept_has_room_and_never_too_little(need, mode):
    need("torch")
    import torch
    from ragged_torch.recurrent import cpp as own

    layer, lengths, call = build(mode, 2, 3), torch.tensor([3, 0, 2]), own.Call(mode, 4)
    state = torch.zeros(3, 3), torch.zeros(3, 3 if mode == "LSTM" else 0)
    inputs = [torch.ones(3, 4, 2), *state, *(each.detach() for each in layer.parameters())]
    *results, kept = own.forward(*inputs, lengths, None, call, 12)
    assert kept.shape == (12, 3 * CELLS[mode].kept)
    assert (kept[:5] != 0).all()
    gradients = (results, inputs[:5], results[0])
    kept[5:] = 0
    right = own.backward(*gradients, kept, lengths, None, call, True)
    kept[5:] = torch.nan  # nothing writes there, and nothing reads
    found = own.backward(*gradients, kept, lengths, None, call, True)
    assert all(map(torch.equal, found, right))
    for wrong in ([3, 0, 5], [-1, 0, 2]):
        with pytest.raises(LengthsError, match="`lengths` is not all between 0 and the width"):
            own.forward(*inputs, torch.tensor(wrong), None, call, 0)
    if not CELLS[mode].kept:
        return
    with pytest.raises(LengthsError):
        own.forward(*inputs, lengths, None, call, 4)
    with pytest.raises(LengthsError):
        own.backward(*gradients, kept[:4], lengths, None, call, True)


def build(mode, inputs, hidden):
    with ragged.use_backend("torch"):
        return MODES[mode].build(inputs, hidden, seed=0)


@compiled
def test_traced_lengths_beyond_the_width_are_refused_on_jax(need):
    need("jax")
    import jax
    import jax.numpy as jnp

    with ragged.use_backend("jax"):
        layer = ragged.LSTM(2, 3, seed=0)
    run = jax.jit(lambda n: layer(jnp.ones((2, 4, 2)), n)[0])
    assert run(jnp.array([4, 0])).shape == (2, 4, 3)
    for wrong in ([5, 0], [-1, 2]):
        with pytest.raises(Exception, match="`lengths` are not all between 0 and the width"):
            jax.block_until_ready(run(jnp.array(wrong)))


def test_a_program_whose_kernels_are_not_loaded_says_so(need):
    need("jax")
    import jax
    import jax.numpy as jnp
    from ragged_jax import custom_calls
    from ragged_jax.recurrent import cpp

    if not cpp.has_kernels("RNN_RELU", "float32"):
        pytest.skip("there are no kernels")
    with ragged.use_backend("jax"):
        layer = ragged.RNN(2, 3, nonlinearity="relu", seed=0)
    run = jax.jit(lambda x: layer(x, [4, 0])[0])
    x = jnp.ones((2, 4, 2))
    expected, (calls, _) = run(x), custom_calls._calls()
    place = recipe.CELLS.index("RNN_RELU")
    calls.bind_kernels(*map(ctypes.c_int64, (place, 0)), None, None)
    try:
        with pytest.raises(Exception, match="this process has not loaded the kernels that"):
            jax.block_until_ready(run(x))
    finally:
        custom_calls.load_kernels(cpp.SOURCE, "RNN_RELU", "float32")
    assert (run(x) == expected).all()


def test_sources_travel_with_the_packages():
    found = {path.name for path in Path(kernels.__file__).parent.rglob("*.*")}
    expected = {*recipe.SOURCES.values(), "cells.hpp", "forward.hpp", "recurrent.cu", "calls.cuh"}
    assert found >= expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.REALS.keys() == {"float32", "float64"}


@compiled
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_padding_that_is_given_back_to_the_system_reads_as_0(need, backend):
    """Beyond some megabytes it is no longer written; what was there before may not show."""
    need(backend)
    lengths, width, hidden = np.array([3, 0, 5, 1] * 4), 2100, 64
    x = np.random.default_rng(0).normal(size=(16, width, 64)).astype(np.float32)
    x[np.arange(width)[None] >= lengths[:, None]] = np.nan
    with ragged.use_backend(backend) as chosen:
        layer = ragged.GRU(64, hidden, seed=0)

        def run(x):
            if backend == "torch":
                import torch

                x = torch.from_numpy(x).requires_grad_()
                y, h = layer(x, lengths)
                y.square().sum().backward()
                return [chosen.to_numpy(each) for each in (y, h, x.grad)]
            import jax

            def loss(x):
                y, h = layer(x, lengths)
                return (y**2).sum(), (y, h)

            of_x, results = jax.grad(loss, has_aux=True)(chosen.asarray(x))
            return [np.asarray(each) for each in (*results, of_x)]

        assert 4 * (16 * width - lengths.sum()) * hidden > 8 << 20
        for _ in range(2):  # the second time in memory of the first
            y, h, of_x = run(x)
            short_y, short_h, of_short_x = run(np.ascontiguousarray(x[:, :5]))
            np.testing.assert_array_equal(h, short_h)
            for long, short in ((y, short_y), (of_x, of_short_x)):
                np.testing.assert_array_equal(long[:, :5], short)
                assert not long[:, 5:].any()
