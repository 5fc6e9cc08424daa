"""JAX's GRU and plain RNNs against a loop over rows and steps, by kernels and by scans."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp
from flax import nnx

import ragged
from ragged.backend import use_backend
from ragged.recurrent.shape import RecurrentShape
from tests.recurrent.jax_layers import (
    FUNCTIONS,
    HIDDEN,
    INPUTS,
    LENGTHS,
    WIDTH,
    assert_equal,
    like,
    loss_of,
    make_inputs,
    squares,
)

MODES = ("GRU", "RNN_TANH", "RNN_RELU")
OPTIONS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "both directions, no bias": {"bias": False, "bidirectional": True},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
}
WAYS = ("kernels", "no kernels", "never")
of_each_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def _on_jax() -> Any:
    with use_backend("jax"), jax.enable_x64(True):
        yield


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What runs a layer: the operator with kernels of our own or without, or a scan alone."""
    if request.param == "no kernels":
        monkeypatch.setenv("RAGGED_KERNELS", "0")
    return str(request.param)


def step(mode: str, weights: dict[str, Any], x: Any, h: Any, xp: Any) -> Any:
    """A step of one row, as torch's documentation writes it."""
    from_x, from_h = weights["weight_ih"] @ x, weights["weight_hh"] @ h
    if "bias_ih" in weights:
        from_x, from_h = from_x + weights["bias_ih"], from_h + weights["bias_hh"]
    if mode == "RNN_TANH":
        return xp.tanh(from_x + from_h)
    if mode == "RNN_RELU":
        return xp.maximum(from_x + from_h, 0)
    (x_r, x_z, x_n), (h_r, h_z, h_n) = xp.split(from_x, 3), xp.split(from_h, 3)
    r, z = 1 / (1 + xp.exp(-x_r - h_r)), 1 / (1 + xp.exp(-x_z - h_z))
    n = xp.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h


def read(mode: str, weights: dict[str, Any], steps: list[Any], h: Any, xp: Any) -> list[Any]:
    """The state before a row's first step, and after each."""
    states = [h]
    for x in steps:
        states.append(step(mode, weights, x, states[-1], xp))
    return states


def loop(mode: str, parameters: Any, x: Any, state: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """Run a layer row by row and step by step; nothing of a row's padding is read."""
    shape, last = RecurrentShape.read(parameters, mode), []
    rows = [[x[row, k] for k in range(count)] for row, count in enumerate(LENGTHS)]
    for layer in range(shape.num_layers):
        outputs: list[list[Any]] = [[] for _ in rows]
        for direction in shape.directions:
            names = shape.layer_names(layer, direction).items()
            weights = {short: parameters[name] for short, name in names}
            turn = slice(None, None, -1 if direction else 1)
            states = [
                read(mode, weights, steps[turn], h, xp)
                for steps, h in zip(rows, state[len(last)], strict=True)
            ]
            last.append(xp.stack([each[-1] for each in states]))
            for row, each in zip(outputs, states, strict=True):
                row.append(each[1:][turn])
        rows = [[xp.concatenate(parts) for parts in zip(*row, strict=True)] for row in outputs]
    filler = xp.zeros(HIDDEN * len(shape.directions))
    y = [xp.stack([*steps, *[filler] * (WIDTH - len(steps))]) for steps in rows]
    return xp.stack(y), xp.stack(last)


def layer_of(mode: str, way: str) -> Any:
    lengths = ragged.Lengths.unchecked(LENGTHS, WIDTH, "never" if way == "never" else "auto")
    return lambda parameters, x, state: FUNCTIONS[mode](parameters, x, lengths, state)


def gradients(run: Any, *arrays: Any) -> Any:
    return jax.grad(lambda *arrays: loss_of(run(*arrays)), (0, 1, 2))(*arrays)


def jvp(run: Any, *arrays: Any) -> Any:
    return jax.jvp(run, arrays, like(arrays))[1]


def tangents(run: Any, parameters: Any, x: Any, state: Any) -> Any:
    """Along all arrays, twice, and along the weights alone, or the state."""
    linear = jax.linearize(run, parameters, x, state)[1]
    of_weights = jax.jvp(lambda p: run(p, x, state), (parameters,), (like(parameters),))
    of_state = jax.jvp(lambda h: run(parameters, x, h), (state,), (like(state),))
    all_arrays = parameters, x, state
    return jvp(run, *all_arrays), linear(*like(all_arrays)), of_weights[1], of_state[1]


def gradients_under_vmap(run: Any, parameters: Any, x: Any, state: Any) -> Any:
    """Of two members with the same weights, by each and by both."""
    x, state = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), (x, state))
    each = jax.vmap(lambda *arrays: gradients(run, *arrays), (None, 0, 0))
    both = jax.grad(lambda p: jax.vmap(lambda x, h: loss_of(run(p, x, h)))(x, state).sum())
    return each(parameters, x, state), both(parameters)


def second_derivatives(run: Any, *arrays: Any) -> Any:
    """Gradients of gradients, and of tangents."""

    def total(*arrays: Any) -> Any:
        return squares(gradients(run, *arrays)) + squares(jvp(run, *arrays))

    return jax.grad(total, (0, 2))(*arrays)


@cache
def expected_of(mode: str, derive: Any, options: str) -> Any:
    """A derivative of the loop, in which nothing is padded."""
    arrays = make_inputs(mode, **OPTIONS[options])
    return jax.jit(lambda *arrays: derive(lambda *a: loop(mode, *a), *arrays))(*arrays)


@of_each_mode
@pytest.mark.parametrize("options", [name for name in OPTIONS if name != "one layer"])
def test_outputs_and_gradients_equal_a_loop(mode: str, options: str, way: str) -> None:
    arrays = make_inputs(mode, **OPTIONS[options])
    run = layer_of(mode, way)
    both = jax.jit(lambda *arrays: (run(*arrays), gradients(run, *arrays)))
    outputs, found = both(*arrays)
    assert_equal(outputs, loop(mode, *jax.tree.map(np.asarray, arrays), np), "outputs")
    assert_equal(run(*arrays), outputs, "outside of jit")
    assert_equal(found, expected_of(mode, gradients, options), "gradients")
    assert not np.asarray(found[1])[np.arange(WIDTH) >= LENGTHS[:, None]].any()
    program = both.lower(*arrays).as_text()
    assert ("recurrent_backward_xla" in program) == (way == "kernels" and kernels_of(mode))


def kernels_of(mode: str) -> bool:
    from ragged_jax.recurrent import cpp

    return cpp.has_kernels(mode, "float64")


@of_each_mode
@pytest.mark.parametrize(
    ("derive", "way"),
    [
        (tangents, "kernels"),
        (tangents, "no kernels"),
        (gradients_under_vmap, "kernels"),
        (gradients_under_vmap, "no kernels"),
        (second_derivatives, "kernels"),
    ],
    indirect=["way"],
)
def test_derivatives_equal_those_of_a_loop(mode: str, derive: Any, way: str) -> None:
    arrays, run = make_inputs(mode), layer_of(mode, way)
    found = jax.jit(lambda *arrays: derive(run, *arrays))(*arrays)
    assert_equal(found, expected_of(mode, derive, "one layer"), derive.__name__)


@of_each_mode
def test_half_precision_is_computed_in_float32(mode: str, way: str) -> None:
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), make_inputs(mode))
    run = layer_of(mode, way)
    with jax.debug_nans(True), jax.numpy_rank_promotion("raise"):
        outputs, vjp = jax.vjp(run, *half)
        found = vjp(outputs)
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, found))} == {jnp.dtype("bfloat16")}
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    for got, wanted in zip(*map(jax.tree.leaves, (outputs, run(*wide))), strict=True):
        assert float(abs(got - wanted).max()) < 2e-2


MODULES: dict[str, Any] = {
    "GRU": ragged.GRU,
    "RNN_TANH": ragged.RNN,
    "RNN_RELU": lambda *sizes, **options: ragged.RNN(*sizes, nonlinearity="relu", **options),
}


@of_each_mode
def test_modules_take_and_give_h_alone(mode: str) -> None:
    _, x, state = make_inputs(mode, num_layers=2, bidirectional=True)
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "seed": 0}
    layer = MODULES[mode](INPUTS, HIDDEN, **options)
    parameters = {name: getattr(layer, name)[...] for name in layer.shape.parameter_shapes()}
    expected = loop(mode, *jax.tree.map(np.asarray, (parameters, x, state)), np)
    assert_equal(layer(x, LENGTHS, state), expected, "given state")
    zeros = loop(mode, *jax.tree.map(np.asarray, (parameters, x, 0 * state)), np)
    assert_equal(layer(x, LENGTHS), zeros, "no state")
    other = MODULES[mode](INPUTS, HIDDEN, batch_first=False, **options)
    y, h = other(jnp.swapaxes(x, 0, 1), LENGTHS, state)
    assert_equal((jnp.swapaxes(y, 0, 1), h), expected, "time first")
    with pytest.raises(ragged.errors.ShapeError, match=r"`state` is a tuple of 2"):
        layer(x, LENGTHS, (state, state))


def test_a_gru_is_that_of_flax() -> None:
    parameters, x, _ = make_inputs("GRU")
    # Its product with h has no bias.
    cell = nnx.GRUCell(INPUTS, HIDDEN, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    cell.dense_i.kernel[...] = parameters["weight_ih_l0"].T
    cell.dense_i.bias[...] = parameters["bias_ih_l0"]
    cell.dense_h.kernel[...] = parameters["weight_hh_l0"].T
    parameters |= {"bias_hh_l0": jnp.zeros(3 * HIDDEN)}
    y, h = ragged.gru(parameters, x, LENGTHS)
    state = jnp.zeros((len(x), HIDDEN))
    for k in range(WIDTH):
        state, output = cell(state, x[:, k])
        alive = k < LENGTHS
        np.testing.assert_allclose(y[alive, k], output[alive], rtol=1e-6)
        last = k == LENGTHS - 1
        np.testing.assert_allclose(h[0, last], state[last], rtol=1e-6)
