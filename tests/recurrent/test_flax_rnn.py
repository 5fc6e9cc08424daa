"""`ragged_jax.RNN` and `Bidirectional` beside `flax.nnx`'s, whose interface and cells they take."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp
import ragged_jax
from flax import nnx

import ragged
from ragged import errors
from tests.recurrent.jax_layers import drawn, native

BATCH, WIDTH, INPUTS, HIDDEN = 4, 5, 2, 3
LENGTHS = np.array([5, 1, 3, 2])
CELLS = ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell")
# Each order with and without lengths; the other options take turns.
CASES: dict[str, dict[str, Any]] = {
    "forward": {"return_carry": True},
    "forward, lengths": {"return_carry": True, "time_major": True, "carry": True, "lengths": True},
    "reverse": {"time_major": True, "reverse": True, "return_carry": True, "carry": True},
    "reverse, lengths": {"reverse": True, "return_carry": True, "lengths": True},
    "kept": {"reverse": True, "keep_order": True},
    "kept, lengths": {"time_major": True, "reverse": True, "keep_order": True, "lengths": True}
    | {"return_carry": True, "carry": True},
}
of_each_cell = pytest.mark.parametrize("kind", CELLS)


def make_cell(kind: str, seed: int = 0, **options: Any) -> Any:
    """One of flax's cells whose biases aren't 0."""
    options = {"bias_init": nnx.initializers.normal(), "rngs": nnx.Rngs(seed), **options}
    return getattr(nnx, kind)(INPUTS, HIDDEN, **options)


def x_of(case: str) -> jax.Array:
    x = drawn(BATCH, WIDTH, INPUTS, xp=np).astype(np.float32)
    return jnp.asarray(x.swapaxes(0, 1) if CASES[case].get("time_major") else x)


def carry_of(kind: str) -> Any:
    c, h = (jnp.asarray(drawn(part, BATCH, HIDDEN, xp=np)[0], jnp.float32) for part in (1, 2))
    return (c, h) if "LSTM" in kind else h


def valid(lengths: Any, case: str, xp: Any = np) -> Any:
    """Mark the steps that rows have, all where no lengths are given."""
    has_lengths = CASES[case].get("lengths")
    mask = xp.arange(WIDTH) < (lengths[:, None] if has_lengths else WIDTH)
    mask = xp.broadcast_to(mask, (BATCH, WIDTH))
    return (mask.T if CASES[case].get("time_major") else mask)[..., None]


@cache
def program(module: Any, kind: str, case: str) -> Any:
    """Outputs, carry and all gradients of a layer: one program for all lengths and inputs."""
    options = dict(CASES[case])
    has_carry, has_lengths = options.pop("carry", False), options.pop("lengths", False)
    layer = module.RNN(make_cell(kind), **options)
    assert getattr(layer, "reason", None) is None
    definition, parameters, rest = nnx.split(layer, nnx.Param, ...)

    def loss(parameters: Any, x: Any, carry: Any, lengths: Any) -> Any:
        given: dict[str, Any] = {"initial_carry": carry} if has_carry else {"rngs": nnx.Rngs(0)}
        given["seq_lengths"] = lengths if has_lengths else None
        found = nnx.merge(definition, parameters, rest)(x, **given)
        carry, y = found if options.get("return_carry") else ((), found)
        seen = jnp.where(valid(lengths, case, jnp), y, 0)
        total = (jnp.sin(seen) * drawn(*y.shape)).sum()
        return total + sum((part**3).sum() for part in jax.tree.leaves(carry)), (y, seen, carry)

    run = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    return lambda *inputs: run(parameters, *inputs)


def assert_close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, native((found, expected))), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(
            np.float64(a), np.float64(b), rtol=tolerance, atol=tolerance * (1 + abs(b).max())
        )


# An order is the same for all cells, and a cell for all orders: each cell in two of them, in which
# all other options are, and the other orders by cells in turn.
ALL_CELLS = ("forward, lengths", "kept, lengths")
IN_TURN = zip(CELLS, [case for case in CASES if case not in ALL_CELLS], strict=True)


@pytest.mark.parametrize(
    ("kind", "case"), [*((kind, case) for case in ALL_CELLS for kind in CELLS), *IN_TURN]
)
def test_outputs_carries_and_gradients_are_those_of_flax(kind: str, case: str) -> None:
    given = x_of(case), carry_of(kind), jnp.asarray(LENGTHS)
    gradients, (y, *found) = program(ragged_jax, kind, case)(*given)
    expected_gradients, (_, *expected) = program(nnx, kind, case)(*given)
    assert_close(found, expected)
    assert_close(gradients, expected_gradients)
    assert not np.where(valid(LENGTHS, case), 0, y).any()


@of_each_cell
@pytest.mark.parametrize("case", ["forward, lengths", "kept, lengths"])
def test_rows_of_length_0_and_nan_at_padding(kind: str, case: str) -> None:
    lengths, run = np.array([5, 0, 3, 1]), program(ragged_jax, kind, case)
    mask, carry = valid(lengths, case), carry_of(kind)
    clean = run(x_of(case), carry, jnp.asarray(lengths))
    x = np.where(mask, x_of(case), np.float32(np.nan))
    dirty = native(run(jnp.asarray(x), carry, jnp.asarray(lengths)))
    assert_close(dirty, clean, 0)
    (_, of_x, of_carry), (y, _, last) = dirty
    assert not np.where(mask, 0, y).any()
    assert not np.where(mask, 0, of_x).any()
    leaves = map(jax.tree.leaves, (native(carry), last, of_carry))
    for start, end, gradient in zip(*leaves, strict=True):
        assert (start[1] == end[1]).all()
        np.testing.assert_allclose(gradient[1], 3 * start[1] ** 2, rtol=1e-5)


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS.tolist(), ragged.Lengths(LENGTHS, WIDTH)])
def test_lengths_may_be_known(lengths: Any) -> None:
    case = "reverse, lengths"
    layer = ragged_jax.RNN(make_cell("GRUCell"))
    found = layer(x_of(case), seq_lengths=lengths, reverse=True, return_carry=True)
    _, (y, _, carry) = program(ragged_jax, "GRUCell", case)(
        x_of(case), carry_of("GRUCell"), jnp.asarray(LENGTHS)
    )
    assert_close(found, (carry, y))


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell"])
def test_batch_axes(kind: str) -> None:
    layer, x, carry = ragged_jax.RNN(make_cell(kind)), x_of("forward"), carry_of(kind)
    given: dict[str, Any] = {"reverse": True, "return_carry": True}
    flat = layer(x, seq_lengths=LENGTHS, initial_carry=carry, **given)
    x, carry, flat = native((x, carry, flat))
    two = jax.tree.map(lambda part: part.reshape(2, 2, *part.shape[1:]), (x, carry, flat))
    lengths = LENGTHS.reshape(2, 2)
    assert_close(layer(two[0], seq_lengths=lengths, initial_carry=two[1], **given), two[2])
    time_first = np.moveaxis(two[0], 2, 0)
    carries, y = layer(
        time_first, seq_lengths=lengths, initial_carry=two[1], time_major=True, **given
    )
    assert_close((carries, np.moveaxis(native(y), 0, 2)), two[2])
    x, carry, one = jax.tree.map(lambda part: part[2], (x, carry, flat))
    assert_close(layer(x, seq_lengths=LENGTHS[2], initial_carry=carry, **given), one)
    theirs = nnx.RNN(layer.cell)(x, initial_carry=carry)  # no batch axis, no lengths
    assert_close(layer(x, initial_carry=carry), theirs)


def add(one: jax.Array, other: jax.Array) -> jax.Array:
    return one + other


@pytest.mark.parametrize("options", [{}, {"merge_fn": add, "time_major": True}])
@pytest.mark.parametrize("children", [nnx, ragged_jax])
def test_bidirectional(options: dict[str, Any], children: Any) -> None:
    def make(module: Any, children: Any) -> Any:
        rnns = [children.RNN(make_cell("LSTMCell", seed)) for seed in (0, 1)]
        return module.Bidirectional(*rnns, return_carry=True, **options)

    case = "forward, lengths" if "time_major" in options else "reverse, lengths"
    carries = carry_of("LSTMCell"), jax.tree.map(np.sin, native(carry_of("LSTMCell")))
    given = {"seq_lengths": jnp.asarray(LENGTHS), "initial_carry": carries}
    ours = make(ragged_jax, children)
    carry, y = ours(x_of(case), **given)
    expected_carry, expected = make(nnx, nnx)(x_of(case), **given)
    mask = valid(LENGTHS, case)
    assert_close((carry, y), (expected_carry, np.where(mask, expected, np.float32(0))))
    assert ours.reason is None
    assert isinstance(ours, nnx.Bidirectional)
    assert isinstance(ours.forward_rnn, ragged_jax.RNN)
    shared = nnx.RNN(make_cell("GRUCell"))
    both = ragged_jax.Bidirectional(shared, shared)
    assert both.forward_rnn is both.backward_rnn
    assert both.forward_rnn.cell is shared.cell
    cell = make_cell("SimpleCell", residual=True)
    assert "residual" in ragged_jax.Bidirectional(shared, nnx.RNN(cell)).reason


class Doubled(nnx.GRUCell):
    """A user's own equation."""

    def __call__(self, carry: Any, inputs: Any) -> Any:
        carry, y = super().__call__(carry, inputs)
        return carry, 2 * y


class Named(nnx.GRUCell):
    """A subclass with flax's equation."""


def lora_cell() -> Any:
    cell = make_cell("GRUCell")
    cell.dense_i = nnx.LoRALinear(INPUTS, 3 * HIDDEN, lora_rank=1, rngs=nnx.Rngs(0))
    return cell


def one_bias_less() -> Any:
    cell = make_cell("LSTMCell")
    cell.hg = nnx.Linear(HIDDEN, HIDDEN, use_bias=False, rngs=nnx.Rngs(0))
    return cell


BY_FLAX: dict[str, tuple[Any, str]] = {
    "gate_fn": (lambda: make_cell("LSTMCell", gate_fn=jax.nn.hard_sigmoid), "gate_fn"),
    "activation_fn": (lambda: make_cell("GRUCell", activation_fn=nnx.relu), "activation_fn"),
    "residual": (lambda: make_cell("SimpleCell", residual=True), "residual"),
    "mixed precision": (lambda: make_cell("LSTMCell", dtype=jnp.bfloat16), "bfloat16"),
    "own equation": (lambda: Doubled(INPUTS, HIDDEN, rngs=nnx.Rngs(0)), "equation"),
    "LoRA": (lora_cell, "dense_i"),
    "one bias less": (one_bias_less, "hg"),
}


@pytest.mark.parametrize("name", BY_FLAX)
def test_flax_runs_what_ours_cannot(name: str) -> None:
    make, reason = BY_FLAX[name]
    layer, theirs = ragged_jax.RNN(make()), nnx.RNN(make())
    assert reason in layer.reason
    given: dict[str, Any] = {"return_carry": True, "reverse": True}
    expected = theirs(x_of("forward"), seq_lengths=jnp.asarray(LENGTHS), **given)
    lengths = ragged.Lengths(LENGTHS, WIDTH) if name == "residual" else LENGTHS
    assert_close(layer(x_of("forward"), seq_lengths=lengths, **given), expected, 0)


def test_flax_runs_cells_and_options_of_its_own() -> None:
    base = nnx.OptimizedLSTMCell.__mro__[1]  # of all cells
    assert "is none of LSTMCell" in ragged_jax.RNN(base()).reason
    cell = make_cell("GRUCell")
    assert "state_axes" in ragged_jax.RNN(cell, state_axes={...: None}).reason
    assert "broadcast_rngs" in ragged_jax.RNN(cell, broadcast_rngs="dropout").reason
    cell.dense_h.kernel = nnx.Param(jnp.ones((HIDDEN, 2)))
    assert "shapes [(3, 2)]" in ragged_jax.RNN(cell).reason


def test_a_subclass_and_a_relu_run_by_ours() -> None:
    for make in (
        lambda: Named(INPUTS, HIDDEN, rngs=nnx.Rngs(0)),
        lambda: make_cell("SimpleCell", activation_fn=nnx.relu),
    ):
        layer = ragged_jax.RNN(make())
        assert layer.reason is None
        assert_close(layer(x_of("forward")), nnx.RNN(make())(x_of("forward")))


HALF: dict[str, Any] = {"param_dtype": jnp.bfloat16, "dtype": jnp.bfloat16}
HALF["recurrent_kernel_init"] = nnx.initializers.normal(0.5)
PRECISIONS: dict[str, tuple[dict[str, Any], str, float]] = {
    "half": (HALF, "float32", 3e-2),
    "half, inferred": (HALF | {"dtype": None}, "bfloat16", 3e-2),
    "half inputs": ({"dtype": None}, "bfloat16", 1e-5),
    "integers": ({"dtype": jnp.float32}, "int32", 1e-5),
    "mixed": ({"dtype": jnp.bfloat16}, "float32", 0),
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_results_have_the_dtype_of_flax(name: str) -> None:
    options, dtype, tolerance = PRECISIONS[name]
    cell, x = make_cell("OptimizedLSTMCell", **options), x_of("forward").astype(dtype)
    expected = nnx.RNN(cell, return_carry=True)(x)
    assert_close(ragged_jax.RNN(cell, return_carry=True)(x), expected, tolerance)


def test_float64() -> None:
    with jax.enable_x64(True):
        cell = make_cell("GRUCell", param_dtype=jnp.float64)
        x = x_of("forward")  # float32
        assert_close(ragged_jax.RNN(cell)(x), nnx.RNN(cell)(x), 1e-12)
        wide = x.astype(jnp.float64)  # flax refuses a carry narrower than the inputs
        for module in (ragged_jax, nnx):
            with pytest.raises(TypeError, match="carry"):
                module.RNN(make_cell("GRUCell"))(wide)


def test_a_carry_that_is_drawn_is_the_one_that_flax_draws() -> None:
    def run(module: Any) -> Any:
        with pytest.warns(UserWarning, match="carry_init"):
            cell = make_cell("LSTMCell", carry_init=nnx.initializers.normal(1.0))
        layer = module.RNN(cell, return_carry=True, rngs=nnx.Rngs(3))
        x = x_of("forward")
        return layer(x), layer(x), layer(x, rngs=nnx.Rngs(5))

    first, second, other = run(ragged_jax)
    assert_close((first, second, other), run(nnx))
    assert (first[1] != second[1]).any()
    with pytest.raises(ValueError, match="RNGs"):
        ragged_jax.RNN(make_cell("GRUCell"), rngs=False)(x_of("forward"))


def test_jit_grad_and_vmap_of_nnx() -> None:
    layer, x, lengths = ragged_jax.RNN(make_cell("GRUCell")), x_of("forward"), jnp.asarray(LENGTHS)
    expected = layer(x, seq_lengths=lengths)
    jitted = nnx.jit(lambda layer, x, lengths: layer(x, seq_lengths=lengths))
    assert_close(jitted(layer, x, lengths), expected)
    of_rows = nnx.vmap(jitted, in_axes=(None, 0, 0))
    pairs = x.reshape(2, 2, WIDTH, INPUTS), lengths.reshape(2, 2)
    assert_close(native(of_rows(layer, *pairs)).reshape(expected.shape), expected)
    gradient = nnx.grad(lambda layer: layer(x, seq_lengths=lengths).sum())(layer)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"inputs": np.ones((4, 5, 3))}, errors.ShapeError, r"`inputs` .*\(\*batch, time, 2\)"),
        ({"inputs": np.ones(2)}, errors.ShapeError, r"`inputs` is of shape \(2,\)"),
        ({"seq_lengths": [1, 2]}, errors.ShapeError, r"`seq_lengths` .* \(4,\), the batch"),
        ({"seq_lengths": [1, 2, 6, 1]}, errors.LengthsError, "6 at row 2"),
        ({"seq_lengths": [1.0] * 4}, errors.LengthsError, "integer"),
        ({"initial_carry": np.ones((4, 3))}, errors.ArgumentError, r"the pair \(c, h\)"),
        ({"initial_carry": (np.ones((4, 3)), np.ones((4, 2)))}, errors.ShapeError, r"\(h\)"),
    ],
)
def test_refusals(given: dict[str, Any], error: type, message: str) -> None:
    layer = ragged_jax.RNN(make_cell("LSTMCell"))
    with pytest.raises(error, match=message):
        layer(**{"inputs": x_of("forward"), **given})
