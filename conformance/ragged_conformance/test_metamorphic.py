"""The promises on random batches: what may change about a batch without changing its numbers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ragged
from ragged_conformance import strategies
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import EMULATED, INPUTS, WIDTH, normal
from ragged_conformance.evaluation import Results, one_thread
from ragged_conformance.oracle import padding_mask
from ragged_conformance.recurrent import LAYERS, arrays_of, as_state
from ragged_conformance.runner import WIDER, Runner, lengths_of
from ragged_conformance.runner import runner as cached_runner
from ragged_conformance.subjects import (
    SUBJECTS,
    Batch,
    Subject,
    lstm_subject,
    marked,
    recurrent_subject,
    rows_first,
)
from ragged_conformance.tolerances import LAYER, assert_all_close, assert_close

ROWS = 4
PROJECTION = 2


def without_state(subject: Subject) -> Subject:
    """A recurrent layer that starts from zeros."""

    def call(layer: Any, arrays: dict[str, Any], lengths: Mapping[str, Any]) -> dict[str, Any]:
        return rows_first(layer(arrays["x"], lengths["x"]))

    batch = Batch({"x": subject.batch.arrays["x"]}, subject.batch.lengths)
    return replace(subject, call=call, batch=batch)


COMMON = ("LSTM", "GRU", "EncoderDecoderLSTM", "AttentionLSTM")
VARIANTS: dict[str, Subject] = {
    **{name: SUBJECTS[name] for name in COMMON},
    "LSTM, bare": without_state(lstm_subject(bias=False, proj_size=PROJECTION)),
}
MORE: dict[str, Subject] = {
    name: subject for name, subject in SUBJECTS.items() if name not in COMMON
} | {
    f"{name}{suffix}": change(recurrent_subject(layer.mode, **layer.options))
    for name, layer in LAYERS.items()
    for suffix, change in (("", lambda subject: subject), (", without state", without_state))
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on few variants, since JAX takes seconds to compile each, or on all."""
    if "runner" in metafunc.fixturenames:
        more = MORE if metafunc.config.getoption("exhaustive") else {}
        metafunc.parametrize("runner", marked({**VARIANTS, **more}), indirect=True)


@pytest.fixture
def runner(request: pytest.FixtureRequest, adapter: Adapter) -> Runner:
    """The layer or model under test."""
    return make_runner(adapter, request.param)


def make_runner(adapter: Adapter, variant: str) -> Runner:
    """The runner of a variant, whose lengths are traced on JAX: one program serves all."""
    return cached_runner(adapter, {**VARIANTS, **MORE}[variant], traced=True)


def draw(runner: Runner, data: Any, more: int = 0) -> Batch:
    """Draw a batch `more` steps wider than the subject's."""
    template = runner.subject.batch
    lengths, shapes = {}, {name: (ROWS, *x.shape[1:]) for name, x in template.arrays.items()}
    for name in template.lengths:
        width = shapes[name][1] + more
        lengths[name] = data.draw(strategies.lengths(ROWS, width), f"lengths of {name}")
        shapes[name] = (ROWS, width, *shapes[name][2:])
    seed = data.draw(strategies.seeds(), "seed")
    drawn = enumerate(shapes.items(), start=seed)
    batch = Batch({name: normal(*shape, seed=i) for i, (name, shape) in drawn}, lengths)
    return runner.complete(batch, seed=seed + len(shapes))


def assert_results_close(runner: Runner, actual: Any, expected: Any) -> None:
    """Compare outputs and gradients."""
    assert_all_close(actual[0], expected[0], runner.adapter.dtype, runner.subject.kind)
    assert_all_close(actual[1], expected[1], runner.adapter.dtype)


def assert_results_equal(actual: Any, expected: Any) -> None:
    """Compare outputs and gradients bit by bit."""
    for a, b in zip(actual, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], name)


def rows_of(runner: Runner, evaluation: Any, rows: np.ndarray) -> Any:
    """Index the rows of outputs and of inputs' gradients; parameters have none."""
    outputs, gradients = evaluation
    return {name: value[rows] for name, value in outputs.items()}, {
        name: value if name in runner.parameters else value[rows]
        for name, value in gradients.items()
    }


@given(data=st.data(), value=strategies.garbage())
def test_garbage_in_padding_changes_nothing(runner: Runner, data: Any, value: float) -> None:
    batch = draw(runner, data, WIDER)
    actual = runner.evaluate(batch.filled(value))
    assert_results_equal(actual, runner.evaluate(batch.filled(0.0)))
    for name, lengths in batch.lengths.items():
        padding = ~padding_mask(lengths, batch.arrays[name].shape[1])
        assert (actual[1][name][padding] == 0).all(), f"gradient of {name} at padding"
    for output, name in runner.subject.sequences.items():
        padding = ~padding_mask(batch.lengths[name], batch.arrays[name].shape[1])
        assert (actual[0][output][padding] == 0).all(), f"{output} at padding"


@given(data=st.data(), order=strategies.orders(ROWS))
def test_rows_may_come_in_any_order(runner: Runner, data: Any, order: np.ndarray) -> None:
    batch = draw(runner, data, WIDER).filled(np.nan)
    expected = rows_of(runner, runner.evaluate(batch), order)
    assert_results_close(runner, runner.evaluate(batch.rows(order)), expected)


@given(data=st.data(), empty=strategies.subsets(ROWS))
def test_empty_rows_change_nothing_for_the_others(
    runner: Runner, data: Any, empty: np.ndarray
) -> None:
    batch = draw(runner, data, WIDER)
    lengths = {name: np.where(empty, 0, n) for name, n in batch.lengths.items()}
    actual = runner.evaluate(Batch(batch.arrays, lengths).filled(np.inf))
    (actual, actual_gradients), (expected, expected_gradients) = (
        rows_of(runner, evaluation, ~empty) for evaluation in (actual, runner.evaluate(batch))
    )
    kind, dtype = runner.subject.kind, runner.adapter.dtype
    assert_all_close(actual, expected, dtype, kind)
    for name in batch.arrays.keys() & expected_gradients.keys():
        assert_close(actual_gradients[name], expected_gradients[name], dtype, what=name)


@given(data=st.data())
def test_parts_add_up_to_the_batch_whatever_its_padding(runner: Runner, data: Any) -> None:
    batch = draw(runner, data)
    outputs, gradients = runner.evaluate(batch.widened(WIDER).filled(np.nan))
    parts = [runner.evaluate(batch.rows([row])) for row in range(ROWS)]
    summed = {
        name: sum(part[1][name] for part in parts)
        if name in runner.parameters
        else np.concatenate([part[1][name] for part in parts])
        for name in gradients
    }
    together = {name: np.concatenate([part[0][name] for part in parts]) for name in outputs}
    assert_results_close(runner, narrowed(runner, batch, outputs, gradients), (together, summed))


def narrowed(runner: Runner, batch: Batch, outputs: Results, gradients: Results) -> Any:
    """Cut results of a wide batch to a narrow one's width; what is cut off must be 0."""
    widths = {name: batch.arrays[name].shape[1] for name in batch.lengths}
    outputs = {
        name: cut(value, widths[runner.subject.sequences[name]])
        if name in runner.subject.sequences
        else value
        for name, value in outputs.items()
    }
    gradients = {
        name: cut(value, widths[name]) if name in widths else value
        for name, value in gradients.items()
    }
    return outputs, gradients


def cut(x: np.ndarray, width: int) -> np.ndarray:
    """Cut off the padding that only wide batches have."""
    assert x.shape[1] == width + WIDER
    assert (x[:, width:] == 0).all()
    return x[:, :width]


@given(data=st.data(), form=strategies.forms())
def test_form_of_lengths_and_padding_change_nothing(runner: Runner, data: Any, form: str) -> None:
    batch = draw(runner, data)
    given_form = {
        name: strategies.FORMS[form](runner.adapter, n, batch.arrays[name].shape[1])
        for name, n in batch.lengths.items()
    }
    actual = runner.run_uncompiled(batch, given_form)
    wide = runner.evaluate(batch.widened(WIDER).filled(np.nan))
    expected, _ = narrowed(runner, batch, *wide)
    assert_all_close(actual, expected, runner.adapter.dtype, runner.subject.kind)


@given(data=st.data(), policy=strategies.policies(), value=strategies.garbage())
def test_packing_policy_changes_nothing(
    runner: Runner, data: Any, policy: str, value: float
) -> None:
    if runner.adapter.name == "jax":
        if runner.subject.operation != "LSTM":
            pytest.skip("each random shape is a program to compile; the LSTM's show it")
        policy = EMULATED.get(policy, policy)
    batch = draw(runner, data)
    actual = runner.evaluate(batch.filled(value), lengths_of(batch, policy))
    assert_results_close(runner, actual, runner.evaluate(batch))


def test_no_rows_give_no_rows(runner: Runner) -> None:
    actual = runner.run(runner.subject.batch.rows([]))
    for name, features in runner.features.items():
        assert actual[name].shape[0] == 0
        assert actual[name].shape[-len(features) :] == features


@pytest.mark.operation("align_encoder_sequences", "align_sequences")
@given(data=st.data(), value=strategies.garbage())
def test_right_aligned_rows_moved_left_are_left_aligned_rows(
    runner: Runner, data: Any, value: float
) -> None:
    batch, to_numpy = draw(runner, data, WIDER).filled(value), runner.adapter.to_numpy
    arrays = dict(batch.arrays)
    for name in runner.subject.batch.lengths:
        x, lengths = runner.adapter.array(arrays[name]), batch.lengths[name]
        right = ragged.align_sequences(x, lengths, source="left", target="right")
        arrays[name] = to_numpy(ragged.align_encoder_sequences(right, lengths))
    assert_results_equal(runner.evaluate(Batch(arrays, batch.lengths)), runner.evaluate(batch))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("LSTM, bare", marks=pytest.mark.operation("LSTM")),
        pytest.param("RNN_RELU", marks=pytest.mark.operation("RNN")),
        pytest.param("RNN_TANH, one layer", marks=pytest.mark.operation("RNN")),
        pytest.param("GRU, one layer", marks=pytest.mark.operation("GRU")),
    ],
)
@given(lengths=strategies.lengths(ROWS, 2 * WIDTH), seed=strategies.seeds())
def test_a_state_handed_on_continues_the_rows(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int
) -> None:
    layer = make_runner(adapter, name).module
    x = normal(ROWS, 2 * WIDTH, INPUTS, seed=seed)
    first, later = np.minimum(lengths, WIDTH), np.maximum(lengths - WIDTH, 0)
    with one_thread(adapter):
        whole = arrays_of(layer(adapter.array(x), lengths))
        begin, *state = arrays_of(layer(adapter.array(x[:, :WIDTH]), first))
        end, *final = arrays_of(layer(adapter.array(x[:, WIDTH:]), later, as_state(state)))
    parts = np.concatenate([adapter.to_numpy(y) for y in (begin, end)], axis=1)
    for actual, expected in zip((parts, *map(adapter.to_numpy, final)), whole, strict=True):
        assert_close(actual, adapter.to_numpy(expected), adapter.dtype, LAYER)
