"""The blocks of the models, with weights copied over, against pytorch-forecasting's."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.models.categories import Variables
from ragged.ops.interpolation import interpolation_matrix

RECORDED = Path(__file__).parent / "pytorch_forecasting_layers.npz"
SIZE, SMALL, FEATURES, HEADS = 4, 8, 3, 2


@pytest.fixture(params=["torch", "jax"])
def name(request, need):
    need(request.param)
    return request.param


@pytest.fixture(scope="module")
def recorded():
    with np.load(RECORDED) as found:
        return dict(found)


def filled(name, recorded, module, prefix):
    """Give a module the recorded parameters, all of them and no other."""
    backend, start = load_backend(name), f"parameter {prefix}."
    values = {n.removeprefix(start): v for n, v in recorded.items() if n.startswith(start)}
    expected = {n: value.shape for n, value in backend.get_parameters(module).items()}
    assert {n: value.shape for n, value in values.items()} == expected
    backend.set_parameters(module, values)
    module.eval()
    return module


def compare(name, recorded, output, *found):
    backend = load_backend(name)
    for what, value in zip((output, f"{output}.weights"), found, strict=False):
        np.testing.assert_allclose(
            backend.to_numpy(value), recorded[f"output {what}"], rtol=2e-5, atol=2e-6, err_msg=what
        )


@pytest.fixture
def given(name, recorded):
    backend = load_backend(name)
    inputs = {n.removeprefix("input "): v for n, v in recorded.items() if n.startswith("input ")}
    return {
        n: backend.asarray(v, dtype="float32" if v.dtype.kind == "f" else None)
        for n, v in inputs.items()
    }


def rng():
    return np.random.default_rng(0)


def sides(name, like, encoder, decoder, width=2):
    """Lay out padded rows: both sides' steps, of which the first `width` are the encoder's."""
    tokens = import_module(f"ragged_{name}.tokens")
    lengths = Lengths(encoder, width), Lengths(decoder, like.shape[1] - width)
    return tokens.BothSides(*(tokens.Steps(each, like) for each in lengths))


def test_grn_with_a_context(name, recorded, given):
    blocks = import_module(f"ragged_{name}.layers")
    block = blocks.GRN(SIZE, SIZE, SIZE, context_size=SIZE, rng=rng())
    block = filled(name, recorded, block, "grn")
    both = sides(name, given["x"], [2, 2, 2], [3, 3, 3])
    compare(name, recorded, "grn", block(given["x"], given["context"], both))


def test_grn_with_an_interpolated_residual(name, recorded, given):
    blocks = import_module(f"ragged_{name}.layers")
    block = blocks.GRN(SMALL, SIZE, SIZE, interpolate=True, rng=rng())
    block = filled(name, recorded, block, "interpolating_grn")
    compare(name, recorded, "interpolating_grn", block(given["wide"]))


def test_variable_selection(name, recorded, given):
    blocks = import_module(f"ragged_{name}.variable_selection")
    block = blocks.VariableSelection(
        Variables((0, 1, 2)), SMALL, SIZE, context_size=SIZE, rng=rng()
    )
    block = filled(name, recorded, block, "selection")
    both = sides(name, given["features"], [2, 2, 2], [3, 3, 3])
    compare(name, recorded, "selection", *block(given["features"], given["context"], both))


def test_interpretable_attention(name, recorded, given):
    attention = import_module(f"ragged_{name}.attention")
    block = attention.InterpretableAttention(SIZE, HEADS, rng=rng())
    block = filled(name, recorded, block, "attention")
    x, both = given["x"], sides(name, given["x"], [2, 1, 2], [3, 3, 3])
    visible = both.visible_to_decoder(causal=True)
    compare(name, recorded, "attention", *block(x[:, 2:], x, visible, need_weights=True))
    compare(name, recorded, "attention", block(x[:, 2:], x, visible)[0])


def test_attention_starts_with_the_values_of_torchs_linear(name):
    attention = import_module(f"ragged_{name}.attention")
    block = attention.InterpretableAttention(32, 4, rng=rng())
    found = load_backend(name).get_parameters(block)
    assert set(found) == {f"{layer}.weight" for layer in ("query", "key", "value", "output")} | {
        f"{layer}.bias" for layer in ("query", "value", "output")
    }
    for parameter, value in found.items():
        inputs = 8 if parameter.startswith("output") else 32
        assert 0.6 * inputs**-0.5 < abs(value).max() <= inputs**-0.5
        assert value.std() == pytest.approx((3 * inputs) ** -0.5, rel=0.4)


def test_attention_with_and_without_its_weights_sees_nothing_as_nothing(name, given):
    backend = load_backend(name)
    attention = import_module(f"ragged_{name}.attention")
    block = attention.InterpretableAttention(SIZE, HEADS, rng=rng())
    block.eval()
    encoder, decoder, x = [0, 1, 2], [0, 3, 2], given["x"]
    visible = sides(name, x, encoder, decoder).visible_to_decoder(causal=True)
    explicit, weights = block(x[:, 2:], x, visible, need_weights=True)
    fused, nothing = block(x[:, 2:], x, visible)
    assert nothing is None
    steps, count = np.arange(3), np.array(decoder)[:, None]
    past = (np.arange(2) < np.array(encoder)[:, None])[:, None] & (steps < count)[..., None]
    future = (steps < steps[:, None]) & (steps < count)[..., None]
    mask = np.concatenate([past, future], 2)
    found, bias = backend.to_numpy(weights), backend.get_parameters(block)["output.bias"]
    np.testing.assert_array_equal(found != 0, np.broadcast_to(mask[:, None], found.shape))
    np.testing.assert_allclose(
        found.sum(-1), np.broadcast_to(mask.any(-1)[:, None], (3, 2, 3)), 1e-6
    )
    np.testing.assert_allclose(backend.to_numpy(fused), backend.to_numpy(explicit), 1e-5, 1e-6)
    np.testing.assert_array_equal(backend.to_numpy(fused)[0], np.broadcast_to(bias, (3, SIZE)))


def test_a_trainable_sum_scales_what_is_added(name, given):
    backend = load_backend(name)
    blocks = import_module(f"ragged_{name}.layers")
    block = blocks.AddNorm(SIZE, trainable=True)
    x, y = (backend.to_numpy(given["x"]) * factor for factor in (1.0, -0.5))
    for scale in (np.zeros(SIZE), np.array([-1.0, 0.0, 2.0, 9.0])):
        parameters = {"scale": scale, "norm.weight": np.ones(SIZE), "norm.bias": np.zeros(SIZE)}
        backend.set_parameters(block, parameters)
        total = x + y * 2 / (1 + np.exp(-scale))
        expected = (total - total.mean(-1, keepdims=True)) / np.sqrt(
            total.var(-1, keepdims=True) + 1e-5
        )
        found = block(backend.asarray(x), backend.asarray(y))
        np.testing.assert_allclose(backend.to_numpy(found), expected, 1e-4, 1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 5), (5, 1), (3, 3), (2, 7), (9, 4)])
def test_interpolation_is_torchs_with_aligned_ends(need, inputs, outputs):
    need("torch")
    import torch

    x = np.random.default_rng(0).normal(size=(3, inputs))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x)[:, None], outputs, mode="linear", align_corners=True
    )[:, 0]
    np.testing.assert_allclose(x @ interpolation_matrix(inputs, outputs), expected, atol=1e-12)


def test_attention_drops_weights_and_outputs_at_its_rate(name, own_random_state):
    rows, keys, rate = 2000, 8, 0.3
    backend = load_backend(name)
    attention = import_module(f"ragged_{name}.attention")
    module = attention.InterpretableAttention(SIZE, HEADS, rate, rng=rng())
    # Every score is 0 and every value 1, so that the output is the share of the weights kept.
    parameters = {n: np.zeros_like(v) for n, v in backend.get_parameters(module).items()}
    parameters["value.bias"][:] = 1
    parameters["output.weight"][:] = HEADS / SIZE
    backend.set_parameters(module, parameters)
    module.train()
    memory = backend.asarray(np.zeros((rows, keys + 1, SIZE), np.float32))
    both = sides(name, memory, [keys] * rows, [1] * rows, keys)
    call = memory[:, :1], memory, both.visible_to_decoder(causal=True)
    output = backend.to_numpy(module(*call)[0])[:, 0]
    kept = output * (1 - rate) ** 2 * keys * HEADS  # how many weights, where the output is kept
    np.testing.assert_allclose(kept, kept.round(), atol=1e-4)
    dropped = kept == 0
    assert abs(dropped.mean() - rate) < 6 * (rate * (1 - rate) / dropped.size) ** 0.5
    # The four units of a row share its weights: all that are kept hold one number.
    counts = kept.max(axis=1)[~dropped.all(axis=1)]
    assert (dropped | (np.abs(kept - kept.max(axis=1, keepdims=True)) < 1e-3)).all()
    expected = keys * HEADS * (1 - rate)
    assert abs(counts.mean() - expected) < 6 * (expected * rate / len(counts)) ** 0.5
    module.eval()
    np.testing.assert_allclose(backend.to_numpy(module(*call)[0]), 1, rtol=1e-6)


@pytest.fixture
def own_random_state(name):
    if name != "torch":
        yield
        return
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
