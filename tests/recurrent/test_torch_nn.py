"""`ragged_torch.LSTM`, `GRU` and `RNN` beside `torch.nn`'s: every form of input."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import ragged_torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.utils.rnn import (  # noqa: E402
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

from ragged.errors import ArgumentError  # noqa: E402
from ragged.kernels import available  # noqa: E402

INPUT, HIDDEN = 3, 5
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "LSTM, projection": ("LSTM", {"proj_size": 2}),
    "GRU": ("GRU", {}),
    "RNN, tanh": ("RNN", {}),
    "RNN, relu": ("RNN", {"nonlinearity": "relu"}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "two layers, both ways": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
}
layers = pytest.mark.parametrize("layer", LAYERS)
options = pytest.mark.parametrize("option", OPTIONS)


def build(layer: str, option: str, dtype: Any = torch.float64) -> tuple[nn.Module, nn.Module]:
    """Torch's layer and ours, of the same seed of torch's generator."""
    name, own = LAYERS[layer]
    built = []
    for module in (nn, ragged_torch):
        torch.manual_seed(0)
        built.append(getattr(module, name)(INPUT, HIDDEN, dtype=dtype, **own, **OPTIONS[option]))
    return built[0], built[1]


def states(layer: nn.Module, batch: int | None, seed: int = 1) -> Any:
    """Initial states; `batch` None = of one sequence."""
    torch.manual_seed(seed)
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    rows = () if batch is None else (batch,)
    h = torch.randn(count, *rows, layer.proj_size or HIDDEN, dtype=torch.float64)
    c = torch.randn(count, *rows, HIDDEN, dtype=torch.float64)
    return (h, c) if layer.mode == "LSTM" else h


def parts(value: Any) -> list[Tensor]:
    """All floating tensors of a result."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, tuple):
        return [tensor for each in value for tensor in parts(each)]
    return [value]


def assert_same(
    theirs: nn.Module, ours: nn.Module, given: Tensor, call: Callable[..., Any]
) -> None:
    """The same results of `call(layer, given)`, and gradients of given and parameters."""
    found = []
    for layer in (theirs, ours):
        leaf = given.clone().requires_grad_()
        results = parts(call(layer, leaf))
        torch.manual_seed(2)
        loss = sum((torch.randn(each.shape, dtype=each.dtype) * each).sum() for each in results)
        leaves = [leaf, *layer.parameters()]
        found.append([*results, *torch.autograd.grad(loss, leaves)])
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@layers
@options
def test_parameters_and_attributes_are_torchs(layer: str, option: str) -> None:
    theirs, ours = build(layer, option)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), "the same seed gives the same values"
    for name in nn.LSTM.__constants__:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours._flat_weights_names == theirs._flat_weights_names
    assert ours._all_weights == theirs._all_weights
    assert [len(each) for each in ours.all_weights] == [len(each) for each in theirs.all_weights]
    assert repr(ours) == repr(theirs)
    ours.flatten_parameters()


@layers
@options
@pytest.mark.parametrize("with_states", [False, True])
def test_a_batch_gives_what_torch_gives(layer: str, option: str, with_states: bool) -> None:
    theirs, ours = build(layer, option)
    x = torch.randn(4, 6, INPUT, dtype=torch.float64)
    batch = 4 if theirs.batch_first else 6
    hx = states(theirs, batch) if with_states else None
    assert_same(theirs, ours, x, lambda layer, x: layer(x, hx))
    transposed = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert_same(theirs, ours, transposed, lambda layer, x: layer(x, hx))


@layers
@pytest.mark.parametrize("with_states", [False, True])
def test_one_sequence_gives_what_torch_gives(layer: str, with_states: bool) -> None:
    for option in OPTIONS:
        theirs, ours = build(layer, option)
        hx = states(theirs, None) if with_states else None
        x = torch.randn(6, INPUT, dtype=torch.float64)
        assert_same(theirs, ours, x, lambda layer, x, hx=hx: layer(x, hx))
        shapes = [each.shape for each in parts(ours(x, hx))]
        assert shapes == [each.shape for each in parts(theirs(x, hx))]


@layers
@options
@pytest.mark.parametrize("lengths", [[5, 5, 3, 1], [2, 5, 1, 5], [4, 4, 4, 4]])
def test_packed_rows_give_what_torch_gives(layer: str, option: str, lengths: list[int]) -> None:
    theirs, ours = build(layer, option)
    hx = states(theirs, 4)
    is_sorted = lengths == sorted(lengths, reverse=True)

    def call(layer: nn.Module, x: Tensor) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=is_sorted)
        y, final = layer(packed, hx)
        assert isinstance(y, PackedSequence)
        return pad_packed_sequence(y)[0], final

    assert_same(theirs, ours, torch.randn(4, 5, INPUT, dtype=torch.float64), call)


@layers
@options
def test_jagged_rows_give_what_packed_rows_give(layer: str, option: str) -> None:
    theirs, ours = build(layer, option)
    rows = [torch.randn(n, INPUT, dtype=torch.float64) for n in (3, 1, 6)]
    y, final = theirs(pack_sequence(rows, enforce_sorted=False))
    y = pad_packed_sequence(y, batch_first=True)[0]
    nested = torch.nested.nested_tensor(rows, layout=torch.jagged, requires_grad=True)
    got, got_final = ours(nested)
    assert got.offsets() is nested.offsets(), "it may be added to other tensors of these rows"
    for k, row in enumerate(got.unbind()):
        torch.testing.assert_close(row, y[k, : len(row)], rtol=1e-10, atol=1e-12)
    for expected, found in zip(parts(final), parts(got_final), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    got.values().sum().backward()
    flat = torch.cat(rows).requires_grad_()
    beyond = torch.cat([flat, torch.full((2, INPUT), torch.nan, dtype=torch.float64)])
    values, _ = ours(beyond, offsets=torch.tensor([0, 3, 4, 10]))
    torch.testing.assert_close(values[:10], got.values(), rtol=1e-10, atol=1e-12)
    assert not values[10:].any()
    values.sum().backward()
    torch.testing.assert_close(flat.grad, nested.grad.values(), rtol=1e-10, atol=1e-12)


@layers
def test_lengths_select_what_is_real(layer: str) -> None:
    theirs, ours = build(layer, "two layers, both ways")
    lengths = [6, 0, 3, 1]
    x = torch.randn(6, 4, INPUT, dtype=torch.float64)
    hx = states(theirs, 4)
    for row, length in enumerate(lengths):
        x[length:, row] = torch.nan
    y, final = ours(x, hx, lengths=lengths)
    for row, length in enumerate(lengths):
        assert not y[length:, row].any()
        start = row_of(hx, row)
        if not length:
            expected_final = start
        else:
            expected, expected_final = theirs(x[:length, row : row + 1], start)
            torch.testing.assert_close(y[:length, row : row + 1], expected, rtol=1e-10, atol=1e-12)
        got = row_of(final, row)
        for one, other in zip(parts(got), parts(expected_final), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def row_of(hx: Any, row: int) -> Any:
    """The states of one row."""
    if isinstance(hx, tuple):
        return tuple(each[:, row : row + 1] for each in hx)
    return hx[:, row : row + 1]


@layers
def test_states_may_be_detached_in_place(layer: str) -> None:
    for each in build(layer, "plain"):
        x, hx = torch.ones(2, 2, INPUT, dtype=torch.float64), None
        for _ in range(2):  # as in truncated backpropagation through time
            y, hx = each(x, hx)
            y.sum().backward()
            for state in parts(hx):
                state.detach_()


@pytest.mark.parametrize("layer", ["GRU", "RNN, tanh"])
def test_outputs_changed_in_place_are_refused_by_autograd(layer: str) -> None:
    _, ours = build(layer, "plain")
    y, _ = ours(torch.ones(2, 2, INPUT, dtype=torch.float64))
    y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.skipif(not available(), reason="without kernels torch's own layers run")
def test_outputs_of_lstms_may_be_changed_in_place() -> None:
    _, ours = build("LSTM", "plain")
    x = torch.ones(2, 3, INPUT, dtype=torch.float64)
    leaves = [x.requires_grad_(), *ours.parameters()]
    right = torch.autograd.grad((3 * ours(x)[0]).sum(), leaves)
    y, _ = ours(x)
    y *= 3
    for found, expected in zip(torch.autograd.grad(y.sum(), leaves), right, strict=True):
        assert torch.equal(found, expected)


@layers
def test_second_derivatives_in_every_layout(layer: str) -> None:
    _, ours = build(layer, "two layers, both ways")
    if ours.proj_size:
        pytest.skip("plain operations run projections")
    weights = list(ours.parameters())
    rows = [torch.randn(n, INPUT, dtype=torch.float64) for n in (2, 3)]
    padded = nn.utils.rnn.pad_sequence(rows)

    def norm(call: Callable[[], Tensor]) -> Tensor:
        gradients = torch.autograd.grad((call() ** 2).sum(), weights, create_graph=True)
        loss = sum((each**2).sum() for each in gradients)
        return torch.cat([each.flatten() for each in torch.autograd.grad(loss, weights)])

    expected = norm(lambda: ours(padded, lengths=[2, 3])[0])
    offsets = torch.tensor([0, 2, 5])
    for call in (
        lambda: ours(pack_sequence(rows, enforce_sorted=False))[0].data,
        lambda: ours(torch.cat(rows), offsets=offsets)[0],
    ):
        torch.testing.assert_close(norm(call), expected, rtol=1e-9, atol=1e-11)


@layers
def test_gradients_of_torch_func_in_every_layout(layer: str) -> None:
    _, ours = build(layer, "plain")
    x, offsets = torch.randn(5, INPUT, dtype=torch.float64), torch.tensor([0, 3, 5])
    sizes = torch.tensor([2, 2, 1])

    def jagged(x: Tensor) -> Tensor:
        return ours(x, offsets=offsets)[0].sin().sum()

    def packed(x: Tensor) -> Tensor:
        rows = PackedSequence(x[[0, 3, 1, 4, 2]], sizes)  # torch's packing has no such gradient
        return ours(rows)[0].data.sin().sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(jagged(leaf), leaf)
    for call in (jagged, packed):
        gradient = torch.func.grad(call)(x)
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


@layers
def test_copies_pickles_and_the_compiler_take_it(layer: str) -> None:
    _, ours = build(layer, "batch first")
    x = torch.randn(2, 4, INPUT, dtype=torch.float64)
    expected = ours(x)[0]
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(copied(x)[0], expected)
    compiled = torch.compile(ours, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x)[0], expected)


@layers
def test_symbolic_traces_call_it_as_a_leaf(layer: str) -> None:
    class Tagger(nn.Module):
        def __init__(self, rnn: nn.Module) -> None:
            super().__init__()
            self.rnn, self.dropout = rnn, nn.Dropout(0.0)

        def forward(self, x: Tensor, hx: Any) -> Tensor:
            y, _ = self.rnn(self.dropout(x), hx)
            return y.relu()

    graphs, results = [], []
    for each in build(layer, "plain"):
        traced = torch.fx.symbolic_trace(Tagger(each))
        graphs.append(str(traced.graph))
        x = torch.linspace(-1, 1, 4 * 2 * INPUT, dtype=torch.float64).view(4, 2, INPUT)
        results.append(traced(x, states(each, 2)))
    assert graphs[0] == graphs[1]
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


REFUSED: dict[str, tuple[type[Exception], Callable[[Any], Any]]] = {
    "one axis": (ValueError, lambda layer: layer(torch.ones(3))),
    "four axes": (ValueError, lambda layer: layer(torch.ones(1, 1, 1, 3))),
    "features": (RuntimeError, lambda layer: layer(torch.ones(2, 2, 4))),
    "dtype": (ValueError, lambda layer: layer(torch.ones(2, 2, 3).double())),
    "states of another batch": (
        RuntimeError,
        lambda layer: layer(torch.ones(2, 2, 3), _hx(layer, (1, 3, HIDDEN))),
    ),
    "states of a batch for one sequence": (
        RuntimeError,
        lambda layer: layer(torch.ones(2, 3), _hx(layer, (1, 1, HIDDEN))),
    ),
    "states of one sequence for a batch": (
        RuntimeError,
        lambda layer: layer(torch.ones(2, 2, 3), _hx(layer, (1, HIDDEN))),
    ),
    "states of another dtype": (
        (RuntimeError, ValueError),
        lambda layer: layer(torch.ones(2, 2, 3), _hx(layer, (1, 2, HIDDEN), torch.float64)),
    ),
}


def _hx(layer: Any, shape: tuple[int, ...], dtype: Any = torch.float32) -> Any:
    state = torch.zeros(shape, dtype=dtype)
    return (state, state) if layer.mode == "LSTM" else state


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_torch_refuses_is_refused_as_it_is(name: str, case: str) -> None:
    kind, call = REFUSED[case]
    for module in (nn, ragged_torch):
        with pytest.raises(kind):
            call(getattr(module, name)(INPUT, HIDDEN))


ORDERS = (([0, 2], [0, 1]), ([-1, 0], [0, 1]), ([0, 0], [0, 0]), ([1, 0], [0, 1]), ([0], [0]),
          ([0.0, 1.0], [0.0, 1.0]), (None, [0, 1]))  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_packed_rows_in_no_order_are_refused(name: str, order: Any) -> None:
    packed = pack_sequence([torch.ones(3, 3), torch.ones(2, 3)])
    indices = (None if each is None else torch.tensor(each) for each in order)
    wrong = PackedSequence.__new__(PackedSequence, packed.data, packed.batch_sizes, *indices)
    with pytest.raises(ArgumentError, match=r"`input.sorted_indices` is no order; expected each"):
        getattr(ragged_torch, name)(3, 4)(wrong)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_packed_rows_of_other_features_are_refused(name: str) -> None:
    """Unlike by torch.nn.LSTM, which reads past its weights."""
    layer = getattr(ragged_torch, name)(INPUT, HIDDEN)
    with pytest.raises(RuntimeError, match=r"`input` is of 4 features; expected input_size, 3"):
        layer(pack_sequence([torch.ones(2, 4)]))


CONSTRUCTED: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    "no input": (ValueError, {"input_size": 0}),
    "no hidden": (ValueError, {"hidden_size": 0}),
    "no layers": (ValueError, {"num_layers": 0}),
    "hidden of float": (TypeError, {"hidden_size": 2.0}),
    "bias of int": (TypeError, {"bias": 1}),
    "batch_first of str": (TypeError, {"batch_first": "yes"}),
    "rate above 1": (ValueError, {"dropout": 1.5}),
    "rate of bool": (ValueError, {"dropout": True}),
    "rate of str": (ValueError, {"dropout": "0.5"}),
    "projection": (ValueError, {"proj_size": HIDDEN}),
    "negative projection": (ValueError, {"proj_size": -1}),
    "dropout in one layer": (UserWarning, {"dropout": 0.5}),
}


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("case", CONSTRUCTED)
def test_constructors_refuse_what_torchs_do(name: str, case: str) -> None:
    kind, given = CONSTRUCTED[case]
    sizes = {"input_size": INPUT, "hidden_size": HIDDEN, **given}
    for module in (nn, ragged_torch):
        with pytest.raises(kind):  # warnings are errors here
            getattr(module, name)(**sizes)
