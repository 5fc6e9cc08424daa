"""Torch's compiler: every form of lengths, autocast, a user's own training step."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from ragged_conformance.tolerances import LAYER, MODEL, assert_close

import ragged
from ragged.kernels import find_compiler
from ragged.lengths import Lengths
from tests.recurrent.torch_operator import FEATURES, HIDDEN, layer_inputs

torch = pytest.importorskip("torch")
ragged_torch = pytest.importorskip("ragged_torch")
passes = pytest.importorskip("ragged_torch.recurrent.passes")
from ragged_torch.recurrent.dispatch import describe, recurrent_reasons  # noqa: E402

# Torch warns of its own code, in the compiler.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not:UserWarning"),
]


def compile_quickly(function):
    """Record one graph and its backward one, and run them as they are: no C++ is compiled."""
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def programs(function):
    """How many programs are kept for a function."""
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list

    return len(_debug_get_cache_entry_list(function.__code__))


@pytest.fixture(autouse=True)
def forgotten():
    """Leave no compiled program behind."""
    yield
    torch.compiler.reset()


@pytest.fixture
def shapes_kept():
    """Let torch keep the shape that each operation gives, as it does unless told otherwise."""
    config = importlib.import_module("torch._dynamo.config")
    with config.patch(fake_tensor_cache_enabled=True):
        yield


@pytest.mark.usefixtures("shapes_kept")
def test_compiled_transformations_are_those_of_the_layer_itself():
    layer = ragged_torch.Recurrent("LSTM", FEATURES, 3, seed=0, dtype=torch.float64)
    x = torch.randn(2, 2, FEATURES, dtype=torch.float64)
    lengths = torch.tensor([2, 1])

    def total(x):
        return layer(x, lengths)[0].sin().sum()

    def run(x):
        func = torch.func
        grad = func.grad(total)
        return (
            grad(x),
            func.grad(lambda x: grad(x).sin().sum())(x),
            func.jvp(lambda x: layer(x, lengths)[0], (x,), (x,))[1],
            func.vmap(grad)(torch.stack([x, 2 * x])),
        )

    with torch.no_grad():  # what the transformations themselves give: no third derivatives
        found = compile_quickly(run)(x)
    torch.testing.assert_close(found, run(x))
    y = torch.export.export(layer, (x, lengths)).module()(x.requires_grad_(), lengths)[0]
    (first,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
    second = torch.autograd.grad(first.sin().sum(), x)
    torch.testing.assert_close((first, *second), run(x)[:2])


def drawn(rng, rows, width, dtype=torch.float32):
    """A batch with lengths 0, 1 and full, NaN at padding."""
    lengths = np.array([0, 1, width, *rng.integers(0, width + 1, rows)])[:rows]
    x = rng.normal(size=(rows, width, FEATURES))
    x[np.arange(width)[None, :] >= lengths[:, None]] = np.nan
    return torch.tensor(x, dtype=dtype), torch.tensor(lengths)


FORMS = {
    "tensor": lambda lengths, width: lengths,
    "int32": lambda lengths, width: lengths.int(),
    "NumPy": lambda lengths, width: lengths.numpy(),
    "Lengths": lambda lengths, width: ragged.Lengths(lengths, width),
    "None": lambda lengths, width: None,
}


@pytest.mark.parametrize("form", FORMS)
def test_lengths_of_every_form_share_a_program(form):
    layer = ragged_torch.Recurrent("LSTM", FEATURES, HIDDEN, bidirectional=True, seed=0)
    compiled, rng = compile_quickly(layer), np.random.default_rng(0)
    for rows, width in ((5, 7), (6, 9), (4, 11), (7, 3), (3, 8)):
        x, lengths = drawn(rng, rows, width)
        x = x.nan_to_num() if form == "None" else x
        given = FORMS[form](lengths, width)
        (y, state), (expected, final) = compiled(x, given), layer(x, given)
        for one, other in zip((y, *state), (expected, *final), strict=True):
            assert_close(one.detach().numpy(), other.detach().numpy(), "float32")
    few = 3 if form == "Lengths" else 2  # one as it came, one for all others
    assert programs(ragged_torch.Recurrent.forward) <= few


def test_lengths_as_a_list_are_taken():
    layer = ragged_torch.Recurrent("LSTM", FEATURES, HIDDEN, seed=0)
    x, lengths = drawn(np.random.default_rng(0), 4, 6)
    found, _ = compile_quickly(layer)(x, lengths.tolist())
    assert_close(found.detach().numpy(), layer(x, lengths)[0].detach().numpy(), "float32")


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 9, 0], r"LSTM\(\): `lengths` is 9 at row 1; expected at most the width 6"),
        ([3, 1, -1], r"LSTM\(\): `lengths` is -1 at row 2; expected lengths of 0 or more"),
    ],
)
def test_bad_lengths_are_refused_as_the_program_runs(lengths, message):
    layer = ragged_torch.Recurrent("LSTM", FEATURES, HIDDEN, seed=0)
    with pytest.raises(ragged.RaggedError, match=message):
        compile_quickly(layer)(torch.zeros(3, 6, FEATURES), torch.tensor(lengths))


def test_masks_with_holes_are_refused_as_the_program_runs():
    layer = ragged_torch.Recurrent("LSTM", FEATURES, HIDDEN, seed=0)
    mask = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=torch.bool)
    counted = compile_quickly(ragged.lengths_from_mask)(mask)
    assert counted.tolist() == [2, -1, -1]
    compiled = compile_quickly(lambda x, mask: layer(x, ragged.lengths_from_mask(mask)))
    with pytest.raises(ragged.RaggedError, match=r"`lengths` is -1 at row 1"):
        compiled(torch.zeros(3, 3, FEATURES), mask)


def test_narrow_lengths_do_not_wrap():
    lengths = torch.tensor([100, 0, 127], dtype=torch.uint8)
    x = torch.randn(3, 200, 1, generator=torch.Generator().manual_seed(0))

    def moved(x, lengths):
        return ragged.flip_sequences(x, lengths, alignment="right")

    found = compile_quickly(moved)(x, lengths)
    torch.testing.assert_close(found, moved(x, lengths.tolist()))


def test_bad_forms_are_refused_as_the_program_is_recorded():
    layer = ragged_torch.Recurrent("LSTM", FEATURES, HIDDEN, seed=0)
    compiled = torch.compile(layer, backend="aot_eager")
    with pytest.raises(Exception, match=r"`lengths` is of dtype torch.float32; expected integers"):
        compiled(torch.zeros(3, 6, FEATURES), torch.ones(3))


def test_rows_that_lie_end_to_end_are_taken():
    layer = ragged_torch.Recurrent("GRU", FEATURES, HIDDEN, bidirectional=True, seed=0)
    compiled = compile_quickly(layer)
    for offsets in ([0, 2, 2, 5], [0, 1, 4, 6]):
        found = []
        for run in (compiled, layer):
            torch.manual_seed(0)
            x = torch.randn(6, FEATURES).requires_grad_()
            y, h = run(x, offsets=torch.tensor(offsets), max_length=4)
            (grad,) = torch.autograd.grad(y.square().sum() + h.sum(), x)
            found.append([each.detach().numpy() for each in (y, h, grad)])
        for one, other in zip(*found, strict=True):
            assert_close(one, other, "float32", MODEL)

    for offsets in ([0, 2, 7], [1, 2, 5], [0, 3, 2]):
        with pytest.raises(ragged.RaggedError, match=r"GRU\(\): `lengths` is -1 at row"):
            compiled(torch.zeros(6, FEATURES), offsets=torch.tensor(offsets), max_length=6)


class OwnModel(torch.nn.Module):
    """A user's own, of ragged layers and torch's."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(FEATURES, 3)
        self.lstm = ragged_torch.Recurrent("LSTM", 3, HIDDEN, num_layers=2, dropout=0.5, seed=0)
        self.norm = torch.nn.LayerNorm(HIDDEN)
        self.head = torch.nn.Linear(HIDDEN, 1)

    def forward(self, x, lengths):
        y, (h, _) = self.lstm(torch.relu(self.embed(x)), lengths)
        return self.head(self.norm(y) + h[-1][:, None])


@pytest.fixture
def short_kernels():
    """Let inductor compile no vectors, and none of ten probes of what the processor has."""
    config = importlib.import_module("torch._inductor.config")
    with config.patch({"cpp.vec_isa_ok": False}):
        yield


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
@pytest.mark.usefixtures("short_kernels", "shapes_kept")
def test_a_users_own_training_step_is_one_graph(backend):
    torch.manual_seed(0)
    model = OwnModel()
    model.train(backend == "aot_eager")  # there with dropout

    def loss(x, lengths):
        output = model(x, lengths)
        return ragged.losses.mse(output, torch.ones_like(output), lengths=lengths)

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=backend)
    rng, parameters = np.random.default_rng(0), list(model.parameters())
    for rows, width in ((5, 7), (6, 9), (8, 11)):
        x, lengths = drawn(rng, rows, width)
        x = x.nan_to_num()  # torch's own layers read padding
        # In one of both a module's floats are constants: else torch records all of it twice.
        with torch._dynamo.config.patch(specialize_float=not model.training):
            losses = [run(x, lengths) for run in (compiled, loss)]
        grads = [torch.autograd.grad(each, parameters) for each in losses]
        assert all(torch.isfinite(grad).all() for grad in grads[0])
        if not model.training:
            assert_close(losses[0].detach().numpy(), losses[1].detach().numpy(), "float32", LAYER)
            for one, other in zip(*grads, strict=True):
                assert_close(one.numpy(), other.numpy(), "float32", MODEL)
    assert programs(loss) <= 1


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("lengths", [None, [0, 1, 7, 4, 4]])
def test_autocast_is_that_of_nn_lstm(compiled, lengths):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(5, 7, FEATURES)), dtype=torch.float32)
    layer = ragged_torch.Recurrent("LSTM", FEATURES, HIDDEN, num_layers=2, seed=0)
    reference = torch.nn.LSTM(FEATURES, HIDDEN, num_layers=2, batch_first=True)
    reference.load_state_dict(layer.state_dict())
    run = compile_quickly(layer) if compiled else layer
    given = None if lengths is None else torch.tensor(lengths)
    exact, _ = layer(x, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = run(x, given)
        assert {v.dtype for v in (y, *state)} == {torch.bfloat16}
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # else nn.LSTM fails on this processor
            expected, final = reference(x)
            assert {v.dtype for v in (expected, *final)} == {torch.bfloat16}
    assert_close(y.detach().float().numpy(), exact.detach().numpy(), "bfloat16")
    grads = [torch.autograd.grad(v.float().sum(), layer.weight_hh_l0)[0] for v in (y, exact)]
    assert grads[0].dtype == torch.float32
    assert_close(grads[0].numpy(), grads[1].numpy(), "bfloat16", MODEL)


def test_autocast_leaves_float64_alone():
    layer = ragged_torch.Recurrent("LSTM", FEATURES, HIDDEN, seed=0).double()
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(torch.ones(2, 3, FEATURES, dtype=torch.float64), [3, 1])
    assert y.dtype == torch.float64


def test_dropout_drops_the_same_compiled_and_draws_anew_each_time():
    from ragged_torch.layers import Dropout

    dropout = Dropout(0.3)
    compiled = compile_quickly(dropout)
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = []
    for run in (dropout, compiled):
        torch.manual_seed(1)
        outputs = run(x), run(x)
        found.append([*outputs, *(torch.autograd.grad((y**2).sum(), x)[0] for y in outputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(found[0][0] == 0, found[0][1] == 0)
    twice = compile_quickly(lambda x: (dropout(x), dropout(x)))(x)
    assert not torch.equal(twice[0] == 0, twice[1] == 0)


@pytest.mark.parametrize("compiler", ["1", "0"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_the_same_eager_and_compiled(dtype, compiler, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", compiler)
    layer = ragged_torch.Recurrent(
        "LSTM", FEATURES, HIDDEN, bidirectional=True, seed=0, dtype=dtype
    )
    x, lengths = drawn(np.random.default_rng(0), 5, 7, dtype)
    runs_kernels = passes.passes_of(layer_inputs([3, 0, 5, 1], dtype), "LSTM") is passes.KERNELS
    eager = recurrent_reasons(describe(x, layer.shape, Lengths(lengths, 7)))
    assert runs_kernels == (eager["kernels"] is None) == (find_compiler() is not None)
    found = []
    for run in (layer, compile_quickly(layer)):
        y, (h, c) = run(x, lengths)
        total = sum(each.float().square().sum() for each in (y, h, c))
        gradients = torch.autograd.grad(total, list(layer.parameters()))
        found.append([each.detach().float().numpy() for each in (y, h, c, *gradients)])
    for one, other in zip(*found, strict=True):
        assert_close(one, other, "bfloat16", MODEL)
