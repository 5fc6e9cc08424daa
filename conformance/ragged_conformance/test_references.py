"""Reference implementations: torch's and JAX's own layers and packing, in float64.

Their values at padding are not specified: values are compared, and gradients started, at valid
steps and in the final state alone. All refuse or break rows of length 0, so there are none here.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import (
    HIDDEN,
    INPUTS,
    LENGTHS,
    WIDTH,
    fill_padding,
    normal,
)
from ragged_conformance.evaluation import Evaluate, evaluator
from ragged_conformance.recurrent import LAYERS, Layer, as_state, marked, named, weighted_sum
from ragged_conformance.tolerances import LAYER, MODEL, assert_all_close

Arrays = dict[str, Any]
Reference = Callable[..., Any]

ROWS = LENGTHS["mixed"]


def weights_of_the_sum(layer: Layer) -> list[np.ndarray]:
    """One weight for each element of y and the states; 0 at padding."""
    features = layer.output * (2 if layer.options.get("bidirectional") else 1)
    y = fill_padding(normal(len(ROWS), WIDTH, features, seed=7), ROWS, 0.0)
    states = layer.state(len(ROWS)).values()
    return [y, *(normal(*part.shape, seed=seed) for seed, part in enumerate(states, start=8))]


def inputs_of(adapter: Adapter, layer: Layer) -> Arrays:
    """The inputs, and the parameters as the dtype under test rounds them."""
    initial = adapter.backend.get_parameters(adapter.prepare(layer.build(seed=0)))
    parameters = {name: value.astype(float) for name, value in initial.items()}
    return {"x": normal(len(ROWS), WIDTH, INPUTS), **layer.state(len(ROWS)), **parameters}


def split_inputs(inputs: Arrays) -> tuple[Any, list[Any], Arrays]:
    """Split inputs into x, the states and the parameters."""
    states = [inputs[name] for name in "hc" if name in inputs]
    return inputs["x"], states, {n: value for n, value in inputs.items() if n not in "xhc"}


@functools.cache
def make_evaluate(adapter: Adapter, name: str) -> Evaluate:
    """Evaluate a layer and its gradients, on JAX by one program for all references."""
    weights = [adapter.array(weight) for weight in weights_of_the_sum(LAYERS[name])]

    def function(inputs: Any, _: Any) -> tuple[Any, Arrays]:
        x, states, parameters = split_inputs(inputs)
        result = LAYERS[name].function(parameters, x, list(ROWS), as_state(states))
        return weighted_sum(result, weights), named(result)

    return evaluator(adapter, function)


def assert_equals(adapter: Adapter, name: str, inputs: Arrays, reference: Any) -> None:
    """Compare a layer's values and gradients with (values, gradients) of the reference."""
    values, gradients = reference
    values["y"] = fill_padding(values["y"], ROWS, 0.0)
    actual, actual_gradients = make_evaluate(adapter, name)(adapter.arrays(inputs), {})
    assert_all_close(actual, values, adapter.dtype, LAYER)
    assert_all_close(actual_gradients, gradients, adapter.dtype, MODEL)


@pytest.mark.parametrize("name", marked(LAYERS))
def test_layer_equals_torch_on_a_packed_sequence(adapter: Adapter, name: str) -> None:
    torch = pytest.importorskip("torch")
    ours = LAYERS[name]
    inputs = inputs_of(adapter, ours)
    kind = getattr(torch.nn, ours.name)
    layer = kind(INPUTS, HIDDEN, batch_first=True, **ours.variant, **ours.options).double()
    parameters = {n: torch.from_numpy(value) for n, value in split_inputs(inputs)[2].items()}
    assert list(layer.state_dict()) == list(parameters) or adapter.name == "jax"
    layer.load_state_dict(parameters)
    leaves = {n: torch.from_numpy(inputs[n]).requires_grad_() for n in inputs if n in "xhc"}
    x, states, _ = split_inputs(leaves)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor(ROWS), batch_first=True, enforce_sorted=False
    )
    y, final = layer(packed, as_state(states))
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=WIDTH)
    weighted_sum((y, final), map(torch.from_numpy, weights_of_the_sum(ours))).backward()
    leaves |= dict(layer.named_parameters())
    outputs = {name: array.detach().numpy() for name, array in named((y, final)).items()}
    gradients = {name: leaf.grad.numpy() for name, leaf in leaves.items()}
    assert_equals(adapter, name, inputs, (outputs, gradients))


def differentiated(reference: Reference, layer: Layer) -> Reference:
    """Compile a reference of JAX, `reference(parameters, x, *states)`: values and gradients."""
    import jax

    weights = weights_of_the_sum(layer)

    def total(inputs: Arrays) -> Any:
        x, states, parameters = split_inputs(inputs)
        result = reference(parameters, x, *states)
        return weighted_sum(result, weights), named(result)

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def in_float64(function: Reference, inputs: Arrays) -> Any:
    """Run a compiled reference whatever the dtype under test: (values, gradients)."""
    import jax

    # Before JAX 0.8 it stood in jax.experimental.
    scope = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    with scope.enable_x64(True):
        native = {name: jax.numpy.asarray(value) for name, value in inputs.items()}
        (_, values), gradients = function(native)
    return tuple({k: np.asarray(v) for k, v in arrays.items()} for arrays in (values, gradients))


@functools.cache
def reference_of_jax(name: str) -> Reference:
    """JAX's own reference of cuDNN's LSTM."""
    from jax.experimental import rnn

    options = LAYERS[name].options
    layers, both_ways = options.get("num_layers", 1), options.get("bidirectional", False)
    suffixes = [f"_l{i}{way}" for i in range(layers) for way in ("", "_reverse")[: 1 + both_ways]]
    lengths = np.array(ROWS, np.int32)

    def reference(parameters: Arrays, x: Any, h: Any, c: Any) -> Any:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        stacked = [{i: parameters[w + s] for i, s in enumerate(suffixes)} for w in names]
        sizes = INPUTS, HIDDEN, layers, 0.0, both_ways
        y, h, c = rnn.lstm_ref(x, h, c, *stacked, lengths, *sizes)
        return y, (h, c)

    return differentiated(reference, LAYERS[name])


@pytest.mark.operation("lstm")
@pytest.mark.parametrize("name", ["LSTM, one layer", "LSTM, two layers", "LSTM, bidirectional"])
def test_lstm_equals_the_reference_of_jax(adapter: Adapter, name: str) -> None:
    pytest.importorskip("jax.experimental.rnn")
    inputs = inputs_of(adapter, LAYERS[name])
    theirs = in_float64(reference_of_jax(name), inputs)
    assert_equals(adapter, name, inputs, theirs)


def flax_lstm(kind: str, parameters: Arrays, suffix: str) -> Any:
    """Make flax's LSTM with torch's parameters.

    Its kernels are torch's weights transposed; it has one bias where torch adds two. The gates of
    OptimizedLSTMCell stand in torch's order, those of LSTMCell are layers of their own.
    """
    from flax import nnx

    cell = getattr(nnx, kind)(INPUTS, HIDDEN, rngs=nnx.Rngs(0))
    inner, recurrent = parameters["weight_ih" + suffix].T, parameters["weight_hh" + suffix].T
    bias = parameters["bias_ih" + suffix] + parameters["bias_hh" + suffix]
    if kind == "OptimizedLSTMCell":
        gates = [(cell.dense_i, cell.dense_h, slice(None))]
    else:
        layers = [(cell.ii, cell.hi), (cell.if_, cell.hf), (cell.ig, cell.hg), (cell.io, cell.ho)]
        gates = [(*pair, slice(k * HIDDEN, (k + 1) * HIDDEN)) for k, pair in enumerate(layers)]
    for of_x, of_h, columns in gates:
        of_x.kernel = nnx.Param(inner[:, columns])
        of_h.kernel, of_h.bias = nnx.Param(recurrent[:, columns]), nnx.Param(bias[columns])
    return cell


def flax_gru(kind: str, parameters: Arrays, suffix: str) -> Any:
    """Make flax's GRU with torch's parameters.

    Its gates stand in torch's order. Torch's two biases differ in n alone; elsewhere they add up.
    """
    import jax.numpy as jnp
    from flax import nnx

    cell, rngs = nnx.GRUCell(INPUTS, HIDDEN, rngs=nnx.Rngs(0)), nnx.Rngs(0)
    cell.dense_h = nnx.Linear(HIDDEN, 3 * HIDDEN, rngs=rngs)  # flax leaves its bias out
    of_x, of_h = parameters["bias_ih" + suffix], parameters["bias_hh" + suffix]
    n = slice(2 * HIDDEN, None)
    cell.dense_i.kernel = nnx.Param(parameters["weight_ih" + suffix].T)
    cell.dense_i.bias = nnx.Param(of_x.at[: 2 * HIDDEN].add(of_h[: 2 * HIDDEN]))
    cell.dense_h.kernel = nnx.Param(parameters["weight_hh" + suffix].T)
    cell.dense_h.bias = nnx.Param(jnp.zeros_like(of_h).at[n].set(of_h[n]))
    return cell


def flax_rnn(kind: str, parameters: Arrays, suffix: str) -> Any:
    """Make flax's plain cell with torch's parameters; its bias is one."""
    from flax import nnx

    cell = nnx.SimpleCell(INPUTS, HIDDEN, dtype=None, rngs=nnx.Rngs(0))
    bias = parameters["bias_ih" + suffix] + parameters["bias_hh" + suffix]
    cell.dense_i.kernel = nnx.Param(parameters["weight_ih" + suffix].T)
    cell.dense_i.bias = nnx.Param(bias)
    cell.dense_h.kernel = nnx.Param(parameters["weight_hh" + suffix].T)
    return cell


FLAX: dict[str, Callable[..., Any]] = {
    "OptimizedLSTMCell": flax_lstm,
    "LSTMCell": flax_lstm,
    "GRUCell": flax_gru,
    "SimpleCell": flax_rnn,
}


@functools.cache
def reference_of_flax(kind: str, name: str) -> Reference:
    """Flax's RNN around one of its cells."""
    import jax.numpy as jnp
    from flax import nnx

    lengths = np.array(ROWS)

    def reference(parameters: Arrays, x: Any, *states: Any) -> Any:
        ways = ("_l0", "_l0_reverse")[: len(states[0])]
        runners = [nnx.RNN(FLAX[kind](kind, parameters, way), return_carry=True) for way in ways]
        # Flax's order is (c, h); torch's and ours is (h, c).
        carries = tuple(as_state(state[::-1]) for state in zip(*states, strict=True))
        # A row of length 0 would get the carry at index -1: the end of its padding.
        if len(runners) == 2:
            layer = nnx.Bidirectional(*runners, return_carry=True)
            carries, y = layer(x, initial_carry=carries, seq_lengths=lengths)
        else:
            final, y = runners[0](x, initial_carry=carries[0], seq_lengths=lengths)
            carries = (final,)
        finals = [carry[::-1] if isinstance(carry, tuple) else (carry,) for carry in carries]
        return y, as_state(jnp.stack(parts) for parts in zip(*finals, strict=True))

    return differentiated(reference, LAYERS[name])


@pytest.mark.operation("lstm", "gru", "rnn")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("OptimizedLSTMCell", "LSTM, one layer"),
        ("OptimizedLSTMCell", "LSTM, bidirectional"),
        ("LSTMCell", "LSTM, one layer"),
        ("GRUCell", "GRU, one layer"),
        ("SimpleCell", "RNN_TANH, one layer"),
    ],
)
def test_layer_equals_flax(adapter: Adapter, kind: str, name: str) -> None:
    pytest.importorskip("flax.nnx")
    inputs = inputs_of(adapter, LAYERS[name])
    theirs = in_float64(reference_of_flax(kind, name), inputs)
    assert_equals(adapter, name, inputs, theirs)


@pytest.mark.operation("pack_sequences", "unpack_to_fixed_length")
@pytest.mark.parametrize("case", ["mixed", "ties", "all full", "one long among many short"])
def test_packing_equals_torch_there_and_back(adapter: Adapter, case: str) -> None:
    rnn = pytest.importorskip("torch.nn.utils.rnn")
    import torch

    lengths = np.array(LENGTHS[case], int)
    x = normal(len(lengths), WIDTH, 2)
    leaf = torch.from_numpy(x).requires_grad_()
    theirs = rnn.pack_padded_sequence(
        leaf, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    ours = ragged.pack_sequences(adapter.array(x), lengths)
    assert ours._fields == theirs._fields
    for field in ours._fields:
        actual = adapter.to_numpy(getattr(ours, field))
        np.testing.assert_array_equal(actual, getattr(theirs, field).detach().numpy(), field)

    padded, _ = rnn.pad_packed_sequence(theirs, batch_first=True, total_length=WIDTH + 1)
    back = ragged.unpack_to_fixed_length(ours, lengths, WIDTH + 1)
    np.testing.assert_array_equal(adapter.to_numpy(back), padded.detach().numpy())

    weight = normal(*ours.data.shape, seed=1)
    (expected,) = torch.autograd.grad((theirs.data * torch.from_numpy(weight)).sum(), [leaf])
    gradients = adapter.gradients(
        lambda x: (ragged.pack_sequences(x, lengths).data * adapter.array(weight)).sum(),
        {"x": adapter.array(x)},
    )
    np.testing.assert_array_equal(gradients["x"], expected.numpy())


@pytest.mark.operation("pack_sequences", "unpack_to_fixed_length")
def test_torch_takes_and_gives_our_packed_sequence(torch_adapter: Adapter) -> None:
    import torch

    x, layer = normal(4, WIDTH, INPUTS), torch.nn.LSTM(INPUTS, HIDDEN, batch_first=True)
    layer = layer.to(torch_adapter.device, getattr(torch, torch_adapter.dtype))
    packed, _ = layer(ragged.pack_sequences(torch_adapter.array(x), list(ROWS)))
    ours = ragged.unpack_to_fixed_length(packed, list(ROWS), WIDTH)
    theirs, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=WIDTH)
    np.testing.assert_array_equal(torch_adapter.to_numpy(ours), torch_adapter.to_numpy(theirs))
    padding = ~oracle.padding_mask(ROWS, WIDTH)
    assert (torch_adapter.to_numpy(ours)[padding] == 0).all()
