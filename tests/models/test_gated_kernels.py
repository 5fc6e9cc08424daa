"""Gated residual networks by kernels, beside the modules whose work they do."""

from __future__ import annotations

import numpy as np
import pytest

from ragged import kernels
from ragged.models.categories import Variables

FEATURES, SMALL = 3, 5

torch = pytest.importorskip("torch")
gated_kernels = pytest.importorskip("ragged_torch.gated_kernels")
gated_plain = pytest.importorskip("ragged_torch.gated_plain")
variable_selection = pytest.importorskip("ragged_torch.variable_selection")
comparison = pytest.importorskip("tests.models.comparison")
close, gradients = comparison.close, comparison.gradients
pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels here")


def by_modules(grns, x, weights):
    """What the kernels are to give."""
    return torch.einsum("tf,ftd->td", weights, grns(x.movedim(-2, 0)))


def selection(size=12, dropout=0.0, dtype=torch.float64):
    """A selection whose parameters are all away from their initial ones and zeros."""
    rng = np.random.default_rng(1)
    variables = Variables(tuple(range(FEATURES)))
    made = variable_selection.VariableSelection(variables, SMALL, size, dropout, rng=rng).to(dtype)
    for parameter in made.parameters():
        parameter.data += torch.from_numpy(rng.normal(size=parameter.shape)) * 0.3
    return made


def inputs(tokens=60, dtype=torch.float64):
    drawn = np.random.default_rng(2)
    x = torch.from_numpy(drawn.normal(size=(tokens, FEATURES, SMALL))).to(dtype)
    weights = torch.from_numpy(drawn.dirichlet(np.ones(FEATURES), size=tokens)).to(dtype)
    return x.requires_grad_(), weights.requires_grad_()


@pytest.mark.parametrize("size", [3, 8, 37])
@pytest.mark.parametrize("tokens", [37, 48, 250])
def test_results_and_gradients_are_those_of_the_modules(size, tokens):
    grns, (x, weights) = selection(size).grns, inputs(tokens)
    assert gated_kernels.takes_kernels(grns.parts, x, weights)
    of = x, weights, *grns.parameters()
    found = gated_kernels.select(grns.parts, x, weights)
    expected = by_modules(grns, x, weights)
    close([found, *gradients(found, of)], [expected, *gradients(expected, of)])


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_what_is_dropped_is_dropped_again_backward_and_by_plain_operations(rate):
    grns, (x, weights) = selection(dropout=rate).grns, inputs()
    of = x, weights, *grns.parameters()
    torch.manual_seed(0)
    found = gated_kernels.select(grns.parts, x, weights)
    torch.manual_seed(0)
    seed = int(torch.randint(2**62, ())) if rate else 0
    networks = gated_kernels.networks_of(grns.parts)
    given = gated_kernels.Given(x, weights)
    expected = gated_plain.run_networks(given, networks, rate, seed)
    close([found, *gradients(found, of)], [expected, *gradients(expected, of)])
    if 0 < rate < 1:
        assert not torch.equal(found, gated_kernels.select(grns.parts, x, weights))


def test_second_derivatives_are_those_of_the_modules():
    grns, (x, drawn) = selection().grns, inputs(20)
    of = x, drawn, *grns.parameters()
    weights = drawn * x.square().sum(-1)  # they depend on what they weigh, as in the module
    ways = (
        gated_kernels.select(grns.parts, x, weights),
        by_modules(grns, x, weights),
    )
    found, expected = (
        [g.square().sum() for g in gradients(y, of, create_graph=True)] for y in ways
    )
    close(*(torch.autograd.grad(sum(each), of, retain_graph=True) for each in (found, expected)))


def test_frozen_parameters_and_batched_gradients():
    grns, (x, weights) = selection().grns, inputs(20)
    grns.hidden.weight.requires_grad_(False)
    ways = (
        gated_kernels.select(grns.parts, x, weights),
        by_modules(grns, x, weights),
    )
    many = torch.randn(4, *ways[0].shape, dtype=x.dtype)
    of = x, weights, grns.output.weight
    found, expected = (torch.autograd.grad(y, of, many, is_grads_batched=True) for y in ways)
    close(found, expected)


def test_segments_add_up_and_threads_change_nothing():
    grns, (x, weights) = selection(4).grns, inputs(4200)
    of, before, found = (x, weights, *grns.parameters()), torch.get_num_threads(), []
    expected = by_modules(grns, x, weights)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = gated_kernels.select(grns.parts, x, weights)
            found.append((y, *gradients(y, of)))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))
    close(found[0], [expected, *gradients(expected, of)])


def test_wide_networks_are_multiplied_in_pieces():
    grns, (x, weights) = selection(130).grns, inputs(130)
    expected = by_modules(grns, x, weights)
    close([gated_kernels.select(grns.parts, x, weights)], [expected])


def test_nan_of_a_token_stays_with_it():
    grns, (x, weights) = selection().grns, inputs()
    with torch.no_grad():
        x[7, 1] = torch.nan
    y = gated_kernels.select(grns.parts, x, weights)
    assert y.isnan().all(-1).nonzero().flatten().tolist() == [7]
    assert y.isnan().any(-1).sum() == 1


def watch(grns):
    grns.gate.register_forward_hook(lambda *_: None)


def replace(grns):
    grns.output.forward = grns.output.forward


def observe_all(grns):
    torch.nn.utils.parametrize.register_parametrization(grns.norm, "bias", torch.nn.Identity())


@pytest.mark.parametrize("seen", [watch, replace, observe_all])
def test_who_watches_a_module_sees_it_run(seen):
    grns, (x, weights) = selection().grns, inputs()
    assert gated_kernels.takes_kernels(grns.parts, x, weights)
    seen(grns)
    assert not gated_kernels.takes_kernels(grns.parts, x, weights)


def test_kernels_stay_out_of_what_they_cannot_do(monkeypatch):
    grns, (x, weights) = selection().grns, inputs()
    with torch.autocast("cpu"):
        assert not gated_kernels.takes_kernels(grns.parts, x, weights)
    half = x.to(torch.bfloat16), weights.to(torch.bfloat16)
    assert not gated_kernels.takes_kernels(grns.to(torch.bfloat16).parts, *half)
    assert gated_kernels.takes_kernels(selection(64).grns.parts, x[:, :2], weights[:2])
    wide = selection(65).grns.parts
    assert not gated_kernels.takes_kernels(wide, x[:2], weights[:2])  # too few to gain
    grns = selection().grns
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    assert not gated_kernels.takes_kernels(grns.parts, x, weights)


def test_transformations_see_the_modules():
    chosen, seen = selection(4), []
    x = torch.randn(20, FEATURES, dtype=torch.float64)

    def run(x):
        projected = chosen._project(x)
        seen.append(gated_kernels.takes_kernels(chosen.grns.parts, projected, x))
        return chosen(x)[0].sum()

    value = run(x)
    close([torch.func.vmap(run)(x[None])], [value[None]])
    mapped, at = torch.func.grad(run)(x), x.clone().requires_grad_()
    close([mapped], torch.autograd.grad(run(at), at))
    assert seen == [True, False, False, True]
