"""A gated residual network alone, and a gate alone, by kernels, beside their modules."""

from __future__ import annotations

import numpy as np
import pytest

from ragged import kernels
from ragged.kernels.gated import split
from ragged.models.categories import Variables

torch = pytest.importorskip("torch")
gated_kernels = pytest.importorskip("ragged_torch.gated_kernels")
gated_plain = pytest.importorskip("ragged_torch.gated_plain")
layers = pytest.importorskip("ragged_torch.layers")
tokens_of = pytest.importorskip("ragged_torch.tokens")
variable_selection = pytest.importorskip("ragged_torch.variable_selection")
comparison = pytest.importorskip("tests.models.comparison")
close, gradients = comparison.close, comparison.gradients
pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels here")

HIDDEN, CONTEXT, ROWS, FEATURES = 7, 3, 4, 3
BLOCKS = ("plain", "linear", "stretched", "context", "gate", "features")


class Rows:
    """Tokens of which each belongs to a row."""

    def __init__(self, tokens):
        self.rows = torch.from_numpy(np.random.default_rng(3).integers(0, ROWS, tokens))

    def spread(self, rows):
        return rows.index_select(0, self.rows)


class Block:
    """A block, what it is called with, and what has gradients."""

    def __init__(self, kind, size=12, tokens=60, dropout=0.0, dtype=torch.float64):
        rng = np.random.default_rng(1)
        inputs = size + 5 if kind in ("linear", "stretched") else size
        has_context = kind in ("context", "features")
        options = {"context_size": CONTEXT if has_context else None, "rng": rng}
        if kind == "gate":
            module = layers.GateAddNorm(size, dropout, rng=rng)
        elif kind == "features":
            inputs, variables = FEATURES, Variables(tuple(range(FEATURES)))
            module = variable_selection.VariableSelection(variables, 5, size, dropout, **options)
        else:
            options |= {"interpolate": kind == "stretched"}
            module = layers.GRN(inputs, HIDDEN, size, dropout, **options)
        self.module = module.to(dtype)
        self.grn = module.grns if kind == "features" else module
        for parameter in self.module.parameters():  # away from their initial ones and zeros
            parameter.data += torch.from_numpy(rng.normal(size=parameter.shape)) * 0.3
        drawn = [rng.normal(size=(tokens, inputs))]
        if has_context or kind == "gate":
            drawn.append(rng.normal(size=(ROWS, CONTEXT) if has_context else (tokens, size)))
        self.given = [torch.from_numpy(each).to(dtype).requires_grad_() for each in drawn]
        self.rows = (Rows(tokens),) if has_context else ()
        self.of = *self.given, *self.module.parameters()

    @property
    def takes_kernels(self):
        if self.grn is not self.module:
            return self.module._by_kernels(*self.given, *self.rows) is not None
        return gated_kernels.takes_kernels(self.module.parts, self.given[0])

    def __call__(self):
        result = self.module(*self.given, *self.rows)
        return result[0] if isinstance(result, tuple) else result

    def by_modules(self):
        with pytest.MonkeyPatch.context() as patch:
            for module in (layers, variable_selection):
                patch.setattr(module, "takes_kernels", lambda *_: False)
            return self()

    def by_plain_operations(self):
        def apply(*inputs):
            *arrays, call, _ = inputs
            softmax = call.takes_softmax
            return gated_plain.run_networks(*split(arrays), *call.dropping, softmax=softmax)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gated_kernels, "_apply", apply)
            return self()


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize(("size", "tokens"), [(3, 37), (8, 48), (37, 250), (49, 250), (16, 2100)])
def test_results_and_gradients_are_those_of_the_modules(kind, size, tokens):
    block = Block(kind, size, tokens)
    assert block.takes_kernels
    ways = block(), block.by_modules()
    close(*([y, *gradients(y, block.of)] for y in ways))


@pytest.mark.parametrize("kind", BLOCKS)
def test_float32_is_as_near_to_float64_as_the_modules_are(kind):
    block, exact = Block(kind, dtype=torch.float32), Block(kind)
    for one, other in zip(exact.of, block.of, strict=True):
        one.data = other.data.double()
    y, expected = block(), exact.by_modules()
    found = [each.double() for each in (y, *gradients(y, block.of))]
    bound = 2e-5 if kind == "features" else 1e-5  # the modules' are off by 9e-6 there
    close(found, [expected, *gradients(expected, exact.of)], bound)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("rate", [0.4, 1.0])
def test_what_is_dropped_is_dropped_again_backward_and_by_plain_operations(kind, rate):
    block, found = Block(kind, dropout=rate), []
    for way in (block, block.by_plain_operations):
        torch.manual_seed(0)
        y = way()
        found.append([y, *gradients(y, block.of)])
    close(*found)
    assert torch.equal(block(), found[0][0]) == (rate == 1)
    block.module.eval()
    close([block()], [block.by_modules()])


@pytest.mark.parametrize("kind", BLOCKS)
def test_second_derivatives_are_those_of_the_modules(kind):
    block, found = Block(kind, tokens=20), []
    for y in (block(), block.by_modules()):
        total = sum(each.square().sum() for each in gradients(y, block.of, create_graph=True))
        found.append(torch.autograd.grad(total, block.of, retain_graph=True))
    close(*found)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_second_backward_pass_finds_what_was_kept_as_it_was(kind):
    block = Block(kind, 48, 250, dropout=0.4)
    y = block()
    assert all(map(torch.equal, gradients(y, block.of), gradients(y, block.of)))


def test_nothing_is_kept_for_no_backward_pass():
    def largest(block):
        with torch.profiler.profile(profile_memory=True) as profile:
            block()
        return max(each.cpu_memory_usage for each in profile.events())

    block = Block("gate", 48, 250)
    of_result = block.given[0].nbytes
    assert largest(block) > 2 * of_result
    with torch.no_grad():
        assert largest(block) == of_result


@pytest.mark.parametrize("kind", BLOCKS)
def test_frozen_parameters_and_batched_gradients(kind):
    block = Block(kind, tokens=20)
    block.grn.gate.linear.weight.requires_grad_(False)
    of = [each for each in block.of if each.requires_grad]
    ways = block(), block.by_modules()
    many = torch.randn(4, *ways[0].shape, dtype=ways[0].dtype)
    close(*(torch.autograd.grad(y, of, many, is_grads_batched=True) for y in ways))


@pytest.mark.parametrize("kind", ["context", "gate", "features"])
def test_threads_change_nothing(kind):
    block, before, found = Block(kind, 48, 4200), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = block()
            found.append((y, *gradients(y, block.of)))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("kind", ["context", "gate"])
def test_padded_rows_are_tokens_too(kind):
    block = Block(kind, 8, 40)
    alone = block()
    block.given[0] = block.given[0].unflatten(0, (ROWS, 10)).transpose(0, 1).contiguous()
    if kind == "gate":
        block.given[1] = block.given[1].unflatten(0, (ROWS, 10)).transpose(0, 1)
    else:  # every row's tokens share its context
        lengths = tokens_of.Lengths([10] * ROWS)
        block.given[0] = block.given[0].transpose(0, 1)
        block.rows = (tokens_of.Steps(lengths, block.given[0]),)
    assert block.takes_kernels
    found = block()
    if kind == "gate":
        close([found.transpose(0, 1).flatten(0, 1)], [alone])
    close([found, *gradients(found, block.of)], [y := block.by_modules(), *gradients(y, block.of)])


@pytest.mark.parametrize("kind", BLOCKS)
def test_fewer_tokens_than_the_result_is_wide(kind):
    block = Block(kind, 12, 1)
    assert block.takes_kernels
    close(*([y, *gradients(y, block.of)] for y in (block(), block.by_modules())))


def test_no_tokens_are_for_modules():
    block = Block("gate", 12, 0)
    assert not block.takes_kernels
    assert block().shape == (0, 12)


def test_a_gate_that_was_replaced_by_another_kind_of_module_runs():
    block = Block("plain")
    block.module.gate = torch.nn.Linear(12, 12).double()
    assert not block.takes_kernels
    x, module = block.given[0], block.module
    hidden = torch.nn.functional.elu(module.hidden(x))
    close([block()], [module.norm(module.gate(module.output(hidden)) + x)])


def test_wide_blocks_are_for_modules_unless_copies_share_the_tokens():
    assert Block("gate", 64, 70).takes_kernels
    assert not Block("gate", 65, 70).takes_kernels


@pytest.mark.parametrize("kind", ["plain", "gate"])
def test_a_block_whose_bias_was_taken_away_runs_by_modules(kind):
    block = Block(kind)
    linear = block.module.gate.linear if kind == "gate" else block.module.hidden
    with torch.no_grad():
        linear.bias.zero_()
    expected = block()
    linear.bias = None
    assert not block.takes_kernels
    close([block()], [expected])


def test_an_interpolation_that_was_replaced_is_not_taken_for_x():
    block = Block("stretched")
    inputs, size = block.given[0].shape[-1], block.module.norm.weight.shape[-1]
    block.module.residual = torch.nn.Linear(inputs, size).double()
    found = block()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "takes_kernels", lambda *_: False)
        close([found], [block()])


@pytest.mark.parametrize("name", ["grns", "weights"])
def test_an_interpolation_of_features_that_was_replaced_runs(name):
    block = Block("features")
    grn = getattr(block.module, name)
    inner, grn.residual = grn.residual, torch.nn.Sequential(grn.residual)
    assert not block.takes_kernels
    found, grn.residual = block(), inner
    close([found], [block()])


def test_a_residual_that_broadcasts_is_added_by_the_modules():
    block = Block("gate")
    block.given[1] = block.given[1][:1]
    close([block()], [block.by_modules()])


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_module_that_is_watched_runs(kind):
    for name, part in Block(kind).module.named_modules():
        block, seen = Block(kind), []
        expected, watched = block.by_modules(), block.module.get_submodule(name)
        watched.register_forward_hook(lambda *_, seen=seen: seen.append(True))
        close([block()], [expected])
        assert seen, (name, part)


def test_transformations_see_the_modules():
    block, seen = Block("plain", 4), []

    def run(x):
        seen.append(gated_kernels.takes_kernels(block.module.parts, x))
        return block.module(x).sum()

    x = block.given[0].detach()
    value, at = run(x), x.clone().requires_grad_()
    close([torch.func.vmap(run)(x[None])], [value[None]])
    close([torch.func.grad(run)(x)], torch.autograd.grad(run(at), at))
    assert seen == [True, False, False, True]


def test_one_feature_is_selected_by_kernels_too():
    rng = np.random.default_rng(1)
    chosen = variable_selection.VariableSelection(Variables((0,)), 5, 12, rng=rng).double()
    x = torch.from_numpy(rng.normal(size=(60, 1)))
    projected = chosen._project(x)
    assert gated_kernels.takes_kernels(chosen.grns.parts, projected, torch.ones_like(x))
    found, weights = chosen(x)
    assert torch.equal(weights, torch.ones_like(x))
    close([found], [chosen.grns(projected.movedim(-2, 0))[0]])


def test_scores_far_below_0_have_the_weights_of_their_differences():
    block = Block("features")
    norm = block.module.weights.norm
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(-710.0)  # e**710 is beyond 64 bits
    assert block.takes_kernels
    weights = block.module(*block.given, *block.rows)[1]
    close([weights], [torch.full_like(weights, 1 / FEATURES)])


@pytest.mark.parametrize("features", [2, 15, 16, 20])
@pytest.mark.parametrize("axes", [(60,), (4, 15)], ids=["tokens", "rows"])
def test_weights_are_a_softmax_of_scores_however_many_features(features, axes):
    rng = np.random.default_rng(1)
    of = Variables((0,) * features)
    block = variable_selection.VariableSelection(of, 5, 12, rng=rng).double()
    scores = torch.from_numpy(rng.normal(size=(*axes, features))).requires_grad_()
    block.weights.forward = lambda *given: scores
    found = block(torch.zeros(*axes, features, dtype=torch.float64))[1]
    expected = torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True)
    into = torch.from_numpy(rng.normal(size=expected.shape))
    slopes = [torch.autograd.grad(each, scores, into)[0] for each in (found, expected)]
    close([found, slopes[0]], [expected, slopes[1]])
