"""Training steps: the seed and the step's number alone decide what it drops, and inference none."""

from typing import Any

import numpy as np
import pytest

import ragged
from ragged.data import Batch, Event, Row, collate
from ragged.optimizer import AdamW
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import normal
from ragged_conformance.oracle_losses import loss
from ragged_conformance.tolerances import MODEL, assert_close

PAST, FUTURE = 2, 1
STANDING = AdamW(learning_rate=1e-30)  # so that losses differ by what is dropped alone
pytestmark = pytest.mark.operation("models.EncoderDecoderLSTM")


def make_batch(dtype: str) -> Batch:
    """Rows of several lengths, one of them empty."""
    rows = []
    for k, (context, horizon) in enumerate(((3, 4), (5, 1), (2, 3))):
        past, future = normal(context, PAST, seed=k), normal(horizon, FUTURE, seed=k)
        event = Event(str(k), np.arange(float(context + horizon)), {})
        rows.append(Row(past, future, np.sin(future), event, context))
    return collate(rows, batch_size=4, dtype=np.dtype(dtype))


def make_step(adapter: Adapter, seed: int = 0) -> Any:
    """A step of a model with dropout."""
    if adapter.dtype not in ("float64", "float32"):
        pytest.skip("a training step computes in float32 or float64")
    model = ragged.models.EncoderDecoderLSTM(
        PAST, FUTURE, hidden_size=3, num_layers=1, head_hidden_size=8, dropout=0.5, seed=0
    )
    return adapter.backend.TrainingStep(
        model, ragged.losses.mse, STANDING, seed=seed, device=adapter.device, dtype=adapter.dtype
    )


def test_seed_and_number_of_a_step_decide_what_it_drops(adapter: Adapter) -> None:
    step, other = make_step(adapter), make_step(adapter, seed=1)
    batch = make_batch(adapter.dtype)
    first = [step.step(batch) for _ in range(3)]
    assert len(set(first)) == 3
    assert other.step(batch) != first[0]
    state = step.state()
    other.load_state(state)
    step.load_state({**state, "steps": np.array(1)})
    assert [step.step(batch) for _ in range(2)] == first[1:]
    assert other.step(batch) != first[2]


def test_evaluation_and_prediction_drop_nothing(adapter: Adapter) -> None:
    step, batch = make_step(adapter), make_batch(adapter.dtype)
    total, count = step.evaluate(batch)
    step.step(batch)
    assert step.evaluate(batch) == (total, count), "after a step"
    found = adapter.backend.predict(
        step.module(), batch, device=adapter.device, dtype=adapter.dtype
    )
    lengths = batch.decoder_lengths.host
    expected = loss("mse", found.astype(float), batch.target.astype(float), lengths=lengths)
    assert count == lengths.sum()
    assert_close(np.array(total / count), expected, adapter.dtype, MODEL)
    model = adapter.prepare(step.module())
    output = model(
        adapter.array(batch.past), adapter.array(batch.future),
        batch.encoder_lengths, batch.decoder_lengths,
    ).output  # fmt: skip
    assert_close(found, adapter.to_numpy(output), adapter.dtype, MODEL)
