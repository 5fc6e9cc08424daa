"""Tensors that hide what they are, modes that watch, and the addresses that kernels get."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import ragged
from ragged.errors import DeviceError, DtypeError, LengthsError, ShapeError
from ragged.kernels import available

torch = pytest.importorskip("torch")
ragged_torch = pytest.importorskip("ragged_torch")
from ragged_torch.recurrent import cpp as kernels  # noqa: E402
from torch import func  # noqa: E402

LENGTHS, WIDTH, FEATURES, HIDDEN = [3, 0, 5, 1], 5, 2, 3
POLICIES = ("auto", "rule", "always", "never")
# Torch warns of its own code, where it is first imported.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
native = pytest.mark.skipif(not available(), reason="no kernels here")


def layer(**options):
    return ragged_torch.Recurrent("LSTM", FEATURES, HIDDEN, bidirectional=True, seed=0, **options)


def batch(seed=0):
    values = np.random.default_rng(seed).normal(size=(len(LENGTHS), WIDTH, FEATURES))
    return torch.tensor(values, dtype=torch.float32)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def gradients_of(model, x, lengths=LENGTHS):
    return torch.autograd.grad((model(x, lengths)[0] ** 2).sum(), list(model.parameters()))


def test_masks_and_losses_on_meta_give_shapes():
    mask = torch.ones(2, 3, dtype=torch.bool, device="meta")
    assert ragged.lengths_from_mask(mask).shape == (2,)
    logits, labels = torch.ones(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)
    for loss, sides in (
        (ragged.losses.cross_entropy, (logits, labels)),
        (ragged.losses.binary_cross_entropy, (logits, logits)),
    ):
        total = loss(*(side.to("meta") for side in sides), lengths=[1, 2])
        assert total.is_meta
        assert total.shape == ()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_layer_on_meta_gives_shapes(policy):
    model, x = layer().to("meta"), batch().to("meta").requires_grad_()
    y, (h, c) = model(x, ragged.Lengths(LENGTHS, WIDTH, policy=policy))
    (y.sum() + h.sum() + c.sum()).backward()
    assert y.is_meta
    assert (y.shape, h.shape) == ((4, 5, 2 * HIDDEN), (2, 4, HIDDEN))
    assert x.grad.shape == x.shape


def test_fake_tensors_give_shapes():
    from torch._subclasses import FakeTensorMode

    mode, model = FakeTensorMode(), layer()
    weights = {name: mode.from_tensor(value) for name, value in model.named_parameters()}
    x = mode.from_tensor(batch())
    assert ragged.lstm(weights, x, LENGTHS)[0].shape == (4, 5, 2 * HIDDEN)
    with mode:
        assert ragged.lstm(weights, x, LENGTHS)[0].shape == (4, 5, 2 * HIDDEN)


def per_sample(model):
    def total(weights, x):
        return (func.functional_call(model, weights, (x[None], [4]))[0] ** 2).sum()

    return func.vmap(func.grad(total), (None, 0))


def forward_without_gradients(model):
    def run(x):
        with torch.no_grad():
            y, (h, c) = model(x, LENGTHS)
        return y, h, c

    return run


@pytest.mark.parametrize(
    ("mode", "compiler", "count"), [("real", "1", 3), ("real", "0", 1), ("symbolic", "1", 1)]
)
def test_make_fx_records_what_runs(mode, compiler, count, monkeypatch):
    from torch.fx.experimental.proxy_tensor import make_fx

    monkeypatch.setenv("RAGGED_KERNELS", compiler)
    model = layer()
    weights = {name: value.detach() for name, value in model.named_parameters()}
    runs = [
        forward_without_gradients(model),
        lambda x: gradients_of(model, x),
        lambda x: tuple(per_sample(model)(weights, x).values()),
    ]
    for run in runs[:count]:
        recorded = make_fx(run, tracing_mode=mode, _allow_non_fake_inputs=True)(batch())
        assert_close(recorded(batch(1)), run(batch(1)))


def test_make_fx_records_a_backward_pass_alone():
    from torch.fx.experimental.proxy_tensor import make_fx

    y = (model := layer())(batch(), LENGTHS)[0]

    def back(of_y):
        return torch.autograd.grad(y, list(model.parameters()), of_y, retain_graph=True)

    of_y = torch.linspace(-1, 1, y.numel()).view(y.shape)
    assert_close(make_fx(back)(torch.ones_like(y))(of_y), back(of_y))


def test_modes_see_an_operator_and_change_nothing():
    from torch.utils.flop_counter import FlopCounterMode

    model = layer()
    with FlopCounterMode(display=False):
        found = gradients_of(model, batch())
    assert_close(found, gradients_of(model, batch()))


WRAPPERS = """
import itertools, os, torch, ragged, ragged_torch
from torch import distributed, nn
from torch.distributed.tensor import Replicate, Shard, distribute_module, distribute_tensor
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._pytree import tree_map

class Wrapper(torch.Tensor):  # as torch.testing's LoggingTensor
    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
    def __init__(self, inner):
        self.inner = inner
    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        inner = lambda value: value.inner if isinstance(value, Wrapper) else value
        found = function(*tree_map(inner, args), **tree_map(inner, kwargs or {}))
        return tree_map(lambda v: Wrapper(v) if isinstance(v, torch.Tensor) else v, found)

x = torch.linspace(-1, 1, 40).view(4, 5, 2)
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
make = lambda: ragged_torch.Recurrent("LSTM", 2, 3, bidirectional=True, seed=0)
placed = make()
distribute_module(placed, mesh)
whole = lambda y: y.full_tensor()
inside = {Wrapper: lambda y: y.inner, TwoTensor: lambda y: y.a}
kinds = {
    "TwoTensor": (make(), lambda x: TwoTensor(x, x.clone()), inside[TwoTensor]),
    "Wrapper": (make(), Wrapper, inside[Wrapper]),
    "replicated": (placed, lambda x: distribute_tensor(x, mesh, [Replicate()]), whole),
    "sharded": (placed, lambda x: distribute_tensor(x, mesh, [Shard(0)]), whole),
}
for compiler, lengths in itertools.product("10", (None, [3, 0, 5, 1])):
    os.environ["RAGGED_KERNELS"] = compiler
    model = make()
    y = model(x, lengths)[0]
    (y**2).sum().backward()
    for name, (other, wrap, unwrap) in kinds.items():
        other.zero_grad()
        found = other(wrap(x), lengths)[0]
        torch.testing.assert_close(unwrap(found), y, rtol=1e-5, atol=1e-6)
        if name != "Wrapper":
            (found**2).sum().backward()
            for one, two in zip(other.parameters(), model.parameters(), strict=True):
                grad = one.grad if type(one.grad) is torch.Tensor else unwrap(one.grad)
                torch.testing.assert_close(grad, two.grad, rtol=1e-4, atol=1e-5)
    y = model(x, lengths)[0]
    for of_y in (Wrapper(torch.ones_like(y)), TwoTensor(torch.ones_like(y), torch.ones_like(y))):
        found = torch.autograd.grad(y, list(model.parameters()), of_y, retain_graph=True)
        expected = torch.autograd.grad(y.sum(), list(model.parameters()), retain_graph=True)
        for one, two in zip(found, expected, strict=True):
            one = inside.get(type(one), lambda y: y)(one)
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
distributed.destroy_process_group()
print("all right")
"""


def test_wrappers_get_what_their_contents_get():
    command = [sys.executable, "-c", WRAPPERS]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "all right" in run.stdout, run.stderr[-2000:]


@pytest.mark.parametrize("policy", POLICIES)
def test_inputs_are_read_however_they_lie_in_memory(policy):
    lengths, model, plain = ragged.Lengths(LENGTHS, WIDTH, policy=policy), layer(), batch()
    odd = {
        "negated": (torch._neg_view(plain), -plain),
        "imaginary": (torch.complex(plain, plain).conj().imag, -plain),
        "expanded": (plain[:1].expand(plain.shape), plain[:1].repeat(4, 1, 1)),
        "transposed": (plain.mT.contiguous().mT, plain),
        "strided": (plain.repeat_interleave(2, 1)[:, ::2], plain),
        "no memory": (torch._efficientzerotensor(plain.shape), 0 * plain),
    }
    for given, same in odd.values():
        assert_close(gradients_of(model, given, lengths), gradients_of(model, same, lengths))
        given = given.detach()
        if not given._is_zerotensor():
            given.requires_grad_()
            same = same.detach().requires_grad_()
            y, other = model(given, lengths)[0], model(same, lengths)[0]
            of_y = torch._neg_view(torch.linspace(-1, 1, y.numel()).view(y.shape))
            assert_close(
                torch.autograd.grad(y, given, of_y), torch.autograd.grad(other, same, of_y)
            )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (torch.Tensor.to_sparse, r"of layout torch.sparse_coo; .* by to_dense\(\)"),
        (torch.Tensor.to_mkldnn, r"of layout torch._mkldnn; .* by to_dense\(\)"),
        (
            lambda x: torch.nested.nested_tensor([x[0], x[1, :3]], layout=torch.jagged),
            r"a nested tensor; .* by to_padded_tensor\(0.0\), and give lengths",
        ),
    ],
)
def test_other_layouts_are_refused_by_name(change, message):
    with pytest.raises(DtypeError, match=f"`x` is .*{message}"):
        layer()(change(batch()), LENGTHS)


FORWARDS, BACKWARDS = kernels.Call("LSTM", 5), kernels.Call("LSTM", 5, reverse=True)


def kernel_inputs():
    shapes = [(4, 5, 2), (4, 3), (4, 3), (12, 2), (12, 3), (12,), (12,)]
    return [torch.linspace(-1, 1, int(np.prod(shape))).view(shape) for shape in shapes]


@native
def test_kernels_read_lengths_however_they_lie_in_memory():
    both = torch.tensor([[3, 9], [0, 9], [5, 9], [1, 9]])
    expected = kernels.forward(*kernel_inputs(), both[:, 0].clone(), None, FORWARDS, 0)
    assert_close(kernels.forward(*kernel_inputs(), both[:, 0], None, FORWARDS, 0), expected)
    expected = kernels.forward(*kernel_inputs(), torch.full((4,), 2), None, BACKWARDS, 0)
    assert_close(
        kernels.forward(*kernel_inputs(), torch.tensor(2).expand(4), None, BACKWARDS, 0), expected
    )


@native
@pytest.mark.parametrize(
    ("place", "change", "error", "message"),
    [
        (0, lambda x: x.to("meta"), DeviceError, "meta; expected dense, on the CPU"),
        (3, lambda x: x.to("meta"), DeviceError, "meta; expected dense, on the CPU"),
        (4, lambda x: x.to_sparse(), DeviceError, "torch.sparse_coo on cpu; expected dense"),
        (2, lambda x: x.double(), DtypeError, "of dtype torch.float64; expected torch.float32"),
        (6, lambda x: x[:-1], ShapeError, r"of shape \(11,\); expected shape \(12,\)"),
        (7, lambda x: x.int(), DtypeError, "of dtype torch.int32; expected torch.int64"),
        (7, lambda x: x[:-1], ShapeError, r"of shape \(3,\); expected shape \(4,\)"),
        (7, lambda x: x.to("meta"), DeviceError, "meta; expected dense, on the CPU"),
        (8, lambda x: x.byte(), DtypeError, "of dtype torch.uint8; expected torch.bool"),
        (8, lambda x: x[:, 1:], ShapeError, r"of shape \(4, 4\); expected shape \(4, 5\)"),
    ],
)
def test_kernels_refuse_what_is_no_memory_of_theirs(place, change, error, message):
    resets = torch.zeros(4, 5, dtype=torch.bool)
    inputs = [*kernel_inputs(), torch.tensor(LENGTHS), resets]
    inputs[place] = change(inputs[place])
    with pytest.raises(error, match=message):
        kernels.forward(*inputs, FORWARDS, 0)


@native
def test_kernels_refuse_a_backward_pass_that_does_not_fit():
    inputs, lengths = kernel_inputs(), torch.tensor(LENGTHS)
    y, h, c, kept = kernels.forward(*inputs, lengths, None, FORWARDS, sum(LENGTHS))
    told = lengths, None, FORWARDS, True
    with pytest.raises(ShapeError, match=r"of shape \(4, 4, 3\); expected shape \(4, 5, 3\)"):
        kernels.backward((y[:, 1:], h, c), inputs[:5], y, kept, *told)
    for room, error in ((0, ShapeError), (1, LengthsError)):
        with pytest.raises(error, match=r"kept nothing|not all between 0 and"):
            kernels.backward((y, h, c), inputs[:5], y, kept[:room], *told)


@pytest.mark.parametrize("compiler", ["1", "0"])
@pytest.mark.parametrize("lengths", [LENGTHS, [0, 0, 0, 0], []])
@pytest.mark.parametrize("policy", POLICIES)
def test_no_two_results_share_storage(policy, lengths, compiler, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", compiler)
    model, x = layer(), batch()[: len(lengths)].requires_grad_()
    state = [torch.zeros(2, len(lengths), HIDDEN).requires_grad_() for _ in "hc"]
    y, (h, c) = model(x, ragged.Lengths(lengths, WIDTH, policy=policy), tuple(state))
    leaves = [x, *state, *model.parameters()]
    total = (y**2).sum() + h.sum() + c.sum()
    gradients = torch.autograd.grad(total, leaves, materialize_grads=True)
    every = [value for value in (y, h, c, *leaves, *gradients) if value.numel()]
    assert len({value.untyped_storage().data_ptr() for value in every}) == len(every)


@pytest.mark.parametrize("kernels", ["1", "0"])
def test_tensors_stay_where_they_are_whatever_the_default_device(kernels, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    with ragged.use_backend("torch"):
        model = ragged.models.EncoderDecoderLSTM(FEATURES, 1, hidden_size=2, num_layers=1, seed=0)
    own, future, counts = layer(), batch(1)[..., :1], torch.tensor(LENGTHS)
    x, y = batch(), batch(1)

    def run():
        found = [
            value
            for policy in POLICIES
            for value in gradients_of(own, x, ragged.Lengths(LENGTHS, WIDTH, policy))
        ]
        packed = ragged.pack_sequences(x, LENGTHS)
        found += [model.eval()(x, future, LENGTHS, LENGTHS).output, packed.data]
        found += [ragged.flip_sequences(x, LENGTHS), ragged.create_padding_mask(counts)]
        return [*found, ragged.losses.mse(x, y, lengths=LENGTHS)]

    expected = run()
    with torch.device("meta"):
        found = run()
    assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.trace_method. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kernels", ["1", "0"])
def test_traced_programs_run_other_rows_and_are_trained(kernels, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    own, other, counts = layer(), batch(1)[:2, :3], torch.tensor([3, 1])
    traced = torch.jit.trace(own, (batch(), torch.tensor(LENGTHS)))
    whole = torch.jit.trace(own, (batch(),))
    frozen = layer().requires_grad_(False)
    fixed = torch.jit.trace(lambda x: frozen(x, LENGTHS)[0], (batch(),))
    assert_close([whole(other)[0], fixed(batch(1))], [own(other)[0], own(batch(1), LENGTHS)[0]])
    found, expected = (
        torch.autograd.grad(run(other, counts)[0].square().sum(), list(own.parameters()))
        for run in (traced, own)
    )
    assert_close(found, expected)
    with pytest.raises(Exception, match=r"LengthsError.* is 4 at row 0"):
        traced(other, counts + 1)


def outlived(x):
    """Take a tensor out of a transformation that ends, in what the transformation wrapped it."""
    taken = []
    func.grad(lambda x: [taken.append(x * 1), x.sum()][1])(x)
    return taken[0]


def test_tensors_that_outlived_their_transformation_are_what_they_wrap():
    model, x = layer(), batch()
    assert_close(gradients_of(model, outlived(x)), gradients_of(model, x))
    q = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 2, 4))).requires_grad_()
    found, expected = (
        torch.autograd.grad((ragged.attention(first, q, q) ** 2).sum(), q)
        for first in (outlived(q.detach()), q.detach())
    )
    assert_close(found, expected)
