"""torch's glue of the CUDA kernels, which a library that plays the driver runs on the host.

A played device has the host's memory, so tensors of the CPU go there. No GPU has run any of it.
"""

from functools import partial

import pytest

from ragged import Lengths, kernels
from ragged.errors import DeviceError, DtypeError, LengthsError, ShapeError
from ragged.recurrent.shape import RecurrentShape
from tests.kernels.cuda_cases import LAYOUTS, WIDTH, check, solved

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
torch = pytest.importorskip("torch")
glue = pytest.importorskip("ragged_torch.recurrent.cuda_kernels")
from ragged_torch.recurrent import scan  # noqa: E402
from ragged_torch.recurrent.cpp import Call  # noqa: E402
from ragged_torch.recurrent.stack import LayerInputs, Resets  # noqa: E402

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class TorchLayer:
    """A layer in torch, called as the cases call one."""

    def __init__(self, plan, device):
        self.plan, self.target = plan, glue.Target(device, lambda: 7)

    def forward(self, weights, x, lengths, state, *, layout, width, reverse, resets, to_initial):
        self.lengths = torch.tensor(lengths, dtype=torch.int32)
        self.inputs = [_leaf(each) for each in (x, *state, *(weights[name] for name in NAMES))]
        x, *state, w_ih, w_hh, b_ih, b_hh = self.inputs
        axes = {"padded": (len(lengths), width), "time_major": (width, len(lengths))}
        x = x.reshape(*axes.get(layout, x.shape[:1]), -1)
        c0 = state[1] if len(state) > 1 else x.new_zeros(len(lengths), 0)
        call = Call(self.plan.cell, width, reverse, layout, "initial" if to_initial else "zeros")
        at = (
            None if resets is None else torch.tensor(resets, dtype=torch.bool).reshape(x.shape[:-1])
        )
        weights = w_ih, w_hh, b_ih, b_hh
        y, h, c = glue.run_layer(x, state[0], c0, weights, self.lengths, call, self.target, at)
        self.outputs = (y, h, c)[: 1 + len(state)]
        y, *final = (each.detach().numpy() for each in self.outputs)
        return y.reshape(-1, y.shape[-1]), *final

    def backward(self, dy, *dstates):
        given = [torch.tensor(each, dtype=torch.float32) for each in (dy, *dstates)]
        given[0] = given[0].reshape(self.outputs[0].shape)
        x, *rest = torch.autograd.grad(self.outputs, self.inputs, given)
        states, weights = rest[: len(dstates)], rest[len(dstates) :]
        return [each.numpy() for each in (x, *weights, *states)]


def _leaf(array):
    return torch.tensor(array, dtype=torch.float32, requires_grad=True)


@pytest.fixture
def layer_of(fake_driver_of):
    def make(cell):
        fake = fake_driver_of(cell)
        return TorchLayer(fake.plan, fake.device)

    return make


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_outputs_and_gradients_are_the_oracles(layer_of, cell, layout):
    check(layer_of(cell), *solved(cell, reverse=layout == "packed"), layout)


def test_resets_start_the_state_anew(layer_of):
    case = solved("LSTM", reverse=True, resets=True, to_initial=True)
    check(layer_of("LSTM"), *case, "packed")


def inputs_of(case, **changed):
    x, state = torch.zeros(8, WIDTH, 2), [torch.zeros(8, 5)] * 2
    weights = [torch.tensor(case.weights[name]).float() for name in NAMES]
    lengths = torch.full((8,), WIDTH, dtype=torch.int32)
    given = {"x": x, "h0": state[0], "c0": state[1], "weights": weights, "lengths": lengths}
    return {**given, "call": Call("LSTM", WIDTH), **changed}


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"x": torch.zeros(8, WIDTH, 2, dtype=torch.float64)}, DtypeError),
        ({"x": torch.zeros(8, WIDTH + 1, 2)}, ShapeError),
        ({"c0": torch.zeros(8, 0)}, ShapeError),
        ({"h0": torch.zeros(8, 5, device="meta")}, DeviceError),
        ({"lengths": torch.full((8,), 1)}, DtypeError),
    ],
)
def test_what_is_no_input_is_refused(layer_of, changed, error):
    given = inputs_of(solved("LSTM")[0], **changed)
    with pytest.raises(error, match="recurrent kernel"):
        glue.run_layer(**given, target=layer_of("LSTM").target)


@pytest.mark.parametrize("start", [None, "zeros", "initial"])
def test_second_derivatives_are_those_of_plain_operations(layer_of, start):
    given = inputs_of(solved("LSTM")[0])
    if start is not None:
        given["call"] = given["call"]._replace(start=start)
        given["resets"] = torch.arange(8 * WIDTH).reshape(8, WIDTH) % 3 == 2
    given["x"] = torch.linspace(-1, 1, 8 * WIDTH * 2).reshape(8, WIDTH, 2).requires_grad_()
    curvatures = []
    for run in (partial(glue.run_layer, target=layer_of("LSTM").target), run_plain):
        y, *_ = run(**given)
        (dx,) = torch.autograd.grad(y.square().sum(), given["x"], create_graph=True)
        curvatures += torch.autograd.grad(dx.square().sum(), given["x"])
    torch.testing.assert_close(*curvatures, rtol=1e-4, atol=1e-5)


def run_plain(x, h0, c0, weights, lengths, call, resets=None):
    named = dict(zip(NAMES, weights, strict=True))
    marks = None if resets is None else Resets(resets, call.start)
    valid = Lengths(lengths, call.width)
    return scan.run_layer(call.mode, named, x, valid, h0, c0, resets=marks)


def test_arrays_may_lie_in_any_way(layer_of):
    given = inputs_of(solved("LSTM")[0], x=torch.linspace(-1, 1, 16 * WIDTH).reshape(8, WIDTH, 2))
    target = layer_of("LSTM").target
    right = glue.run_layer(**given, target=target)
    given["x"] = torch._neg_view(-given["x"].transpose(0, 1).contiguous().transpose(0, 1))
    given["h0"] = torch.zeros(5, 8).t()
    for found, expected in zip(glue.run_layer(**given, target=target), right, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["padded", "jagged"])
def test_lengths_that_nobody_checked_leave_no_array(layer_of, layout):
    target, lengths = layer_of("LSTM").target, torch.tensor([3, WIDTH + 1, -1, 2, 0, 1, 1, WIDTH])
    shape, case = RecurrentShape(2, 5), solved("LSTM")[0]
    parameters = {f"{name}_l0": torch.tensor(case.weights[name]).float() for name in NAMES}
    x, state = torch.ones(8, WIDTH, 2), [torch.zeros(1, 8, 5)] * 2
    x = x if layout == "padded" else x.flatten(0, 1)
    rows = Lengths.unread(lengths, WIDTH)
    inputs = LayerInputs(shape, parameters, x, rows, tuple(state), layout=layout)
    y, (h, _) = glue.run(inputs, target)
    with pytest.raises(LengthsError):
        glue.run(inputs._replace(lengths=Lengths.unchecked(lengths, WIDTH)), target)
    wrong = (lengths < 0) | (lengths > WIDTH) | (layout == "jagged")
    assert torch.equal(h[0].isnan().all(-1), wrong)
    assert torch.equal(h[0].isfinite().all(-1), ~wrong)
    assert y.isfinite().all()  # nothing is read of those rows
