"""The operator that compilers and exporters see, called as they call it."""

from __future__ import annotations

import pytest
from ragged_conformance.tolerances import MODEL, assert_close

import ragged
from ragged.lengths import Lengths
from ragged.recurrent.cells import CELLS
from tests.recurrent.torch_operator import HIDDEN, WIDTH, layer_inputs

torch = pytest.importorskip("torch")
operator = pytest.importorskip("ragged_torch.recurrent.custom_op")
passes = pytest.importorskip("ragged_torch.recurrent.passes")
scan = pytest.importorskip("ragged_torch.recurrent.scan")

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
NO_RESETS = None, "zeros"
CASES = {
    "mixed": [3, 0, 5, 1],
    "ties": [2, 2, 4, 4],
    "full": [5, 5, 5, 5],
    "one long": [5, 1, 1, 1],
    "all empty": [0, 0, 0, 0],
    "no rows": [],
}


def marks():
    """Resets of four rows, the first step of one among them, and at padding."""
    resets = torch.zeros(4, WIDTH, dtype=torch.bool)
    resets[[0, 0, 2, 2, 3], [2, 4, 0, 3, 1]] = True
    return resets


@pytest.mark.parametrize(("mode", "projected"), [("LSTM", True), *((m, False) for m in CELLS)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_operator_equals_the_layer_that_it_stands_for(case, reverse, mode, projected):
    lengths = CASES[case]
    layer = layer_inputs(lengths, projected=projected, mode=mode)
    found = torch.ops.ragged.recurrent_layer(*layer, mode, reverse, True, *NO_RESETS)[:3]
    host = Lengths(lengths, WIDTH)
    expected = scan.run_layer(
        mode, layer.weights, layer.x, host, layer.h0, layer.c0, reverse=reverse
    )
    leaves = layer.differentiable
    for one, other in zip(found, expected, strict=True):
        assert_close(one.detach().numpy(), other.detach().numpy(), "float64")
    grads = [
        torch.autograd.grad(sum((y**2).sum() for y in ys), leaves, materialize_grads=True)
        for ys in (found, expected)
    ]
    for one, other in zip(*grads, strict=True):
        assert_close(one.numpy(), other.numpy(), "float64", MODEL)


@pytest.mark.parametrize("unused", [{0}, {1, 2}])
def test_operator_has_gradients_where_few_outputs_are_used(unused):
    layer = layer_inputs([3, 0, 5, 1])
    used = [
        y
        for i, y in enumerate(
            torch.ops.ragged.recurrent_layer(*layer, "LSTM", False, True, *NO_RESETS)[:3]
        )
    ]
    total = sum(y.sum() for i, y in enumerate(used) if i not in unused)
    (grad,) = torch.autograd.grad(total, [layer.weight_hh])
    assert torch.isfinite(grad).all()
    assert (grad != 0).any()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("mode", "projected", "resets"),
    [
        ("LSTM", True, None),
        *((mode, False, None) for mode in CELLS),
        ("LSTM", False, "initial"),
        ("GRU", False, "zeros"),
    ],
)
def test_operator_has_second_derivatives(mode, projected, reverse, resets):
    layer = layer_inputs([3, 0, 5, 1], projected=projected, mode=mode)
    x = layer.x.detach().nan_to_num().requires_grad_()  # or differences of it are NaN

    leaves = layer._replace(x=x).differentiable
    checked = [leaf for leaf in leaves if leaf.numel()]  # of no elements gradgradcheck takes none

    def run(*tensors):
        given = iter(tensors)
        tensors = [next(given) if leaf.numel() else leaf for leaf in leaves]
        inputs = operator.Layer.of(layer.lengths, tensors)
        told = NO_RESETS if resets is None else (marks(), resets)
        return torch.ops.ragged.recurrent_layer(*inputs, mode, reverse, True, *told)[:3]

    assert torch.autograd.gradgradcheck(run, checked, fast_mode=True)


def test_operator_refuses_forward_mode_rather_than_lose_it():
    layer, forward_ad = layer_inputs([3, 0, 5, 1]), torch.autograd.forward_ad
    with forward_ad.dual_level(), torch.no_grad():
        dual = forward_ad.make_dual(layer.c0, torch.ones_like(layer.c0))
        with pytest.raises(ragged.errors.DerivativeError, match="has no forward mode"):
            torch.ops.ragged.recurrent_layer(
                *layer._replace(c0=dual), "LSTM", False, True, *NO_RESETS
            )


STRIDED = {
    "a column": lambda x: torch.stack([x, x + 3], x.ndim)[..., 0],
    "backwards": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("kernels", ["1", "0"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strided", STRIDED)
def test_operator_reads_tensors_that_lie_in_memory_anyhow(strided, dtype, kernels, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    plain = layer_inputs([3, 0, 5, 1], dtype)
    layer = operator.Layer(*(STRIDED[strided](v) for v in plain[:-1]))
    found = []
    for each in (layer, operator.Layer(*(v.contiguous() for v in layer[:-1]))):
        y = torch.ops.ragged.recurrent_layer(*each, "LSTM", False, True, *NO_RESETS)[:3]
        leaves = plain.differentiable
        found.append((*y, *torch.autograd.grad(sum(v.cos().sum() for v in y), leaves)))
        storages = {v.untyped_storage().data_ptr() for v in (*found[-1], *plain[:-1])}
        assert len(storages) == len(found[-1]) + len(plain) - 1  # no two results share memory
    torch.testing.assert_close(*found)


def saving(layer, lengths, resets, mode, reverse, train):
    """A forward pass of a kernel that keeps gates and cells for its backward pass."""
    y, state, _ = passes.composed_forward(layer, lengths, resets, mode, reverse, train)
    return y, state, layer.x.new_ones(passes.saved_rows(layer, mode, train), 5 * HIDDEN)


def reading(layer, lengths, resets, mode, reverse, y, kept, gradients):
    """Its backward pass."""
    assert kept.shape == (20, 5 * HIDDEN)
    told = lengths, resets, mode, reverse
    return passes.composed_backward(layer, *told, y, kept, gradients)


@pytest.mark.parametrize(
    ("case", "dtype", "reverse", "projected"),
    [
        ("full", torch.float32, False, False),  # or what kernels keep has room that nobody fills
        ("mixed", torch.float64, True, True),
        ("saving", torch.float64, True, False),
        ("resets", torch.float64, True, False),
    ],
)
def test_operator_passes_torchs_own_checks(case, dtype, reverse, projected, monkeypatch):
    if case == "saving":
        own = passes.Passes(True, saving, reading)
        monkeypatch.setattr(passes, "passes_of", lambda *call: own)
    layer = layer_inputs(CASES.get(case, CASES["mixed"]), dtype, projected)
    told = (marks(), "initial") if case == "resets" else NO_RESETS
    found = torch.library.opcheck(
        torch.ops.ragged.recurrent_layer.default, (*layer, "LSTM", reverse, True, *told)
    )
    assert set(found.values()) == {"SUCCESS"}
