"""JAX's GRU and plain RNNs against a loop over rows and steps, by kernels and by scans."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp
from flax import nnx
from ragged_conformance import oracle

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
    native,
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


def step(mode: str, weights: dict[str, Any], x: Any, h: Any) -> Any:
    """A step of one row, as torch's documentation writes it, analytic for the complex step."""
    from_x, from_h = weights["weight_ih"] @ x, weights["weight_hh"] @ h
    if "bias_ih" in weights:
        from_x, from_h = from_x + weights["bias_ih"], from_h + weights["bias_hh"]
    if mode == "RNN_TANH":
        return np.tanh(from_x + from_h)
    if mode == "RNN_RELU":
        return np.where(np.real(from_x + from_h) > 0, from_x + from_h, 0)
    (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(from_x, 3), np.split(from_h, 3)
    r, z = 1 / (1 + np.exp(-x_r - h_r)), 1 / (1 + np.exp(-x_z - h_z))
    n = np.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h


def read(mode: str, weights: dict[str, Any], steps: list[Any], h: Any) -> list[Any]:
    """The state before a row's first step, and after each."""
    states = [h]
    for x in steps:
        states.append(step(mode, weights, x, states[-1]))
    return states


def loop(mode: str, parameters: Any, x: Any, state: Any) -> tuple[Any, Any]:
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
                read(mode, weights, steps[turn], h)
                for steps, h in zip(rows, state[len(last)], strict=True)
            ]
            last.append(np.stack([each[-1] for each in states]))
            for row, each in zip(outputs, states, strict=True):
                row.append(each[1:][turn])
        rows = [[np.concatenate(parts) for parts in zip(*row, strict=True)] for row in outputs]
    filler = np.zeros(HIDDEN * len(shape.directions))
    y = [np.stack([*steps, *[filler] * (WIDTH - len(steps))]) for steps in rows]
    return np.stack(y), np.stack(last)


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
    """How a gradient moves along all arrays: as a gradient's gradient, and as a tangent's."""
    moved = like(arrays)

    def of_gradient(*arrays: Any) -> Any:
        pairs = zip(*map(jax.tree.leaves, (gradients(run, *arrays), moved)), strict=True)
        return sum(jnp.vdot(*pair) for pair in pairs)

    def of_tangent(*arrays: Any) -> Any:
        return jax.jvp(lambda *arrays: loss_of(run(*arrays)), arrays, moved)[1]

    return [jax.grad(total, (0, 1, 2))(*arrays) for total in (of_gradient, of_tangent)]


@dataclass(frozen=True)
class Loop:
    """A layer as a loop in NumPy, and its derivatives by the complex step."""

    mode: str

    def gradients(self, parameters: Any, x: Any, state: Any) -> Any:
        def total(x: Any, state: Any, **parameters: Any) -> Any:
            return loss_of(loop(self.mode, parameters, x, state), np)

        found = oracle.gradient(total, {**parameters, "x": x, "state": state})
        return {name: found[name] for name in parameters}, found["x"], found["state"]

    def jvp(self, arrays: Any, directions: Any) -> Any:
        moved = jax.tree.map(lambda leaf, along: leaf + 1e-30j * along, arrays, directions)
        return jax.tree.map(lambda leaf: leaf.imag / 1e-30, loop(self.mode, *moved))

    def tangents(self, *arrays: Any) -> Any:
        directions = native(like(arrays))
        still = jax.tree.map(np.zeros_like, directions)
        along_all = self.jvp(arrays, directions)
        of_weights = self.jvp(arrays, (directions[0], *still[1:]))
        of_state = self.jvp(arrays, (*still[:2], directions[2]))
        return along_all, along_all, of_weights, of_state

    def gradients_under_vmap(self, parameters: Any, x: Any, state: Any) -> Any:
        members = [self.gradients(parameters, x / k, state / k) for k in (1, 2)]
        each = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
        return each, jax.tree.map(lambda leaf: leaf.sum(0), each[0])

    def second_derivatives(self, *arrays: Any) -> Any:
        """A difference of sixth order, right to about 1e-12."""
        directions, spacing = native(like(arrays)), 2e-4

        def gradients_at(offset: int) -> Any:
            moved = jax.tree.map(lambda a, b: a + offset * spacing * b, arrays, directions)
            return self.gradients(*moved)

        def slope(*found: Any) -> Any:
            pairs = zip((45, -9, 1), found[:3], found[3:], strict=True)
            return sum(weight * (up - down) for weight, up, down in pairs) / (60 * spacing)

        expected = jax.tree.map(slope, *map(gradients_at, (1, 2, 3, -1, -2, -3)))
        return [expected, expected]


@cache
def expected_of(mode: str, derivative: str, options: str) -> Any:
    """A derivative of the loop, in which nothing is padded."""
    return getattr(Loop(mode), derivative)(*native(make_inputs(mode, **OPTIONS[options])))


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        *(("both directions, no bias", mode) for mode in MODES),
        ("two layers, both directions", "GRU"),  # layers are stacked alike for all cells
    ],
)
def test_outputs_and_gradients_equal_a_loop(options: str, mode: str, way: str) -> None:
    arrays = make_inputs(mode, **OPTIONS[options])
    run = layer_of(mode, way)
    both = jax.jit(lambda *arrays: (run(*arrays), gradients(run, *arrays))).lower(*arrays)
    outputs, found = both.compile()(*arrays)
    assert_equal(outputs, loop(mode, *native(arrays)), "outputs")
    assert_equal(run(*arrays), outputs, "outside of jit")
    assert_equal(found, expected_of(mode, "gradients", options), "gradients")
    assert not np.asarray(found[1])[np.arange(WIDTH) >= LENGTHS[:, None]].any()
    assert ("recurrent_backward_xla" in both.as_text()) == (way == "kernels" and kernels_of(mode))


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
    assert_equal(found, expected_of(mode, derive.__name__, "one layer"), derive.__name__)


@of_each_mode
def test_half_precision_is_computed_in_float32(mode: str, way: str) -> None:
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), make_inputs(mode))
    run = layer_of(mode, way)
    with jax.debug_nans(True), jax.numpy_rank_promotion("raise"):
        outputs, vjp = jax.vjp(run, *half)
        found = vjp(outputs)
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, found))} == {jnp.dtype("bfloat16")}
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    for got, wanted in zip(*map(jax.tree.leaves, native((outputs, run(*wide)))), strict=True):
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
    expected = loop(mode, *native((parameters, x, state)))
    assert_equal(layer(x, LENGTHS, state), expected, "given state")
    zeros = loop(mode, *native((parameters, x, 0 * state)))
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
    y, h = native(ragged.gru(parameters, x, LENGTHS))
    state, x, run = np.zeros((len(x), HIDDEN)), native(x), nnx.jit(cell)
    for k in range(WIDTH):
        state, output = native(run(state, x[:, k]))
        alive = k < LENGTHS
        np.testing.assert_allclose(y[alive, k], output[alive], rtol=1e-6)
        last = k == LENGTHS - 1
        np.testing.assert_allclose(h[0, last], state[last], rtol=1e-6)
