"""Resets on torch: the same as each episode run as a row of its own, in every layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ragged

torch = pytest.importorskip("torch")

import ragged_torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

INPUT, HIDDEN, WIDTH = 3, 4, 6
LENGTHS = [6, 0, 4, 1]
RESETS = {0: (2, 5), 2: (0, 1), 3: ()}  # of each row that has steps
NAMES = ("LSTM", "GRU", "RNN")


def marks() -> Tensor:
    """Resets of the padded batch, and at its padding, where they are not read."""
    resets = torch.zeros(len(LENGTHS), WIDTH, dtype=torch.bool)
    for row, steps in RESETS.items():
        resets[row, list(steps)] = True
    for row, length in enumerate(LENGTHS):
        resets[row, length:] = True
    return resets


def episodes(row: int) -> list[tuple[int, int]]:
    """From where to where each episode of a row goes."""
    ends = [*(step for step in RESETS[row] if step), LENGTHS[row]]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def build(name: str, **options: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "bidirectional": True, "batch_first": True, "dtype": torch.float64}
    ours = getattr(ragged_torch, name)(INPUT, HIDDEN, **{**sizes, **options})
    theirs = getattr(nn, name)(INPUT, HIDDEN, **{**sizes, **options})
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def inputs(name: str) -> tuple[Tensor, Any]:
    torch.manual_seed(1)
    x = torch.randn(len(LENGTHS), WIDTH, INPUT, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        x[row, length:] = torch.nan
    h, c = torch.randn(2, 4, len(LENGTHS), HIDDEN, dtype=torch.float64)
    return x.requires_grad_(), (h, c) if name == "LSTM" else h


def each(hx: Any, change: Any) -> Any:
    """Change h, and c if there is one."""
    return tuple(map(change, hx)) if isinstance(hx, tuple) else change(hx)


def alone(layer: nn.Module, x: Tensor, hx: Any, start: str) -> tuple[Tensor, Any]:
    """Every episode as a row of its own: outputs, and the states that leave each row."""
    rows, finals = [], []
    for row, length in enumerate(LENGTHS):
        own = each(hx, lambda state, row=row: state[:, row : row + 1])
        if not length:
            rows.append(x.new_zeros(WIDTH, 2 * HIDDEN))
            finals.append(own)
            continue
        ys, states = [], []
        spans = episodes(row)
        for k, (begin, end) in enumerate(spans):
            forwards = start == "initial" or (k == 0 and 0 not in RESETS[row])
            backwards = start == "initial" or k == len(spans) - 1
            scale = torch.tensor([forwards, backwards] * 2, dtype=x.dtype)[:, None, None]
            y, state = layer(x[row : row + 1, begin:end], each(own, lambda s, a=scale: a * s))
            ys.append(y[0])
            states.append(state if isinstance(state, tuple) else (state,))
        y = torch.cat(ys)
        rows.append(torch.cat([y, y.new_zeros(WIDTH - length, 2 * HIDDEN)]))
        last = [
            torch.stack([s[-1][k] if k % 2 == 0 else s[0][k] for k in range(4)])
            for s in zip(*states, strict=True)
        ]
        finals.append(tuple(last) if isinstance(hx, tuple) else last[0])
    final = (
        tuple(torch.cat(parts, 1) for parts in zip(*finals, strict=True))
        if isinstance(hx, tuple)
        else torch.cat(finals, 1)
    )
    return torch.stack(rows), final


def flat(y: Any, final: Any) -> list[Tensor]:
    return [y, *(final if isinstance(final, tuple) else (final,))]


@pytest.mark.parametrize("kernels", ["1", "0"])
@pytest.mark.parametrize("start", ["zeros", "initial"])
@pytest.mark.parametrize("name", NAMES)
def test_episodes_run_as_rows_of_their_own(name, start, kernels, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    ours, theirs = build(name)
    found = []
    for layer in (theirs, ours):
        x, hx = inputs(name)
        hx = each(hx, lambda state: state.requires_grad_())
        if layer is ours:
            results = flat(*ours(x, hx, lengths=LENGTHS, resets=marks(), start=start))
        else:
            results = flat(*alone(theirs, x, hx, start))
        torch.manual_seed(2)
        loss = sum((torch.randn(y.shape, dtype=y.dtype) * y).sum() for y in results)
        leaves = [x, *(hx if isinstance(hx, tuple) else (hx,)), *layer.parameters()]
        found.append([*results, *torch.autograd.grad(loss, leaves)])
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_takes_resets(name):
    ours, _ = build(name)
    x, hx = inputs(name)
    rows = [0, 2, 3]  # packed sequences have no empty rows
    lengths = [LENGTHS[row] for row in rows]
    hx = each(hx, lambda state: state[:, rows].contiguous())
    x, resets = x.detach()[rows].nan_to_num(), marks()[rows]
    expected, final = ours(x, hx, lengths=lengths, resets=resets)
    tokens = torch.cat([expected[row, :length] for row, length in enumerate(lengths)])
    values = torch.cat([x[row, :length] for row, length in enumerate(lengths)])
    flags = torch.cat([resets[row, :length] for row, length in enumerate(lengths)])
    offsets = torch.tensor([0, 6, 10, 11])
    y, end = ours(values, hx, offsets=offsets, resets=flags)
    assert all(map(torch.equal, flat(y, end), flat(tokens, final)))
    nested = torch.nested.nested_tensor_from_jagged(values, offsets)
    y, end = ours(nested, hx, resets=torch.nested.nested_tensor_from_jagged(flags, offsets))
    assert all(map(torch.equal, flat(y.values(), end), flat(tokens, final)))
    packed, flags = (pack_padded_sequence(each, lengths, True) for each in (x, resets))
    y, end = ours(packed, hx, resets=flags)
    expected_packed = pack_padded_sequence(expected, lengths, True).data
    assert all(map(torch.equal, flat(y.data, end), flat(expected_packed, final)))
    one, _ = ours(x[0], each(hx, lambda state: state[:, 0]), resets=resets[0])
    assert torch.allclose(one, expected[0], rtol=0, atol=1e-14)
    transposed = getattr(ragged_torch, name)(
        INPUT, HIDDEN, 2, bidirectional=True, dtype=torch.float64
    )
    transposed.load_state_dict(ours.state_dict())
    y, end = transposed(x.transpose(0, 1), hx, lengths=lengths, resets=resets.T)
    assert all(map(torch.equal, flat(y.transpose(0, 1), end), flat(expected, final)))


class Totals(nn.Module):
    """A layer with resets, and the gradient of x as well."""

    def __init__(self, layer: nn.Module, start: str) -> None:
        super().__init__()
        self.layer, self.start = layer, start

    def forward(self, x: Tensor, hx: Any, resets: Tensor) -> list[Tensor]:
        return flat(*self.layer(x, hx, lengths=LENGTHS, resets=resets, start=self.start))


RECORDERS = {
    "compile": lambda module, call: torch.compile(module, fullgraph=True, backend="aot_eager"),
    "export": lambda module, call: torch.export.export(module, call).module(),
    "make_fx": lambda module, call: make_fx(module)(*call),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(("name", "start"), [("GRU", "zeros"), ("LSTM", "initial")])
@pytest.mark.parametrize("recorder", RECORDERS)
def test_a_recorded_program_takes_other_resets_than_its_own(recorder, name, start):
    module = Totals(build(name)[0], start)
    x, hx = inputs(name)
    program = RECORDERS[recorder](module, (x.detach(), hx, torch.zeros_like(marks())))
    x.requires_grad_()
    found = []
    for run in (program, module):
        results = run(x, hx, marks())
        loss = sum(result.square().sum() for result in results)
        found.append([*results, *torch.autograd.grad(loss, x)])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    torch.compiler.reset()


def test_transformations_take_resets_that_they_do_not_record():
    layer = ragged_torch.GRU(INPUT, HIDDEN, batch_first=True, dtype=torch.float64)
    x, resets = inputs("GRU")[0].detach().nan_to_num(), marks()

    def total(x, resets):
        return layer(x, resets=resets)[0].sin().sum()

    def gradient(x, resets):
        return torch.func.grad(lambda x: total(x, resets))(x)

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf, resets), leaf)
    torch.testing.assert_close(gradient(x, resets), expected, rtol=1e-10, atol=1e-12)
    recorded = torch.compile(gradient, backend="eager", fullgraph=True)(x, resets)
    torch.testing.assert_close(recorded, expected, rtol=1e-10, atol=1e-12)
    torch.compiler.reset()


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_one_sequence_takes_resets_of_any_kind(kind):
    layer, x = ragged_torch.GRU(INPUT, HIDDEN), torch.randn(4, INPUT)
    y, h = layer(x, resets=kind([False, True, False, True]))
    parts = [layer(part) for part in (x[:1], x[1:3], x[3:])]
    torch.testing.assert_close(y, torch.cat([part[0] for part in parts]))
    torch.testing.assert_close(h, parts[-1][1])


def test_resets_that_are_none_are_refused():
    layer = ragged_torch.GRU(INPUT, HIDDEN, batch_first=True)
    x = torch.zeros(2, 3, INPUT)
    for resets in (torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.bool), [True], "yes"):
        with pytest.raises(ragged.RaggedError, match=r"GRU.*`resets` is .*; expected"):
            layer(x, resets=resets)
    for resets in ("yes", 3, [True]):
        with pytest.raises(ragged.RaggedError, match=r"GRU.*`resets` is .*; expected"):
            layer(x[0], resets=resets)
    with pytest.raises(ragged.errors.OptionError, match=r"`start` .*'zeros'"):
        layer(x, resets=torch.zeros(2, 3, dtype=torch.bool), start="last")
