"""Torch's transformations of an LSTM, beside the same equations row by row in plain operations."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import ragged
from ragged.errors import LengthsError
from ragged.kernels import available

torch = pytest.importorskip("torch")
ragged_torch = pytest.importorskip("ragged_torch")
from torch import func  # noqa: E402
from torch.autograd import functional  # noqa: E402

LENGTHS, WIDTH, FEATURES, HIDDEN = [3, 0, 1], 3, 2, 2
IMPLEMENTATIONS = {  # policy, dtype, RAGGED_KERNELS
    "kernels": ("auto", torch.float64, "1"),
    "no compiler": ("auto", torch.float32, "0"),
    "padded": ("never", torch.float32, "1"),
    "padded, double": ("never", torch.float64, "1"),
    "packed": ("always", torch.float64, "1"),
}
TOLERANCE = {torch.float64: (1e-10, 1e-12), torch.float32: (1e-4, 1e-5)}
# Torch warns of its own code, where it is first imported and in `linearize`.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning"),
]


@cache
def layer(dtype=torch.float64):
    return ragged_torch.Recurrent("LSTM", FEATURES, HIDDEN, bidirectional=True, seed=0).to(dtype)


@cache
def parameters():
    return {name: value.detach() for name, value in layer().named_parameters()}


@cache
def batch():
    return torch.tensor(np.random.default_rng(0).normal(size=(len(LENGTHS), WIDTH, FEATURES)))


def rows(x, weights, lengths=LENGTHS):
    """The outputs of each row alone."""
    ys = []
    for row, length in enumerate(lengths):
        sides = []
        for suffix in ("_l0", "_l0_reverse"):
            ih, hh, b_ih, b_hh = (
                weights[name + suffix] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            h = c = x.new_zeros(1, HIDDEN)
            found = [h] * x.shape[1]
            steps = range(length)
            for step in steps if suffix == "_l0" else reversed(steps):
                i, f, g, o = (x[row, step][None] @ ih.T + b_ih + h @ hh.T + b_hh).chunk(4, -1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                found[step] = h = o.sigmoid() * c.tanh()
            sides.append(torch.cat(found))
        ys.append(torch.cat(sides, -1))
    return torch.stack(ys)


def squared(f):
    return lambda x, weights: (f(x, weights) ** 2).sum()


def twice(x):
    return torch.stack([x, 2 * x])


def each(tree):
    return {name: twice(value) for name, value in tree.items()}


def orders(f, x, weights, count=3):
    """All gradients of a sum of squares, and of their sum of squares, and so on."""
    leaves = [value.clone().requires_grad_() for value in (x, *weights.values())]
    total, found = squared(f)(leaves[0], dict(zip(weights, leaves[1:], strict=True))), []
    for _ in range(count):
        gradients = torch.autograd.grad(total, leaves, create_graph=True)
        assert len({each.untyped_storage().data_ptr() for each in gradients}) == len(leaves)
        found += [each.detach() for each in gradients]
        total = sum((each**2).sum() for each in gradients)
    return found


def saved_on_cpu(f, x, weights):
    with torch.autograd.graph.save_on_cpu():
        return orders(f, x, weights, 2)


def checkpointed(f, x, weights):
    from torch.utils.checkpoint import checkpoint

    return orders(lambda *args: checkpoint(f, *args, use_reentrant=False), x, weights, 2)


def batched_gradients(f, x, weights):
    x = x.clone().requires_grad_()
    y = f(x, weights)
    return torch.autograd.grad(y, x, twice(torch.ones_like(y)), is_grads_batched=True)


def forward_over_no_grad(f, x, weights):
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        return torch.autograd.forward_ad.unpack_dual(f(dual, weights)).tangent


TRANSFORMATIONS = {
    "grad": lambda f, x, w: func.grad(squared(f), argnums=(0, 1))(x, w),
    "vjp": lambda f, x, w: func.vjp(lambda x: f(x, w), x)[1](torch.ones_like(f(x, w))),
    "jacrev": lambda f, x, w: func.jacrev(f, argnums=(0, 1))(x, w),
    "jvp": lambda f, x, w: func.jvp(lambda x: f(x, w), (x,), (torch.ones_like(x),)),
    "jvp of vjp": lambda f, x, w: func.jvp(
        func.vjp(lambda x: f(x, w), x)[1],
        (torch.ones_like(f(x, w)),),
        (torch.ones_like(f(x, w)),),
    ),
    "jacfwd": lambda f, x, w: func.jacfwd(f)(x, w),
    "hessian": lambda f, x, w: func.hessian(squared(f))(x, w),
    "jacrev of grad": lambda f, x, w: func.jacrev(func.grad(squared(f), argnums=1))(x, w),
    "linearize": lambda f, x, w: func.linearize(lambda x: f(x, w), x)[1](torch.ones_like(x)),
    "vmap": lambda f, x, w: func.vmap(f, (0, None))(twice(x), w),
    "vmap of gradients": lambda f, x, w: func.vmap(func.grad(squared(f), 1), (0, None))(
        twice(x), w
    ),
    "ensemble": lambda f, x, w: func.vmap(func.grad(squared(f), 1), (None, 0))(x, each(w)),
    "vmap of jacrev": lambda f, x, w: func.vmap(func.jacrev(f), (0, None))(twice(x), w),
    "grad of vmap": lambda f, x, w: func.grad(squared(func.vmap(f, (0, None))))(twice(x), w),
    "functionalize": lambda f, x, w: func.functionalize(f)(x, w),
    "is_grads_batched": batched_gradients,
    "jacobian": lambda f, x, w: functional.jacobian(lambda x: f(x, w), x, vectorize=True),
    "forward jacobian": lambda f, x, w: functional.jacobian(
        lambda x: f(x, w), x, vectorize=True, strategy="forward-mode"
    ),
    "forward mode under no_grad": forward_over_no_grad,
    "functional.hessian": lambda f, x, w: functional.hessian(
        lambda x: squared(f)(x, w), x, vectorize=True
    ),
    "functional.jvp": lambda f, x, w: functional.jvp(lambda x: f(x, w), x, torch.ones_like(x)),
    "three orders": orders,
    "save_on_cpu": saved_on_cpu,
    "checkpoint": checkpointed,
}


@cache
def expected(name):
    return TRANSFORMATIONS[name](rows, batch(), parameters())


def assert_equal(found, wanted, dtype):
    found, wanted = (torch.utils._pytree.tree_leaves(tree) for tree in (found, wanted))
    rtol, atol = TOLERANCE[dtype]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("name", "implementation"),
    [
        (name, implementation)
        for name in TRANSFORMATIONS
        for implementation in IMPLEMENTATIONS
        if name != "linearize" or implementation == "kernels"  # it takes a second
    ],
)
def test_transformations_are_those_of_the_equations(name, implementation, monkeypatch):
    policy, dtype, kernels = IMPLEMENTATIONS[implementation]
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    lengths = ragged.Lengths(LENGTHS, WIDTH, policy=policy)
    weights = {name: value.to(dtype) for name, value in parameters().items()}
    own = layer(dtype)

    def run(x, weights):
        return func.functional_call(own, weights, (x, lengths))[0]

    found = TRANSFORMATIONS[name](run, batch().to(dtype), weights)
    assert_equal(found, expected(name), dtype)


@pytest.mark.parametrize("kernels", ["1", "0"])
def test_vmap_maps_lengths_too_and_checks_them(kernels, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    mapped = torch.tensor([LENGTHS, [2, 3, 1]])

    def gradient(lengths, run=lambda x, w, n: func.functional_call(layer(), w, (x, n))[0]):
        return func.grad(lambda w: (run(batch(), w, lengths) ** 2).sum())(parameters())

    wanted = [gradient(lengths, rows) for lengths in mapped.tolist()]
    for name, found in func.vmap(gradient)(mapped).items():
        assert_equal(list(found), [one[name] for one in wanted], torch.float64)
    with pytest.raises(LengthsError, match="`lengths` is 4 at row 0"):
        func.vmap(gradient)(mapped + 1)


@pytest.mark.skipif(not available(), reason="no kernels here")
def test_padding_is_read_by_no_derivative():
    x = batch().clone()
    for row, length in enumerate(LENGTHS):
        x[row, length:] = torch.nan

    def run(x, weights):
        return func.functional_call(layer(), weights, (x, LENGTHS))[0]

    for name in ("grad", "hessian", "vmap of gradients", "three orders"):
        found = TRANSFORMATIONS[name](run, x, parameters())
        assert_equal(found, expected(name), torch.float64)
