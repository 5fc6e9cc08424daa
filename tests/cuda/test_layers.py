"""Recurrent layers on CUDA: what cuDNN needs of them, and what they spare the device."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ragged_torch  # noqa: E402
from ragged_torch.precision import use_tf32  # noqa: E402
from ragged_torch.recurrent import cudnn  # noqa: E402
from ragged_torch.recurrent.dispatch import recurrent_reasons  # noqa: E402

import ragged  # noqa: E402
from ragged.backend import use_backend  # noqa: E402
from ragged.recurrent.dispatch import LayerCall  # noqa: E402
from ragged.recurrent.shape import RecurrentShape  # noqa: E402

# Torch warns once a process about the kernel that runs a projection on a CPU.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")

KINDS: dict[str, dict[str, Any]] = {
    "LSTM": {"mode": "LSTM"},
    "LSTM, both directions": {"mode": "LSTM", "num_layers": 2, "bidirectional": True},
    "LSTM, projection": {"mode": "LSTM", "proj_size": 2},
    "LSTM, no bias": {"mode": "LSTM", "bias": False},
    "GRU, both directions": {"mode": "GRU", "bidirectional": True},
    "RNN": {"mode": "RNN_TANH", "num_layers": 2},
    "RNN, relu": {"mode": "RNN_RELU"},
}
LENGTHS = {"full": [4, 4, 4], "little padding": [4, 4, 4, 4, 4, 3], "much padding": [2, 0, 4]}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def make_layer(kind: str, device: str, dtype: Any = torch.float32) -> Any:
    with use_backend("torch"):
        options = {"input_size": 3, "hidden_size": 4, **KINDS[kind]}
        return ragged_torch.Recurrent(seed=0, **options).to(device, dtype)


def make_input(rows: int, device: str, dtype: Any = torch.float32) -> Any:
    values = np.random.default_rng(0).normal(size=(rows, 4, 3))
    return torch.tensor(values, dtype=dtype).to(device).requires_grad_()


def results_of(layer: Any, x: Any, lengths: Any) -> list[Any]:
    """Outputs, states and the gradients of all inputs."""
    y, state = layer(x, lengths)
    parts = [y, *(state if isinstance(state, tuple) else [state])]
    loss = sum((part * part.detach().cos()).sum() for part in parts)
    grads = torch.autograd.grad(loss, [x, *layer.parameters()])
    return [value.detach().cpu() for value in (*parts, *grads)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_layers_equal_those_on_the_cpu(cuda, kind, lengths):
    counts = LENGTHS[lengths]
    expected = results_of(make_layer(kind, "cpu"), make_input(len(counts), "cpu"), counts)
    found = results_of(make_layer(kind, cuda), make_input(len(counts), cuda), counts)
    for actual, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, wanted, **CLOSE)


def buffers(layer: Any) -> list[Any]:
    shape, found = layer.shape, []
    for index in range(shape.num_layers):
        names = [shape.layer_names(index, each).values() for each in shape.directions]
        weights = [getattr(layer, name) for each in names for name in each]
        size = shape.proj_size or shape.hidden_size
        found.append(cudnn.buffer_of(shape.mode, weights, len(weights) // len(names), size))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_one_buffer_from_the_move_to_the_device_on(cuda, kind):
    layer = make_layer(kind, cuda)
    before = {name: value.detach().cpu() for name, value in layer.named_parameters()}
    assert all(buffer is not None for buffer in buffers(layer))
    for name, value in make_layer(kind, "cpu").named_parameters():
        assert torch.equal(before[name], value), "the move changes no number"
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    y, _ = layer(make_input(3, cuda), [2, 0, 4])
    y.sum().backward()
    optimizer.step()
    assert all(buffer is not None for buffer in buffers(layer)), "nor does training move them"
    copied = copy.deepcopy(layer)
    assert all(buffer is not None for buffer in buffers(copied.to(cuda)))
    layer.load_state_dict(copied.state_dict())
    assert all(buffer is not None for buffer in buffers(layer.half()))


def test_layers_made_on_the_device_and_drop_ins_have_buffers_too(cuda):
    assert all(buffer is not None for buffer in buffers(ragged_torch.LSTM(3, 4, device=cuda)))
    layer = ragged_torch.GRU(3, 4, bidirectional=True).to(cuda)
    assert all(buffer is not None for buffer in buffers(layer))


def test_weights_in_another_order_are_no_buffer(cuda):
    shape = RecurrentShape(3, 4, 1, True, False, 0, "LSTM")
    extents = list(shape.parameter_shapes().values())
    buffer = torch.zeros(sum(int(np.prod(extent)) for extent in extents), device=cuda)
    parts = buffer.split([int(np.prod(extent)) for extent in extents])
    weights = [part.view(extent) for part, extent in zip(parts, extents, strict=True)]
    assert cudnn.buffer_of("LSTM", weights, 4, 4) is not None, "torch's order is cuDNN's"
    weights[2], weights[3] = weights[3], weights[2]
    assert cudnn.buffer_of("LSTM", weights, 4, 4) is None


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", ["LSTM, both directions", "GRU, both directions", "RNN"])
def test_a_call_copies_no_weights_and_waits_for_nothing(counted, cuda, kind, lengths):
    layer, x = make_layer(kind, cuda), make_input(len(LENGTHS[lengths]), cuda)
    with counted() as found:
        y, _ = layer(x, LENGTHS[lengths])
        y.sum().backward()
    assert found["weights copied"] == 0
    assert found["synchronisation"] == 0
    assert found["copy to device"] == (lengths != "full"), "the lengths, once"


@pytest.mark.parametrize("kind", ["LSTM, both directions", "LSTM, no bias", "LSTM, projection"])
def test_weights_that_are_no_buffer_become_one_for_a_call(counted, cuda, kind):
    layer, x = make_layer(kind, cuda), make_input(3, cuda)
    expected = layer(x, [2, 0, 4])[0]
    apart = {
        name: value.clone() for name, value in layer.named_parameters()
    }  # as a cast leaves them
    with counted() as found:
        y, _ = torch.func.functional_call(layer, apart, (x, [2, 0, 4]))
        y.sum().backward()
    assert found["cudnn packed"] > found["weights copied"] == 0
    torch.testing.assert_close(y, expected)


def test_the_order_of_packed_rows_is_made_on_the_device(counted, cuda):
    layer, x = make_layer("LSTM", cuda), make_input(3, cuda)
    lengths = ragged.Lengths([2, 0, 4]).placed(torch.tensor([2, 0, 4], device=cuda))
    with counted() as found:
        layer(x, lengths)[0].sum().backward()
    assert found["cudnn packed"] == 1
    assert found["copy to device"] == found["synchronisation"] == 0


def test_states_of_any_strides_are_taken(cuda):
    for lengths in ([4, 4, 4], [2, 0, 4]):
        found = []
        for device in ("cpu", cuda):
            layer = make_layer("LSTM, both directions", device)
            state = torch.full((4, 1, 1), 0.5, device=device).expand(4, 3, 4)
            y, (h, c) = layer(make_input(3, device), lengths, (state, state))
            found.append([part.detach().cpu() for part in (y, h, c)])
        torch.testing.assert_close(found[1], found[0], **CLOSE)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_are_right(cuda, kind, lengths):
    counts, found = LENGTHS[lengths], []
    for device in ("cpu", cuda):
        layer = make_layer(kind, device, torch.float64)
        x = make_input(len(counts), device, torch.float64)
        y, _ = layer(x, counts)
        first = torch.autograd.grad((y**2).sum(), [x, *layer.parameters()], create_graph=True)
        penalty = sum((grad**2).sum() for grad in first)
        second = torch.autograd.grad(penalty, [x, *layer.parameters()])
        found.append([value.cpu() for value in second])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


def test_second_derivatives_count_a_state_that_depends_on_the_data_once(cuda):
    found = []
    for device in ("cpu", cuda):
        layer = make_layer("LSTM", device, torch.float64)
        weights = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
        x = make_input(3, device, torch.float64)
        data = x.transpose(0, 1)
        h = data.mean((0, 2))[None, :, None].expand(1, 3, 4)
        y, _ = cudnn.run_layer("LSTM", [weights], data, (h, h))
        (first,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
        found.append(torch.autograd.grad((first**2).sum(), x)[0].cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


def test_a_graph_that_is_kept_gives_the_same_gradients_again(cuda):
    layer, x = make_layer("LSTM", cuda), make_input(3, cuda)
    y, _ = layer(x, [2, 0, 4])
    first = torch.autograd.grad(y.sum(), list(layer.parameters()), retain_graph=True)
    again = torch.autograd.grad(y.sum(), list(layer.parameters()))
    torch.testing.assert_close(again, first)


def test_float32_is_float32_and_nothing_global_is_changed(counted, cuda):
    layer, x = make_layer("LSTM", cuda), make_input(3, cuda)
    before = torch.backends.cudnn.allow_tf32
    assert before, "torch's default, which has to be overruled"
    with counted() as exact:
        layer(x, [2, 0, 4])[0].sum().backward()
    with counted() as fast:
        with use_tf32(True):
            y, _ = layer(x, [2, 0, 4])
        y.sum().backward()
    assert torch.backends.cudnn.allow_tf32 is before
    assert exact["TF32"] == 0
    assert fast["TF32"] == 2, "both passes, the second one outside the block"


def operator_inputs(device: str, counts: list[int]) -> list[Any]:
    layer = make_layer("LSTM", device)
    x, zeros = make_input(3, device), torch.zeros(3, 4, device=device)
    lengths = torch.tensor(counts, device=device)
    return [x, lengths, zeros, zeros, *layer.parameters(), None, "LSTM", False, True, None, "zeros"]


def test_the_operator_reads_no_lengths_on_the_device(counted, cuda):
    inputs = operator_inputs(cuda, [2, 0, 4])
    with counted() as found:
        y, h, c, _ = torch.ops.ragged.recurrent_layer(*inputs)
        (y.sum() + h.sum() + c.sum()).backward()
    assert found["synchronisation"] == found["copy to device"] == found["copy to host"] == 0
    there = torch.ops.ragged.recurrent_layer(*operator_inputs("cpu", [2, 0, 4]))
    for actual, expected in zip((y, h, c), there, strict=False):
        torch.testing.assert_close(actual.cpu(), expected, **CLOSE)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_wrong_length_that_nobody_reads_gives_nan(cuda, wrong):
    inputs = operator_inputs(cuda, [2, wrong, 4])
    expected = torch.ops.ragged.recurrent_layer(*operator_inputs(cuda, [2, 0, 4]))
    results = torch.ops.ragged.recurrent_layer(*inputs)
    for actual, right in zip(results[:3], expected, strict=False):
        assert actual[1].isnan().all()
        torch.testing.assert_close(actual[[0, 2]], right[[0, 2]])


def test_a_compiled_layer_waits_for_nothing(counted, cuda):
    layer, x = make_layer("GRU, both directions", cuda), make_input(3, cuda)
    lengths = torch.tensor([2, 0, 4], device=cuda)
    run = torch.compile(lambda x, n: layer(x, n)[0], backend="aot_eager", fullgraph=True)
    run(x, lengths).sum().backward()
    with counted() as found:
        y = run(x, lengths)
        y.sum().backward()
    assert found["synchronisation"] == found["copy to device"] == found["copy to host"] == 0
    assert found["weights copied"] == 0
    torch.testing.assert_close(y, layer(x, lengths)[0], **CLOSE)


CALL = LayerCall("cuda", "float32", hidden_size=8, rows=4, width=10, compiler=False)


@pytest.mark.parametrize(
    ("tokens", "mode", "chosen"),
    [
        (40, "LSTM", "padded"),
        (37, "LSTM", "padded"),
        (35, "LSTM", "packed"),
        (20, "GRU", "packed"),
        (37, "RNN_RELU", "packed"),
        (40, "RNN_RELU", "padded"),
        (0, "LSTM", "scan"),
        (None, "LSTM", "padded"),
        (None, "RNN_RELU", "scan"),
    ],
)
def test_cudnn_is_dense_below_a_tenth_of_padding(tokens, mode, chosen):
    reasons = recurrent_reasons(CALL._replace(tokens=tokens, mode=mode))
    assert next(name for name, reason in reasons.items() if reason is None) == chosen
