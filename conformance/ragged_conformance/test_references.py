"""The real thing where it is defined: torch's and JAX's own LSTMs and packing, in float64.

What they give at padding is their own affair: values are compared, and gradients started, at valid
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
    LSTM_OPTIONS,
    WIDTH,
    fill_padding,
    lstm_state,
    normal,
)
from ragged_conformance.tolerances import LAYER, MODEL, assert_all_close

Arrays = dict[str, Any]
Reference = Callable[..., Any]

ROWS = LENGTHS["mixed"]


def weights_of_the_sum(options: dict[str, Any]) -> list[np.ndarray]:
    """One weight for each element of y, h and c; 0 at padding."""
    h, c = lstm_state(options, len(ROWS))
    features = h.shape[2] * (2 if options.get("bidirectional") else 1)
    y = fill_padding(normal(len(ROWS), WIDTH, features, seed=7), ROWS, 0.0)
    return [y, normal(*h.shape, seed=8), normal(*c.shape, seed=9)]


def inputs_of(adapter: Adapter, options: dict[str, Any]) -> Arrays:
    """The inputs, and the parameters as the dtype under test rounds them."""
    h, c = lstm_state(options, len(ROWS))
    layer = adapter.prepare(ragged.LSTM(INPUTS, HIDDEN, seed=0, **options))
    found = adapter.backend.get_parameters(layer)
    parameters = {name: value.astype(float) for name, value in found.items()}
    return {"x": normal(len(ROWS), WIDTH, INPUTS), "h": h, "c": c, **parameters}


def assert_equals(adapter: Adapter, options: dict[str, Any], inputs: Arrays, theirs: Any) -> None:
    """Compare our values and gradients with (values, gradients) of the reference."""
    weights = [adapter.array(weight) for weight in weights_of_the_sum(options)]

    def run(x: Any, h: Any, c: Any, **parameters: Any) -> Any:
        y, (h, c) = ragged.lstm(parameters, x, list(ROWS), (h, c))
        return {"y": y, "h": h, "c": c}

    def total(**inputs: Any) -> Any:
        pairs = zip(run(**inputs).values(), weights, strict=True)
        return sum((array * weight).sum() for array, weight in pairs)

    values, gradients = theirs
    values["y"] = fill_padding(values["y"], ROWS, 0.0)
    native = adapter.arrays(inputs)
    found = {name: adapter.to_numpy(value) for name, value in run(**native).items()}
    assert_all_close(found, values, adapter.dtype, LAYER)
    assert_all_close(adapter.gradients(total, native), gradients, adapter.dtype, MODEL)


@pytest.mark.operation("LSTM", "lstm")
@pytest.mark.parametrize("name", LSTM_OPTIONS)
def test_lstm_equals_torch_on_a_packed_sequence(adapter: Adapter, name: str) -> None:
    torch = pytest.importorskip("torch")
    options = LSTM_OPTIONS[name]
    inputs = inputs_of(adapter, options)
    layer = torch.nn.LSTM(INPUTS, HIDDEN, batch_first=True, **options).double()
    parameters = {n: torch.from_numpy(value) for n, value in inputs.items() if n not in "xhc"}
    assert list(layer.state_dict()) == list(parameters) or adapter.name == "jax"
    layer.load_state_dict(parameters)
    x, h, c = (torch.from_numpy(inputs[name]).requires_grad_() for name in "xhc")
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor(ROWS), batch_first=True, enforce_sorted=False
    )
    y, final = layer(packed, (h, c))
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=WIDTH)
    pairs = zip((y, *final), weights_of_the_sum(options), strict=True)
    sum((array * torch.from_numpy(weight)).sum() for array, weight in pairs).backward()
    leaves = {"x": x, "h": h, "c": c, **dict(layer.named_parameters())}
    values = {n: a.detach().numpy() for n, a in zip("yhc", (y, *final), strict=True)}
    gradients = {name: leaf.grad.numpy() for name, leaf in leaves.items()}
    assert_equals(adapter, options, inputs, (values, gradients))


def differentiated(reference: Reference, options: dict[str, Any]) -> Reference:
    """Compile a reference of JAX: `run(inputs)` gives its values and gradients."""
    import jax

    weights = weights_of_the_sum(options)

    def total(inputs: Arrays) -> Any:
        y, (h, c) = reference(**inputs)
        pairs = zip((y, h, c), weights, strict=True)
        return sum((a * w).sum() for a, w in pairs), {"y": y, "h": h, "c": c}

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def in_float64(function: Reference, inputs: Arrays) -> Any:
    """Run a compiled reference whatever the dtype under test: (values, gradients)."""
    import jax

    # Before JAX 0.8 it stood in jax.experimental.
    scope = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    with scope.enable_x64(True):
        native = {name: jax.numpy.asarray(value) for name, value in inputs.items()}
        (_, values), gradients = function(native)
    return tuple({k: np.asarray(v) for k, v in found.items()} for found in (values, gradients))


@functools.cache
def reference_of_jax(name: str) -> Reference:
    """JAX's own reference of cuDNN's LSTM."""
    from jax.experimental import rnn

    options = LSTM_OPTIONS[name]
    layers, both_ways = options.get("num_layers", 1), options.get("bidirectional", False)
    suffixes = [f"_l{i}{way}" for i in range(layers) for way in ("", "_reverse")[: 1 + both_ways]]
    lengths = np.array(ROWS, np.int32)

    def reference(x: Any, h: Any, c: Any, **parameters: Any) -> Any:
        own = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        stacked = [{i: parameters[w + s] for i, s in enumerate(suffixes)} for w in own]
        sizes = INPUTS, HIDDEN, layers, 0.0, both_ways
        y, h, c = rnn.lstm_ref(x, h, c, *stacked, lengths, *sizes)
        return y, (h, c)

    return differentiated(reference, options)


@pytest.mark.operation("lstm")
@pytest.mark.parametrize("name", ["one layer", "two layers", "bidirectional"])
def test_lstm_equals_the_reference_of_jax(adapter: Adapter, name: str) -> None:
    pytest.importorskip("jax.experimental.rnn")
    inputs = inputs_of(adapter, LSTM_OPTIONS[name])
    theirs = in_float64(reference_of_jax(name), inputs)
    assert_equals(adapter, LSTM_OPTIONS[name], inputs, theirs)


def flax_cell(kind: str, parameters: Arrays, suffix: str) -> Any:
    """Make flax's cell with torch's parameters.

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


@functools.cache
def reference_of_flax(kind: str, name: str) -> Reference:
    """Flax's RNN around one of its cells."""
    import jax.numpy as jnp
    from flax import nnx

    lengths = np.array(ROWS)

    def reference(x: Any, h: Any, c: Any, **parameters: Any) -> Any:
        cells = [flax_cell(kind, parameters, way) for way in ("_l0", "_l0_reverse")[: len(h)]]
        runners = [nnx.RNN(cell, return_carry=True) for cell in cells]
        carries = tuple(zip(c, h, strict=True))  # flax's order; torch's and ours is (h, c)
        # A row of length 0 would get the carry at index -1: the end of its padding.
        if len(runners) == 2:
            layer = nnx.Bidirectional(*runners, return_carry=True)
            carries, y = layer(x, initial_carry=carries, seq_lengths=lengths)
        else:
            final, y = runners[0](x, initial_carry=carries[0], seq_lengths=lengths)
            carries = (final,)
        c, h = (jnp.stack(each) for each in zip(*carries, strict=True))
        return y, (h, c)

    return differentiated(reference, LSTM_OPTIONS[name])


@pytest.mark.operation("lstm")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("OptimizedLSTMCell", "one layer"),
        ("OptimizedLSTMCell", "bidirectional"),
        ("LSTMCell", "one layer"),
    ],
)
def test_lstm_equals_flax(adapter: Adapter, kind: str, name: str) -> None:
    pytest.importorskip("flax.nnx")
    inputs = inputs_of(adapter, LSTM_OPTIONS[name])
    theirs = in_float64(reference_of_flax(kind, name), inputs)
    assert_equals(adapter, LSTM_OPTIONS[name], inputs, theirs)


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
        found = adapter.to_numpy(getattr(ours, field))
        np.testing.assert_array_equal(found, getattr(theirs, field).detach().numpy(), field)

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
