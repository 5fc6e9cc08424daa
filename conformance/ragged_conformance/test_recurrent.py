"""Recurrent layers: outputs, states and all gradients against the oracle, on every policy."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import (
    EMULATED,
    GRADIENT_LENGTHS,
    HIDDEN,
    INPUTS,
    LENGTHS,
    POLICIES,
    WIDTH,
    fill_padding,
    lengths_on,
    normal,
)
from ragged_conformance.evaluation import FAST, KEEPS_NAN, evaluator
from ragged_conformance.recurrent import (
    LAYERS,
    MODES,
    Layer,
    arrays_of,
    as_state,
    marked,
    named,
    weighted_sum,
)
from ragged_conformance.tolerances import LAYER, MODEL, assert_all_close, assert_close

modules = pytest.mark.parametrize("name", marked(LAYERS, function=False))
functions = pytest.mark.parametrize("name", marked(LAYERS, module=False))
cells = pytest.mark.parametrize("mode", marked(MODES))


def make(adapter: Adapter, layer: Layer) -> tuple[Any, dict[str, np.ndarray]]:
    """A module, and its parameters for the oracle."""
    module = adapter.prepare(layer.build(seed=0))
    initial = adapter.backend.get_parameters(module)
    return module, {name: value.astype(float) for name, value in initial.items()}


def assert_results_close(adapter: Adapter, actual: Any, expected: Any, what: str) -> None:
    """Compare outputs and states."""
    expected = named(expected)
    for array, (name, value) in zip(arrays_of(actual), expected.items(), strict=True):
        assert_close(adapter.to_numpy(array), value, adapter.dtype, LAYER, f"{name} ({what})")


@pytest.mark.parametrize("case", LENGTHS)
@modules
def test_outputs_and_state_equal_the_oracle(adapter: Adapter, name: str, case: str) -> None:
    layer, parameters = make(adapter, LAYERS[name])
    lengths = lengths_on(adapter.name, case)
    x = fill_padding(normal(len(lengths), WIDTH, INPUTS), lengths)
    start = LAYERS[name].state(len(lengths)).values()
    expected = LAYERS[name].oracle(parameters, x, lengths, as_state(start))
    state = as_state(map(adapter.array, start))
    for policy in POLICIES:
        if adapter.name == "jax" and policy in EMULATED and case != "mixed":
            continue
        valid = ragged.Lengths(lengths, WIDTH, policy=policy)
        y, final = layer(adapter.array(x), valid, state)
        assert_results_close(adapter, (y, final), expected, policy)
        padding = ~oracle.padding_mask(lengths, WIDTH)
        assert (adapter.to_numpy(y)[padding] == 0).all(), f"padding ({policy})"


@pytest.mark.parametrize("name", marked(LAYERS))
def test_state_is_zero_and_rows_are_full_if_not_given(adapter: Adapter, name: str) -> None:
    layer, parameters = make(adapter, LAYERS[name])
    x = normal(4, WIDTH, INPUTS)
    expected = LAYERS[name].oracle(parameters, x, [WIDTH] * 4)
    assert_results_close(adapter, layer(adapter.array(x)), expected, "module")
    actual = LAYERS[name].function(adapter.arrays(parameters), adapter.array(x))
    assert_results_close(adapter, actual, expected, "function")


def run(run_layer: Any, layer: Layer, lengths: Any, inputs: dict[str, Any]) -> Any:
    """Run a function of a layer on x, the state and the parameters, by name."""
    state = as_state(inputs[name] for name in layer.states)
    parameters = {n: value for n, value in inputs.items() if n not in ("x", *layer.states)}
    return run_layer(parameters, inputs["x"], lengths, state)


@functools.cache
def oracle_gradients(name: str) -> tuple[dict[str, np.ndarray], list[np.ndarray], Any]:
    """The inputs, the weights of the sum, and its gradient by every input."""
    layer, lengths = LAYERS[name], GRADIENT_LENGTHS
    inputs = {"x": normal(len(lengths), WIDTH, INPUTS), **layer.state(len(lengths))}
    for parameter, value in ragged.get_backend().get_parameters(layer.build(seed=0)).items():
        inputs[parameter] = value.astype(float)
    weights = [
        normal(*array.shape, seed=7)
        for array in arrays_of(run(layer.oracle, layer, lengths, inputs))
    ]

    def total(**values: Any) -> Any:
        return weighted_sum(run(layer.oracle, layer, lengths, values), weights)

    return inputs, weights, oracle.gradient(total, inputs)


@functions
def test_gradients_equal_the_oracle(adapter: Adapter, name: str) -> None:
    inputs, weights, expected = oracle_gradients(name)
    inputs = {**inputs, "x": fill_padding(inputs["x"], GRADIENT_LENGTHS)}
    weights = [adapter.array(weight) for weight in weights]
    # One function stacks layers: on JAX those of kernels show it, and single layers the scan.
    is_stacked = LAYERS[name].options.get("num_layers", 1) > 1
    skipped = {*EMULATED, *(["never"] if is_stacked else [])}
    for policy in POLICIES:
        if adapter.name == "jax" and policy in skipped:
            continue
        lengths = ragged.Lengths(GRADIENT_LENGTHS, WIDTH, policy=policy)

        def total(inputs: Any, _: Any, lengths: Any = lengths) -> Any:
            result = run(LAYERS[name].function, LAYERS[name], lengths, inputs)
            return weighted_sum(result, weights), named(result)

        _, gradients = evaluator(adapter, total, KEEPS_NAN)(adapter.arrays(inputs), {})
        assert_all_close(gradients, expected, adapter.dtype)
        padding = ~oracle.padding_mask(GRADIENT_LENGTHS, WIDTH)
        assert (gradients["x"][padding] == 0).all(), f"gradient at padding ({policy})"


LARGE = {"inputs": 140, "hidden": 130, "batch": 300, "width": 4}  # above every block size, 256 too


@cells
def test_many_rows_and_units_are_as_few(adapter: Adapter, mode: str) -> None:
    """Test results that are computed in parts: vectors, tiles of rows, chunks of tokens.

    Outputs and states against the oracle; gradients against "never", whose kernels have no parts.
    On JAX that is a scan, which XLA optimises for seconds at this size; the small ones it does.
    """
    inputs, hidden, batch, width = LARGE.values()
    lengths = np.random.default_rng(0).integers(0, width + 1, batch)
    both_ways = Layer(mode, {"bidirectional": True})
    layer = adapter.prepare(both_ways.build(inputs, hidden, seed=0))
    initial = adapter.backend.get_parameters(layer)
    arrays = {"x": normal(batch, width, inputs), **{n: v.astype(float) for n, v in initial.items()}}
    parameters = {name: arrays[name] for name in initial}
    expected = both_ways.oracle(parameters, arrays["x"], lengths)
    weights = [adapter.array(normal(*array.shape, seed=7)) for array in arrays_of(expected)]
    arrays["x"] = fill_padding(arrays["x"], lengths)

    def evaluate(policy: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        valid = ragged.Lengths(lengths, width, policy=policy)

        def total(inputs: Any, constants: Any) -> Any:
            parameters = {name: inputs[name] for name in initial}
            result = both_ways.function(parameters, inputs["x"], valid)
            return weighted_sum(result, constants["weights"]), named(result)

        constants = {"weights": weights}
        options = FAST if policy == "never" else KEEPS_NAN
        return evaluator(adapter, total, options)(adapter.arrays(arrays), constants)

    alone = layer(adapter.array(arrays["x"]), ragged.Lengths(lengths, width))
    assert_results_close(adapter, alone, expected, "without gradients")
    (auto, gradients), (never, gradients_of_never) = map(evaluate, ("auto", "never"))
    for outputs in (auto, never):
        assert_all_close(outputs, named(expected), adapter.dtype, LAYER)
    assert_all_close(gradients, gradients_of_never, adapter.dtype, MODEL)


@pytest.mark.parametrize("mode", marked(MODES, module=False))
def test_between_layers_acts_there_and_nowhere_else(adapter: Adapter, mode: str) -> None:
    stacked, single = Layer(mode, {"num_layers": 2}), MODES[mode]
    _, parameters = make(adapter, stacked)
    x, lengths = normal(4, WIDTH, INPUTS), LENGTHS["mixed"]
    native, array = adapter.arrays(parameters), adapter.array(x)
    actual = stacked.function(native, array, lengths, between_layers=lambda y: 2 * y)
    lower, upper = (
        {n.replace(layer, "l0"): value for n, value in parameters.items() if layer in n}
        for layer in ("l0", "l1")
    )
    below, *first = arrays_of(single.oracle(lower, x, lengths))
    above, *last = arrays_of(single.oracle(upper, 2 * below, lengths))
    final = as_state(np.concatenate(parts) for parts in zip(first, last, strict=True))
    assert_results_close(adapter, actual, (above, final), "between_layers")


@pytest.mark.parametrize("mode", marked(MODES, function=False))
def test_time_first_is_the_same_turned(adapter: Adapter, mode: str) -> None:
    lengths, x = [3, 5, 1, 4], normal(4, WIDTH, INPUTS)
    batch_first = adapter.prepare(MODES[mode].build(seed=0))
    time_first = adapter.prepare(MODES[mode].build(seed=0, batch_first=False))
    y, _ = batch_first(adapter.array(x), lengths)
    turned, _ = time_first(adapter.array(x.swapaxes(0, 1)), lengths)
    np.testing.assert_array_equal(adapter.to_numpy(turned).swapaxes(0, 1), adapter.to_numpy(y))


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("mode", marked(MODES, function=False))
def test_one_row_among_empty_ones_is_as_alone(adapter: Adapter, mode: str, steps: int) -> None:
    """As in a dataset's last batch, padded to the fixed size."""
    layer, parameters = make(adapter, MODES[mode])
    rows = 16
    lengths = [steps] + [0] * (rows - 1)
    x = fill_padding(normal(rows, steps, INPUTS), lengths)
    expected = MODES[mode].oracle(parameters, x, lengths)
    for policy in ("auto", "never"):
        actual = layer(adapter.array(x), ragged.Lengths(lengths, steps, policy=policy))
        assert_results_close(adapter, actual, expected, policy)


@pytest.mark.parametrize("mode", marked(MODES, function=False))
def test_width_zero_keeps_the_state(adapter: Adapter, mode: str) -> None:
    layer, _ = make(adapter, MODES[mode])
    start = MODES[mode].state(4).values()
    x = adapter.array(np.zeros((4, 0, INPUTS)))
    y, *final = arrays_of(layer(x, [0] * 4, as_state(map(adapter.array, start))))
    assert tuple(y.shape) == (4, 0, HIDDEN)
    for actual, expected in zip(final, start, strict=True):
        np.testing.assert_array_equal(adapter.to_numpy(actual), expected)


@cells
def test_wrong_shapes_are_refused(adapter: Adapter, mode: str) -> None:
    layer, parameters = make(adapter, MODES[mode])
    name, function = MODES[mode].name, MODES[mode].function
    x, native = adapter.array(normal(4, WIDTH, INPUTS)), adapter.arrays(parameters)
    bias = native["bias_hh_l0"]
    for wrong, form in ((x[0], r"\(5, 2\)"), (x[..., :1], r"\(4, 5, 1\)")):
        with pytest.raises(ragged.RaggedError, match=rf"{name}\(\): `x` is of shape {form}; exp"):
            layer(wrong)
    refused = rf"{name.lower()}\(\): `parameters"
    with pytest.raises(ragged.RaggedError, match=rf"{refused}\['bias_hh_l0'\]` is of shape \(2,"):
        function({**native, "bias_hh_l0": bias[:2]}, x)
    with pytest.raises(ragged.RaggedError, match=rf"{refused}` is named \['bias_hh_l0'\]; exp"):
        function({"bias_hh_l0": bias}, x)
    projected = {**native, "weight_hr_l0": adapter.array(normal(2, HIDDEN))}
    expected = rf"{refused}\['weight_hh_l0'\]` is of shape \(12, 3\); expected shape \(12, 2\)"
    if mode != "LSTM":
        expected = rf"{name}\(\): `proj_size` is 2; expected 0: only LSTMs have one"
    with pytest.raises(ragged.RaggedError, match=expected):
        function(projected, x)


@pytest.mark.operation("Lengths")
def test_unknown_policy_is_refused(adapter: Adapter) -> None:
    with pytest.raises(ragged.RaggedError, match="`policy` is 'fast'; expected one of"):
        ragged.Lengths([1], policy="fast")


# How a wrong state is made of an array h, and the error's message: for an LSTM and the others.
STATES: dict[str, dict[str, tuple[Callable[[Any], Any], str]]] = {
    "LSTM": {
        "h alone": (lambda h: h, r"expected the pair \(h, c\)\. Give both"),
        "half a pair": (lambda h: (h,), r"is a tuple of 1; expected the pair \(h, c\)\. Give both"),
        "no c": (lambda h: (h, None), r"is a pair with None; expected arrays \(h, c\)\. Give both"),
    },
    "other": {
        "pair": (lambda h: (h, h), r"is a tuple of 2; expected an array h\. Give h alone"),
        "half a pair": (lambda h: (h,), r"is a tuple of 1; expected an array h\. Give h alone"),
        "of another batch": (lambda h: h[:, 1:], r"is of shape \(1, 3, 3\); expected \(layers \*"),
    },
}


@pytest.mark.parametrize(
    ("mode", "case"),
    [
        pytest.param(mode, case, marks=pytest.mark.operation(layer.name, layer.name.lower()))
        for mode, layer in MODES.items()
        for case in STATES.get(mode, STATES["other"])
    ],
)
def test_states_of_another_form_are_refused(adapter: Adapter, mode: str, case: str) -> None:
    layer, parameters = make(adapter, MODES[mode])
    form, message = STATES.get(mode, STATES["other"])[case]
    x, state = adapter.array(normal(4, WIDTH, INPUTS)), form(adapter.array(normal(1, 4, HIDDEN)))
    name = MODES[mode].name
    with pytest.raises(ragged.RaggedError, match=rf"^{name}\(\): `state` .*{message}"):
        layer(x, None, state)
    with pytest.raises(ragged.RaggedError, match=rf"^{name.lower()}\(\): `state` .*{message}"):
        MODES[mode].function(adapter.arrays(parameters), x, None, state)


@pytest.mark.operation("RNN", "rnn")
def test_unknown_nonlinearities_are_refused(adapter: Adapter) -> None:
    _, parameters = make(adapter, MODES["RNN_RELU"])
    message = r"\(\): `nonlinearity` is 'gelu'; expected one of \('tanh', 'relu'\)"
    with pytest.raises(ragged.RaggedError, match=f"RNN{message}"):
        ragged.RNN(INPUTS, HIDDEN, nonlinearity="gelu")
    x = adapter.array(normal(4, WIDTH, INPUTS))
    with pytest.raises(ragged.RaggedError, match=f"rnn{message}"):
        ragged.rnn(adapter.arrays(parameters), x, nonlinearity="gelu")
