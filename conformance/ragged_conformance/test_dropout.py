"""Dropout: none in inference; in training the right rate and scale, and never across padding."""

import functools
import math
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter, JaxAdapter
from ragged_conformance.cases import EMULATED, PADDING_VALUES, POLICIES
from ragged_conformance.evaluation import compiled, evaluator, to_numpy
from ragged_conformance.oracle import padding_mask
from ragged_conformance.runner import lengths_of
from ragged_conformance.subjects import (
    Batch,
    Subject,
    attention_subject,
    encoder_decoder_lstm_subject,
    lstm_subject,
    marked,
    recurrent_subject,
)
from ragged_conformance.tolerances import LAYER, assert_close

RATE = 0.4
MODEL_OPTIONS: dict[str, Any] = {
    "decoder_hidden_size": 2,
    "num_layers": 2,
    "head_hidden_size": 4,
    "output_size": 2,
}
# The other two consist of the modules of the third.
ATTENTION_MODELS = ("AttentionLSTM", "TransformerLSTM", "TemporalFusionTransformer")


def subjects(rate: float) -> dict[str, Subject]:
    """Every subject with dropout, at a rate."""
    return {
        "LSTM": lstm_subject(num_layers=2, bidirectional=True, dropout=rate),
        "GRU": recurrent_subject("GRU", num_layers=2, bidirectional=True, dropout=rate),
        "RNN": recurrent_subject("RNN_RELU", num_layers=2, dropout=rate),
        "EncoderDecoderLSTM": encoder_decoder_lstm_subject(dropout=rate, **MODEL_OPTIONS),
        **{name: attention_subject(name, dropout=rate) for name in ATTENTION_MODELS},
    }


WITH, WITHOUT = subjects(RATE), subjects(0.0)
names = pytest.mark.parametrize("name", marked(WITH))


def outputs(
    adapter: Adapter, subject: Subject, module: Any, batch: Batch, policy: str = "auto"
) -> dict[str, np.ndarray]:
    """Run a module in its current mode."""
    arrays, lengths = adapter.arrays(batch.arrays), lengths_of(batch, policy)
    return to_numpy(adapter, program(adapter, subject)(module, arrays, lengths))


@functools.cache
def program(adapter: Adapter, subject: Subject) -> Any:
    """The call of a module, which on JAX is compiled once for all modules of one structure."""
    if not isinstance(adapter, JaxAdapter):
        return subject.call
    import jax
    from flax import nnx

    def functional(graph: Any, state: Any, arrays: Any, lengths: Any) -> Any:
        module = nnx.merge(graph, state)
        return subject.call(module, arrays, lengths), nnx.state(module)

    run = compiled(adapter, functional)

    def call(module: Any, arrays: Any, lengths: Any) -> Any:
        graph, state = nnx.split(module)
        # A program's results are bound to its device: what is not, is a second program's.
        state = jax.device_put(state, jax.tree.leaves(arrays)[0].sharding)
        results, state = run(graph, state, arrays, lengths)
        nnx.update(module, state)
        return results

    return call


def trained(
    adapter: Adapter, subject: Subject, module: Any, seed: int, **options: Any
) -> dict[str, np.ndarray]:
    """Run a module in training mode."""
    with adapter.training(module, seed):
        return outputs(adapter, subject, module, options.pop("batch", subject.batch), **options)


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], what: str) -> None:
    """Compare bit by bit."""
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, f"{name}, {what}")


def differ(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether any number differs."""
    return any((one[name] != other[name]).any() for name in one)


@names
def test_inference_is_that_of_no_dropout(adapter: Adapter, name: str) -> None:
    subject, plain = WITH[name], WITHOUT[name]
    module = adapter.prepare(subject.build())
    expected = outputs(adapter, plain, adapter.prepare(plain.build()), subject.batch)
    assert differ(trained(adapter, subject, module, seed=0), expected)
    assert_same(outputs(adapter, subject, module, subject.batch), expected, "after training")


@names
def test_seed_decides_what_is_dropped(adapter: Adapter, name: str) -> None:
    subject = WITH[name]
    module, other = (adapter.prepare(subject.build()) for _ in range(2))
    first = trained(adapter, subject, module, seed=0)
    assert differ(trained(adapter, subject, module, seed=1), first)
    assert_same(trained(adapter, subject, module, seed=0), first, "again")
    assert_same(trained(adapter, subject, other, seed=0), first, "another module")


@names
def test_each_call_drops_others(adapter: Adapter, name: str) -> None:
    subject = WITH[name]
    module = adapter.prepare(subject.build())
    with adapter.training(module, 0):
        one, two = (outputs(adapter, subject, module, subject.batch) for _ in range(2))
    assert differ(one, two)


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        pytest.param(name, policy, marks=pytest.mark.operation(subject.operation))
        for name, subject in WITH.items()
        for policy in (("auto",) if subject.forwards_lengths else POLICIES)
    ],
)
def test_padding_cannot_speak_in_training(adapter: Adapter, name: str, policy: str) -> None:
    if adapter.name == "jax" and policy in EMULATED:
        pytest.skip(f"JAX packs by {EMULATED[policy]}")
    subject = WITH[name]
    module = adapter.prepare(subject.build())
    clean = subject.batch.filled(0.0)
    expected = trained(adapter, subject, module, seed=3, batch=clean, policy=policy)
    for value in PADDING_VALUES:
        padded = subject.batch.filled(value)
        actual = trained(adapter, subject, module, seed=3, batch=padded, policy=policy)
        assert_same(actual, expected, f"{value} at padding")
    for output, source in subject.sequences.items():
        padding = ~padding_mask(clean.lengths[source], clean.arrays[source].shape[1])
        assert (expected[output][padding] == 0).all(), f"{output} at padding"


@pytest.mark.parametrize("name", marked({name: WITH[name] for name in ("LSTM", "GRU", "RNN")}))
def test_gradients_at_padding_are_zero_in_training(adapter: Adapter, name: str) -> None:
    subject = WITH[name]
    module, batch = adapter.prepare(subject.build()), subject.batch.filled(np.nan)
    with adapter.training(module, 3):
        initial, call = adapter.functional(module)

        def total(values: Any, lengths: Any) -> tuple[Any, Any]:
            parameters = {name: values[name] for name in initial}
            results = subject.call(lambda *a: call(parameters, *a), values, lengths)
            return sum((output**2).sum() for output in results.values()), {}

        values, lengths = {**adapter.arrays(batch.arrays), **initial}, lengths_of(batch, "auto")
        _, gradients = evaluator(adapter, total)(values, lengths)
    padding = ~padding_mask(batch.lengths["x"], batch.arrays["x"].shape[1])
    assert (gradients["x"][padding] == 0).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


ROWS, STEPS, UNITS = 24, 40, 4
LENGTHS = np.arange(ROWS) * STEPS // (ROWS - 1)  # 0 to STEPS
CELL = slice(2 * UNITS, 3 * UNITS)  # the rows of gate g


def without_memory(module: Any, adapter: Adapter, prefixes: tuple[str, ...]) -> dict[str, Any]:
    """Zero all parameters but two layers of LSTMs, which map x to tanh(tanh(x)) alone.

    The first of the two layers sees the constant 1, the second each unit of the first.
    """
    initial = adapter.backend.get_parameters(module)
    parameters = {name: np.zeros_like(value) for name, value in initial.items()}
    for prefix in prefixes:
        for layer in ("l0", "l1"):
            i, f, _, o = np.split(parameters[f"{prefix}bias_ih_{layer}"], 4)
            i[:], f[:], o[:] = 100.0, -100.0, 100.0
        parameters[f"{prefix}bias_hh_l0"][CELL] = 1.0
        parameters[f"{prefix}weight_ih_l1"][CELL] = np.eye(UNITS)
    return parameters


def twice_tanh(x: float) -> float:
    """The output of two layers without memory."""
    return math.tanh(math.tanh(x))


KEPT = twice_tanh(1.0) / (1 - RATE)  # of the first layer's output, where it is kept


@pytest.mark.operation("LSTM")
def test_rate_and_scale(adapter: Adapter) -> None:
    layer = adapter.prepare(ragged.LSTM(1, UNITS, num_layers=2, dropout=RATE, seed=0))
    adapter.backend.set_parameters(layer, without_memory(layer, adapter, ("",)))
    valid = padding_mask(LENGTHS, STEPS)
    with adapter.training(layer, 0):
        y, _ = layer(adapter.array(np.where(valid, 0.0, np.nan)[..., None]), LENGTHS)
    y = adapter.to_numpy(y)
    assert (y[~valid] == 0).all()
    dropped = np.abs(y) < twice_tanh(KEPT) / 2
    expected = np.where(dropped | ~valid[..., None], 0.0, twice_tanh(KEPT))
    assert_close(y, expected, adapter.dtype, LAYER)

    assert_binomial(dropped[valid], RATE, "elements")
    # Neighbours in time, in the batch and among the units are dropped independently.
    assert_binomial((dropped[:, ::2] & dropped[:, 1::2])[valid[:, 1::2]], RATE**2, "steps")
    assert_binomial((dropped[::2] & dropped[1::2])[valid[::2]], RATE**2, "rows")
    assert_binomial((dropped[..., ::2] & dropped[..., 1::2])[valid], RATE**2, "units")


def assert_binomial(events: np.ndarray, rate: float, what: str) -> None:
    """Compare a count with that of independent draws, within 6 standard deviations."""
    count, expected = events.sum(), events.size * rate
    allowed = 6 * math.sqrt(events.size * rate * (1 - rate))
    assert abs(count - expected) <= allowed, f"{what}: {count} of {events.size}, not {expected:.0f}"


@pytest.mark.operation("models.EncoderDecoderLSTM")
def test_all_places_of_the_model_drop_independently(adapter: Adapter) -> None:
    rows, units = 300, UNITS
    model = adapter.prepare(
        ragged.models.EncoderDecoderLSTM(
            1, 1, hidden_size=units, num_layers=2, head_hidden_size=units, output_size=units,
            dropout=RATE, seed=0,
        )
    )  # fmt: skip
    parameters = without_memory(model, adapter, ("encoder.", "decoder."))
    parameters["decoder.weight_hh_l1"][CELL] = -2 * np.eye(units)
    parameters["head.hidden.weight"][:] = parameters["head.output.weight"][:] = np.eye(units)
    parameters["head.hidden.bias"][:] = 1.0
    adapter.backend.set_parameters(model, parameters)
    one_step = adapter.array(np.zeros((rows, 1, 1)))
    with adapter.training(model, 0):
        output = adapter.to_numpy(model(one_step, one_step).output)

    # By (head, encoder, decoder): which of the three kept an element decides its value.
    encoder = twice_tanh(KEPT)
    levels = {
        (1, e, d): (1 + twice_tanh(d * KEPT - 2 * e * encoder)) / (1 - RATE)
        for e in (0, 1)
        for d in (0, 1)
    }
    levels[0, 0, 0] = 0.0
    values = np.array(list(levels.values()))
    nearest = np.abs(output[..., None] - values).argmin(-1)
    assert_close(output, values[nearest], adapter.dtype, LAYER)
    head, encoder_kept, decoder_kept = np.array(list(levels))[nearest].T
    seen = head == 1
    assert_binomial(~seen, RATE, "head")
    assert_binomial(encoder_kept[seen] == 0, RATE, "encoder")
    assert_binomial(decoder_kept[seen] == 0, RATE, "decoder")
    assert_binomial((encoder_kept[seen] == 0) & (decoder_kept[seen] == 0), RATE**2, "both")
