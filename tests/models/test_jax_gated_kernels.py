"""Gated residual networks on JAX, by kernels and by plain operations, beside their modules.

Every number of the kernels themselves is tested on torch, which calls the same.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from ragged import Lengths, kernels
from ragged.models.categories import Variables

nnx = pytest.importorskip("flax.nnx")
jax = pytest.importorskip("jax")
gated_kernels = pytest.importorskip("ragged_jax.gated_kernels")
layers = pytest.importorskip("ragged_jax.layers")
tokens_of = pytest.importorskip("ragged_jax.tokens")
variable_selection = pytest.importorskip("ragged_jax.variable_selection")
pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels here")

jnp = jax.numpy
FEATURES, HIDDEN, CONTEXT, ROWS = 3, 7, 3, 4
BLOCKS = ("plain", "linear", "stretched", "context", "gate", "selection", "features")
KERNEL = 'custom_call @"?gated_'


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


class Block:
    """A block, and what it is called with.

    Args:
        kind: one of `BLOCKS`: a GRN, whose residual is x or what the name says, a gate, or what a
            selection does once there are weights; "features" or "one feature": a whole selection.
        size: of the result.
        tokens: a number, or that of rows and of their tokens.
        dropout: the share that is dropped.
        dtype: of all there is.
    """

    def __init__(self, kind, size=12, tokens=60, dropout=0.0, dtype="float64"):
        rng = np.random.default_rng(1)
        tokens = (tokens,) if isinstance(tokens, int) else tokens
        self.kind, inputs = kind, size + 5 if kind in ("linear", "stretched") else size
        if kind in ("selection", "features", "one feature"):
            inputs = 1
            variables = Variables(tuple(range(1 if kind == "one feature" else FEATURES)))
            options = {"context_size": CONTEXT if kind == "features" else None, "rng": rng}
            module = variable_selection.VariableSelection(variables, 5, size, dropout, **options)
        elif kind == "gate":
            module = layers.GateAddNorm(size, dropout, rng=rng)
        else:
            context = CONTEXT if kind == "context" else None
            options = {"context_size": context, "interpolate": kind == "stretched", "rng": rng}
            module = layers.GRN(inputs, HIDDEN, size, dropout, **options)
        self.graph, parameters, self.streams = nnx.split(module, nnx.Param, ...)
        given = {
            "gate": ((*tokens, inputs), (*tokens, size)),
            "context": ((*tokens, inputs), (ROWS, CONTEXT)),
            "selection": ((*tokens, FEATURES, 5), (*tokens, FEATURES)),
            "features": ((*tokens, FEATURES), (ROWS, CONTEXT)),
        }

        def move(leaf):  # away from initial values, which are all alike
            moved = np.asarray(leaf) + rng.normal(size=leaf.shape) * 0.3
            return jax.device_put(moved.astype(dtype))

        drawn = [
            jax.device_put(rng.normal(size=shape).astype(dtype))
            for shape in given.get(kind, ((*tokens, inputs),))
        ]
        self.variables = jax.tree.map(move, parameters), drawn
        rows = jax.device_put(rng.integers(0, ROWS, tokens)) if len(tokens) == 1 else None
        steps = tokens_of.Steps(Lengths([tokens[-1]] * ROWS), drawn[0], rows=rows)
        self.rows = (steps,) if kind in ("context", "features") else ()

    def __call__(self, variables):
        return self.run(nnx.merge(self.graph, variables[0], self.streams, copy=True), variables[1])

    def run(self, module, given):
        """Run a module on what tokens are given."""
        result = (module._select if self.kind == "selection" else module)(*given, *self.rows)
        return result[0] if isinstance(result, tuple) else result

    def total(self, variables):
        """A sum in which every element of the result counts differently."""
        y = self(variables)
        weights = jnp.linspace(-1, 1, y.size, dtype=y.dtype).reshape(y.shape)
        return (weights * y + y**2).sum()

    def jitted(self, transform=jax.value_and_grad):
        """Give the result, and what a transformation makes of its total, of variables."""
        return jax.jit(lambda given: (self(given), transform(self.total)(given)))

    def program(self, transform=jax.value_and_grad, platform="cpu"):
        """Lower it for what the block is called with."""
        return self.jitted(transform).trace(self.variables).lower(lowering_platforms=(platform,))


def is_taken(program):
    """Whether kernels are in a program."""
    return re.search(KERNEL, program.as_text()) is not None


def by_kernels(block, *of):
    """Give what a block finds by kernels."""
    program = block.program(*of)
    assert is_taken(program)
    return program.compile()(block.variables)


def by_modules(block, *of):
    """Give what a block finds by its modules."""
    with pytest.MonkeyPatch.context() as patch:
        for user in (layers, variable_selection):
            patch.setattr(user, "takes_kernels", lambda *_: False)
        program = block.program(*of)
    assert not is_taken(program)
    return program.compile()(block.variables)


def by_plain_operations(block, *of):
    """Give what a block finds by the operator, without kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gated_kernels, "KERNELS", {})
        program = block.program(*of)
    assert not is_taken(program)
    return program.compile()(block.variables)


def close(found, expected, tolerance=1e-12):
    """Compare arrays, each within a share of its largest element."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        one, other = np.asarray(one), np.asarray(other)
        scale = float(np.abs(other).max(initial=0)) or 1.0
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("kind", [*BLOCKS, "one feature"])
def test_results_and_gradients_are_those_of_the_modules(kind):
    block = Block(kind)
    expected = by_modules(block)
    close(by_kernels(block), expected)
    close(by_plain_operations(block), expected)


@pytest.mark.parametrize("kind", ["context", "selection", "features"])
def test_float32_is_as_near_to_float64_as_the_modules_are(kind):
    block, exact = Block(kind, dtype="float32"), Block(kind)
    exact.variables = jax.tree.map(lambda leaf: np.asarray(leaf, "float64"), block.variables)
    close(by_kernels(block), by_modules(exact), 1e-5)


@pytest.mark.parametrize("kind", BLOCKS)
def test_what_is_dropped_is_dropped_again_backward_and_by_plain_operations(kind):
    block = Block(kind, 48, dropout=0.4)
    close(by_kernels(block), by_plain_operations(block))


@pytest.mark.parametrize("kind", ["gate", "selection"])
def test_seed_and_step_decide_what_is_dropped(kind):
    block, steps = Block(kind, dropout=0.4), []
    for _ in range(2):
        module = nnx.merge(block.graph, block.variables[0], block.streams, copy=True)
        steps.append([block.run(module, block.variables[1]) for _ in range(2)])
    close(*steps)
    assert not (steps[0][0] == steps[0][1]).all()
    module.eval()
    unused = Block(kind)
    close(block.run(module, block.variables[1]), unused(unused.variables))


@pytest.mark.parametrize("kind", ["gate", "selection"])
def test_all_is_dropped(kind):
    block = Block(kind, dropout=1.0)
    expected = by_modules(block)
    close(by_kernels(block), expected)
    close(by_plain_operations(block), expected)


def twice(total):
    """Differentiate the squares of a gradient."""
    return jax.grad(
        lambda at: sum((each**2).sum() for each in jax.tree.leaves(jax.grad(total)(at)))
    )


def forward(total):
    """Differentiate along one direction, and that again."""

    def along(at):
        return jax.jvp(total, (at,), (jax.tree.map(jnp.cos, at),))[1]

    return lambda at: (along(at), jax.grad(along)(at))


def of_some(total):
    """Differentiate by what is given alone, as where parameters are frozen."""
    return lambda at: jax.grad(lambda given: total((at[0], given)))(at[1])


def of_members(total):
    """Differentiate by parameters that members share, and by what each is given."""
    several = jax.vmap(jax.value_and_grad(total), ((None, 0),))
    return lambda at: several((at[0], jax.tree.map(lambda x: jnp.stack([x, x / 2, -x]), at[1])))


def of_ensemble(total):
    """Differentiate the sum of members that share what they are given."""
    several = jax.vmap(total, ((0, None),))

    def run(at):
        parameters = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), at[0])
        return jax.grad(lambda at: several(at).sum())((parameters, at[1]))

    return run


@pytest.mark.parametrize("kind", ["context", "gate", "selection", "features"])
@pytest.mark.parametrize("transform", [twice, forward, of_some, of_members, of_ensemble])
def test_transformations_give_what_they_give_of_the_modules(kind, transform):
    block = Block(kind, *((48, 50) if kind == "gate" else (4, 20)))
    close(by_kernels(block, transform), by_modules(block, transform))


@pytest.mark.parametrize("kind", ["context", "gate"])
@pytest.mark.parametrize("has_kernels", [(True, False), (False, True)], ids=["kept", "zeros"])
def test_passes_may_be_of_two_programs_with_and_without_kernels(kind, has_kernels):
    block, programs = Block(kind, 48), []
    gradient = jnp.cos(jnp.arange(60.0 * 48)).reshape(60, 48)

    def lower(run, *of, kernels):
        with pytest.MonkeyPatch.context() as patch:
            if not kernels:
                patch.setattr(gated_kernels, "KERNELS", {})
            programs.append(jax.jit(run).lower(*of))
        return programs[-1].compile()(*of)

    of_forward, of_backward = has_kernels
    _, pull = lower(lambda at: jax.vjp(block, at), block.variables, kernels=of_forward)
    found = lower(lambda pull: pull(gradient), pull, kernels=of_backward)
    assert tuple(map(is_taken, programs)) == has_kernels
    close(found, jax.vjp(block, block.variables)[1](gradient))


@pytest.mark.parametrize("kind", ["context", "gate", "linear", "selection", "features"])
def test_padded_rows_are_tokens_too(kind):
    block = Block(kind, 8, (ROWS, 10))
    expected = by_modules(block)
    close(by_kernels(block), expected)
    close(by_plain_operations(block), expected)


@pytest.mark.parametrize("kind", ["gate", "selection", "features"])
def test_nan_of_a_token_stays_with_it(kind):
    block = Block(kind)
    given = block.variables[1]
    given[0] = given[0].at[7 if kind == "gate" else (7, 1)].set(jnp.nan)
    is_nan = jnp.isnan(block(block.variables))
    assert is_nan.all(-1).nonzero()[0].tolist() == [7]
    assert is_nan.any(-1).sum() == 1


@pytest.mark.parametrize("kind", ["gate", "selection"])
@pytest.mark.parametrize("tokens", [0, 1, 11])
def test_fewer_tokens_than_the_result_is_wide_are_for_modules(kind, tokens):
    block = Block(kind, 12, tokens)
    assert not is_taken(block.program())
    assert block(block.variables).shape == (tokens, 12)


def test_wide_blocks_are_for_modules_unless_copies_share_the_tokens():
    assert is_taken(Block("gate", 64, 70).program())
    assert not is_taken(Block("gate", 65, 70).program())
    assert is_taken(Block("selection", 256, 256).program())
    assert not is_taken(Block("selection", 257, 257).program())


def test_a_residual_that_broadcasts_is_added_by_the_modules():
    block = Block("gate")
    block.variables[1][1] = block.variables[1][1][:1]
    assert not is_taken(block.program())


@pytest.mark.parametrize("kind", ["gate", "selection"])
def test_kernels_stay_out_of_what_they_cannot_do(kind, monkeypatch):
    assert not is_taken(Block(kind, dtype="bfloat16").program())
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    assert not is_taken(Block(kind).program())


class Own(layers.Linear):
    """A layer that somebody puts in the place of ours."""

    def __call__(self, x):
        return super().__call__(x) + 1


@pytest.mark.parametrize("kind", ["plain", "gate", "selection"])
def test_a_module_that_was_replaced_runs(kind):
    block = Block(kind)
    before = block(block.variables)
    module = nnx.merge(block.graph, block.variables[0], block.streams)
    gate = (module.grns if kind == "selection" else module).gate
    gate.linear.__class__ = Own
    block.graph, *_ = nnx.split(module, nnx.Param, ...)
    found = block(block.variables)
    assert not jnp.allclose(found, before)
    close(found, by_modules(block)[0])


def test_a_block_whose_bias_was_taken_away_runs_by_modules():
    block = Block("gate")
    module = nnx.merge(block.graph, block.variables[0], block.streams)
    linear = module.gate.linear
    linear.bias[...] = jnp.zeros_like(linear.bias[...])
    expected = module(*block.variables[1])
    linear.bias = None
    close(jax.jit(module)(*block.variables[1]), expected)


@pytest.mark.parametrize("kind", ["context", "selection"])
def test_programs_for_elsewhere_hold_no_kernel(kind):
    block = Block(kind)
    assert not is_taken(block.program(platform="cuda"))
    exported = jax.export.export(block.jitted())(block.variables)
    assert not re.search(KERNEL, exported.mlir_module())
    close(exported.call(block.variables), by_kernels(block))


def test_programs_of_any_number_of_tokens_hold_no_kernel():
    block = Block("gate")
    tokens = jax.ShapeDtypeStruct(jax.export.symbolic_shape("tokens, 12"), "float64")
    parameters, given = block.variables
    exported = jax.export.export(jax.jit(block))((parameters, [tokens] * 2))
    close(exported.call((parameters, given)), block(block.variables))
