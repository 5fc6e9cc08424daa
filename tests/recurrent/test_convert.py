"""Parameters of flax, Keras and haiku under torch's names: each library's steps are torch's."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ragged.errors import ArgumentError, ConversionError, OptionError, RaggedError
from ragged.recurrent.convert import (
    from_flax,
    from_haiku,
    from_keras,
    to_flax,
    to_haiku,
    to_keras,
)

FEATURES, HIDDEN, STEPS, ROWS = 3, 4, 6, 2
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
FLAX = {
    f"{room}.{cell}": mode
    for room in ("nnx", "linen")
    for cell, mode in (
        ("LSTMCell", "LSTM"),
        ("OptimizedLSTMCell", "LSTM"),
        ("GRUCell", "GRU"),
        ("SimpleCell", "RNN_TANH"),
    )
}
KERAS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN_TANH"}
HAIKU = {"LSTM": "LSTM", "VanillaRNN": "RNN_RELU"}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


X = normal(ROWS, STEPS, FEATURES, seed=9)


def stack(mode: str, suffix: str = "_l0", features: int = FEATURES) -> dict[str, np.ndarray]:
    """Random parameters by torch's names; no n part in a GRU's `bias_hh`."""
    height = GATES[mode] * HIDDEN
    shapes = {
        "weight_ih": (height, features), "weight_hh": (height, HIDDEN),
        "bias_ih": (height,), "bias_hh": (height,),
    }  # fmt: skip
    found = {f"{n}{suffix}": normal(*s, seed=i) for i, (n, s) in enumerate(shapes.items())}
    if mode == "GRU":
        found[f"bias_hh{suffix}"][2 * HIDDEN :] = 0
    return found


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def loop(parameters: dict[str, Any], mode: str, suffix: str = "_l0") -> np.ndarray:
    """Run torch's equations, a step after the other, in float64."""
    p = {name.removesuffix(suffix): value.astype(float) for name, value in parameters.items()}
    none = np.zeros(GATES[mode] * HIDDEN)
    b_ih, b_hh = p.get("bias_ih", none), p.get("bias_hh", none)
    h = c = np.zeros((ROWS, HIDDEN))
    found = []
    for x in X.astype(float).swapaxes(0, 1):
        of_x, of_h = x @ p["weight_ih"].T + b_ih, h @ p["weight_hh"].T + b_hh
        if mode == "LSTM":
            i, f, g, o = np.split(of_x + of_h, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        elif mode == "GRU":
            (x_r, x_z, x_n), (h_r, h_z, h_n) = (np.split(a, 3, axis=1) for a in (of_x, of_h))
            r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
            h = (1 - z) * np.tanh(x_n + r * h_n) + z * h
        else:
            h = np.tanh(of_x + of_h) if mode == "RNN_TANH" else np.maximum(of_x + of_h, 0)
        found.append(h)
    return np.stack(found, axis=1)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=1e-6)


def leaves(parameters: dict[str, Any], path: str = "") -> dict[str, np.ndarray]:
    """All arrays by their paths."""
    found: dict[str, np.ndarray] = {}
    for name, value in parameters.items():
        inner = leaves(value, f"{path}{name}.") if isinstance(value, dict) else {}
        found |= inner or {f"{path}{name}": np.asarray(value)}
    return found


def assert_identical(found: dict[str, Any], expected: dict[str, Any]) -> None:
    found, expected = leaves(found), leaves(expected)
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)
        assert found[name].dtype == value.dtype


def drawn(parameters: dict[str, Any]) -> dict[str, Any]:
    """Replace all arrays, the biases that start as 0 too, by random ones."""
    return {
        name: drawn(value) if isinstance(value, dict) else normal(*value.shape, seed=len(name) + k)
        for k, (name, value) in enumerate(parameters.items())
    }


def run_flax(cell: str, parameters: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Run a cell of flax on X, with random parameters unless some are given, and return both."""
    jax, flax = pytest.importorskip("jax"), pytest.importorskip("flax")
    from flax import nnx

    room, name = cell.split(".")
    if room == "nnx":
        module = getattr(nnx, name)(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
        state = nnx.state(module, nnx.Param)
        parameters = parameters or drawn(nnx.to_pure_dict(state))
        nnx.replace_by_pure_dict(state, jax.tree.map(jax.numpy.asarray, parameters))
        nnx.update(module, state)
        step = module
    else:
        module = getattr(flax.linen, name)(HIDDEN)
        key = jax.random.key(0)
        start = module.init(key, module.initialize_carry(key, X[:, 0].shape), X[:, 0])
        parameters = parameters or drawn(start)
        given = parameters if "params" in parameters else {"params": parameters}

        def step(carry: Any, x: Any) -> Any:
            return module.apply(given, carry, x)

    zeros = jax.numpy.zeros((ROWS, HIDDEN))
    carry = (zeros, zeros) if "LSTM" in name else zeros
    found = []
    for x in X.swapaxes(0, 1):
        carry, y = step(carry, x)
        found.append(np.asarray(y))
    return np.stack(found, axis=1), parameters


@pytest.mark.parametrize("cell", FLAX)
def test_flax_cells_take_the_steps_of_torch(cell):
    outputs, parameters = run_flax(cell)
    found = from_flax(parameters, cell)
    assert_same(outputs, loop(found, FLAX[cell]))
    back = to_flax(found, cell)
    assert_identical(back, parameters.get("params", parameters))


@pytest.mark.parametrize("cell", FLAX)
@pytest.mark.parametrize("biased", [True, False])
def test_torch_layers_become_flax_cells(cell, biased):
    layer = stack(FLAX[cell])
    if cell == "linen.GRUCell":
        layer["bias_hh_l0"] = normal(3 * HIDDEN, seed=5)
    if not biased:
        layer = {name: value for name, value in layer.items() if "bias" not in name}
    outputs, _ = run_flax(cell, to_flax(layer, cell))
    assert_same(outputs, loop(layer, FLAX[cell]))


@pytest.fixture
def keras(monkeypatch) -> Any:
    backend = next((name for name in ("jax", "torch") if find_spec(name)), "numpy")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    return pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras
@pytest.mark.parametrize("cell", KERAS)
@pytest.mark.parametrize("biased", [True, False])
def test_keras_layers_take_the_steps_of_torch(keras, cell, biased):
    layer = getattr(keras.layers, cell)(HIDDEN, return_sequences=True, use_bias=biased)
    layer.build((None, STEPS, FEATURES))
    parameters = drawn({w.name: w for w in layer.weights})
    layer.set_weights(list(parameters.values()))
    found = from_keras(parameters, cell)
    assert ("bias_ih_l0" in found) == biased
    assert_same(keras.ops.convert_to_numpy(layer(X)), loop(found, KERAS[cell]))
    assert_identical(to_keras(found, cell), parameters)
    assert_identical(from_keras({w.name: w.numpy() for w in layer.weights}, cell), found)

    given = {k: v for k, v in stack(KERAS[cell]).items() if biased or "bias" not in k}
    if "bias_hh_l0" in given:
        given["bias_hh_l0"] = normal(*given["bias_hh_l0"].shape, seed=5)
    layer.set_weights(list(to_keras(given, cell).values()))
    assert_same(keras.ops.convert_to_numpy(layer(X)), loop(given, KERAS[cell]))


def run_haiku(parameters: dict[str, Any], cell: str) -> np.ndarray:
    """haiku's equations, a step after the other."""
    h = c = np.zeros((ROWS, HIDDEN))
    found = []
    for x in X.astype(float).swapaxes(0, 1):
        linear = parameters["linear"]
        if cell == "LSTM":
            i, g, f, o = np.split(np.hstack([x, h]) @ linear["w"] + linear["b"], 4, axis=1)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            other = parameters["linear_1"]
            h = h @ other["w"] + other.get("b", 0)
            h = np.maximum(x @ linear["w"] + linear["b"] + h, 0)
        found.append(h)
    return np.stack(found, axis=1)


HAIKU_SHAPES = {
    "LSTM": {"linear": {"w": (FEATURES + HIDDEN, 4 * HIDDEN), "b": (4 * HIDDEN,)}},
    "VanillaRNN": {
        "linear": {"w": (FEATURES, HIDDEN), "b": (HIDDEN,)},
        "linear_1": {"w": (HIDDEN, HIDDEN), "b": (HIDDEN,)},
    },
}


@pytest.mark.parametrize("cell", HAIKU)
def test_haiku_cores_take_the_steps_of_torch(cell):
    shapes = {
        part: {name: SimpleNamespace(shape=shape) for name, shape in own.items()}
        for part, own in HAIKU_SHAPES[cell].items()
    }
    parameters = drawn(shapes)
    parameters["linear"]["b"] *= 1e-9  # which a sum with 1 would not hold
    found = from_haiku(parameters, cell)
    assert_same(run_haiku(parameters, cell), loop(found, HAIKU[cell]))
    assert_identical(to_haiku(found, cell), parameters)

    layer = stack(HAIKU[cell])
    assert_same(run_haiku(to_haiku(layer, cell), cell), loop(layer, HAIKU[cell]))
    bare = {name: value for name, value in layer.items() if "bias" not in name}
    assert_same(run_haiku(to_haiku(bare, cell), cell), loop(bare, HAIKU[cell]))


def test_haiku_may_have_one_bias():
    layer = to_haiku(stack("RNN_RELU"), "VanillaRNN")
    del layer["linear_1"]["b"]
    found = from_haiku(layer, "VanillaRNN")
    assert_same(run_haiku(layer, "VanillaRNN"), loop(found, "RNN_RELU"))
    assert not found["bias_hh_l0"].any()


def test_layers_and_directions_make_a_stack_that_torch_loads():
    torch = pytest.importorskip("torch")
    cells = {(layer, reverse): None for layer in (0, 1) for reverse in (False, True)}
    parameters: dict[str, np.ndarray] = {}
    for k, (layer, reverse) in enumerate(cells):
        features = 2 * HIDDEN if layer else FEATURES
        own = {"kernel": (features, 4 * HIDDEN), "recurrent_kernel": (HIDDEN, 4 * HIDDEN)}
        keras = {name: normal(*shape, seed=k) for name, shape in own.items()}
        keras["bias"] = normal(4 * HIDDEN, seed=k)
        parameters |= from_keras(keras, "LSTM", layer=layer, reverse=reverse)
        assert_identical(to_keras(parameters, "LSTM", layer=layer, reverse=reverse), keras)
    with pytest.raises(ConversionError, match="Name a layer and a direction of the stack"):
        to_keras(parameters, "LSTM", layer=2)
    module = torch.nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True, bidirectional=True)
    module.load_state_dict({name: torch.from_numpy(v) for name, v in parameters.items()})
    assert list(parameters) == list(module.state_dict())
    one = {name: value for name, value in parameters.items() if name.endswith("_l0")}
    single = torch.nn.LSTM(FEATURES, HIDDEN, batch_first=True)
    single.load_state_dict({name: torch.from_numpy(v) for name, v in one.items()})
    assert_same(single(torch.from_numpy(X))[0].detach(), loop(one, "LSTM"))
    own = to_keras(parameters, "LSTM")
    for given in (module.state_dict(), dict(module.named_parameters())):
        assert_identical(to_keras(given, "LSTM"), own)
    halves = {name: value.bfloat16() for name, value in module.state_dict().items()}
    assert_identical(
        to_keras(halves, "LSTM"), to_keras({k: v.float() for k, v in halves.items()}, "LSTM")
    )


def test_the_slow_loop_is_torch():
    torch = pytest.importorskip("torch")
    for mode, cls in (("GRU", torch.nn.GRU), ("RNN_TANH", torch.nn.RNN)):
        layer = stack(mode)
        layer["bias_hh_l0"] = normal(*layer["bias_hh_l0"].shape, seed=5)
        module = cls(FEATURES, HIDDEN, batch_first=True)
        module.load_state_dict({name: torch.from_numpy(v) for name, v in layer.items()})
        assert_same(module(torch.from_numpy(X))[0].detach(), loop(layer, mode))


GRU, LSTM = stack("GRU"), stack("LSTM")
GRU_N = {**GRU, "bias_hh_l0": np.ones(3 * HIDDEN)}
GRU_KERAS = {"kernel": np.ones((3, 12)), "recurrent_kernel": np.ones((4, 12))}
REFUSED: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "n bias in nnx": (
        to_flax,
        (GRU_N, "nnx.GRUCell"),
        "to_flax(): `parameters` is with a bias_hh that is not 0 in its n part; expected 0 there, "
        "for nnx.GRUCell. It has no such bias; linen.GRUCell and Keras have.",
    ),
    "projection": (
        to_keras,
        ({**LSTM, "weight_hr_l0": np.ones((2, 4))}, "LSTM"),
        "to_keras(): `parameters` is with weight_hr_l0, a projection; expected a layer without",
    ),
    "one bias": (
        to_haiku,
        ({k: v for k, v in LSTM.items() if k != "bias_hh_l0"}, "LSTM"),
        "expected weight_ih_l0 and weight_hh_l0, and both biases or none. Name a layer",
    ),
    "gates of another": (
        to_flax,
        (GRU, "linen.LSTMCell"),
        "to_flax(): `parameters` is of shapes that make weight_ih (12, 3), weight_hh (12, 4), "
        "bias_ih (12,), bias_hh (12,); expected weights of 4 * hidden rows",
    ),
    "reset before": (
        from_keras,
        ({**GRU_KERAS, "bias": np.ones(12)}, "GRU"),
        "from_keras(): `parameters` is of a GRU with reset_after=False; expected one with "
        "reset_after=True. There r multiplies h before the product",
    ),
    "three biases": (
        from_keras,
        ({**GRU_KERAS, "bias": np.ones((3, 12))}, "GRU"),
        "`parameters` is with a bias of shape (3, 12); expected (2, 3 * hidden)",
    ),
    "short bias": (
        from_keras,
        ({**GRU_KERAS, "bias": np.ones((2, 11))}, "GRU"),
        "bias_ih (11,), bias_hh (11,); expected weights of 3 * hidden rows",
    ),
    "GRU from haiku": (
        from_haiku,
        ({"w_i": np.ones((3, 12))}, "GRU"),
        "from_haiku(): `cell` is 'GRU', which is not torch's; expected one of ('LSTM', "
        "'VanillaRNN'). There r multiplies h before the product with the recurrent weights",
    ),
    "GRU to haiku": (to_haiku, (GRU, "GRU"), "to_haiku(): `cell` is 'GRU', which is not torch's"),
    "names of another": (
        from_flax,
        ({"i": {"kernel": np.ones((2, 3))}, "h": {"kernel": np.ones((3, 3))}}, "linen.SimpleCell"),
        "from_flax(): `parameters` is named h: ['kernel']; i: ['kernel']; expected h: ['kernel']; "
        "i: ['bias', 'kernel']. Name the cell that they belong to",
    ),
    "names in no part": (
        from_haiku,
        ({"linear": np.ones(3)}, "LSTM"),
        "is named linear: ndarray; expected linear: ['b', 'w']",
    ),
    "uneven gates": (
        from_flax,
        (
            {
                name: {"kernel": np.ones((2, 3 + (name == "ii")))}
                | ({"bias": np.ones(3)} if name in ("hi", "hf", "hg", "ho") else {})
                for name in ("ii", "if", "ig", "io", "hi", "hf", "hg", "ho")
            },
            "linen.LSTMCell",
        ),
        "is of shapes (4, 2), (3, 2), (3, 2), (3, 2), gate by gate; expected one shape for all",
    ),
    "narrow haiku": (
        from_haiku,
        ({"linear": {"w": np.ones((3, 16)), "b": np.ones(16)}}, "LSTM"),
        "of shapes that make weight_ih (16, 0), weight_hh (16, 3)",
    ),
    "gates that do not divide": (
        from_haiku,
        ({"linear": {"w": np.ones((6, 15)), "b": np.ones(15)}}, "LSTM"),
        "from_haiku(): `parameters` is of shapes that make weight_ih (15, 3)",
    ),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_a_cell_cannot_hold_is_refused(refused):
    function, arguments, message = REFUSED[refused]
    with pytest.raises(ConversionError) as caught:
        function(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "function", [from_flax, to_flax, from_keras, to_keras, from_haiku, to_haiku]
)
def test_cells_layers_and_directions_are_checked(function):
    direction, _, library = function.__name__.partition("_")
    cell = "nnx.LSTMCell" if library == "flax" else "LSTM"
    to = {"flax": to_flax, "keras": to_keras, "haiku": to_haiku}[library]
    given = LSTM if direction == "to" else to(LSTM, cell)
    with pytest.raises(OptionError, match=rf"{function.__name__}\(\): `cell` is 'MGU'; expected"):
        function(given, "MGU")
    for wrong in ({"layer": -1}, {"reverse": "yes"}):
        with pytest.raises(RaggedError, match=f"`{next(iter(wrong))}` is"):
            function(given, cell, **wrong)
    with pytest.raises(ArgumentError, match=r"`parameters` is \[.* expected a mapping of names to"):
        function(list(given.values()), cell)
