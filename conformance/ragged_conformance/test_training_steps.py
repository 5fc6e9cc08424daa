"""Training steps against AdamW as its formula stands, and what they drop: never in inference."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ragged
from ragged.data import Batch, Event, Row, collate
from ragged.optimizer import AdamW
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import normal
from ragged_conformance.oracle_losses import loss
from ragged_conformance.tolerances import MODEL, assert_all_close, assert_close

PAST, FUTURE, STEPS = 2, 1, 3
# Constants far from any default, each of which a few steps can tell from others.
OPTIMIZER = AdamW(
    learning_rate=0.1, beta1=0.7, beta2=0.9, epsilon=0.02, weight_decay=0.3,
    gradient_clip=0.1, decay_steps=4,
)  # fmt: skip
pytestmark = pytest.mark.operation("models.EncoderDecoderLSTM")


def make_batch(dtype: str) -> Batch:
    """Rows of several lengths, one of them empty."""
    rows = []
    for k, (context, horizon) in enumerate(((3, 4), (5, 1), (2, 3))):
        past, future = normal(context, PAST, seed=k), normal(horizon, FUTURE, seed=k)
        event = Event(str(k), np.arange(float(context + horizon)), {})
        rows.append(Row(past, future, np.sin(future), event, context))
    return collate(rows, batch_size=4, dtype=np.dtype(dtype))


def make_step(
    adapter: Adapter, optimizer: AdamW, *, seed: int = 0, dropout: float = 0.0, **options: Any
) -> Any:
    """A step of a small model."""
    if adapter.dtype not in ("float64", "float32"):
        pytest.skip("a training step computes in float32 or float64")
    model = ragged.models.EncoderDecoderLSTM(
        PAST, FUTURE, hidden_size=2, num_layers=1, dropout=dropout, seed=0, **options
    )
    return adapter.backend.TrainingStep(
        model, ragged.losses.mse, optimizer, seed=seed, device=adapter.device, dtype=adapter.dtype
    )


def adamw(
    parameters: dict[str, np.ndarray], gradient: Callable[..., dict[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """The parameters after each step of OPTIMIZER."""
    own = OPTIMIZER
    assert own.gradient_clip is not None
    assert own.decay_steps is not None
    m, v = ({name: np.zeros(value.shape) for name, value in parameters.items()} for _ in "mv")
    for step in range(STEPS):
        g = gradient(**parameters)
        norm = math.sqrt(sum((value**2).sum() for value in g.values()))
        assert norm > own.gradient_clip, "the clipping does not bite"
        rate = own.learning_rate * (1 + math.cos(math.pi * step / own.decay_steps)) / 2
        moved = {}
        for name, value in parameters.items():
            clipped = g[name] * own.gradient_clip / norm
            m[name] = own.beta1 * m[name] + (1 - own.beta1) * clipped
            v[name] = own.beta2 * v[name] + (1 - own.beta2) * clipped**2
            mean = m[name] / (1 - own.beta1 ** (step + 1))
            size = np.sqrt(v[name] / (1 - own.beta2 ** (step + 1))) + own.epsilon
            moved[name] = value - rate * (mean / size + own.weight_decay * value)
        parameters = moved
        yield parameters


def test_steps_equal_the_formula(adapter: Adapter) -> None:
    step = make_step(adapter, OPTIMIZER)
    batch = make_batch(adapter.dtype)
    lengths = [batch.encoder_lengths.host, batch.decoder_lengths.host]

    def mean(**parameters: Any) -> Any:
        output = oracle.encoder_decoder_lstm(parameters, batch.past, batch.future, *lengths)
        return loss("mse", output, batch.target, lengths=lengths[1])

    before = adapter.backend.get_parameters(step.module())
    expected = {name: value.astype(float) for name, value in before.items()}
    steps = adamw(expected, lambda **parameters: oracle.gradient(mean, parameters))
    for after in steps:
        found = step.step(batch)
        assert_close(np.array(found), mean(**expected), adapter.dtype, MODEL, "loss")
        expected = after
        assert_all_close(adapter.backend.get_parameters(step.module()), after, adapter.dtype)


# So that losses differ by what is dropped alone.
STANDING = AdamW(learning_rate=1e-30)
DROPPING: dict[str, Any] = {"head_hidden_size": 8, "dropout": 0.5}


def test_seed_and_number_of_a_step_decide_what_it_drops(adapter: Adapter) -> None:
    step, other = (make_step(adapter, STANDING, seed=seed, **DROPPING) for seed in (0, 1))
    batch = make_batch(adapter.dtype)
    first = [step.step(batch) for _ in range(3)]
    assert len(set(first)) == 3
    assert other.step(batch) != first[0]
    step.load_state({**step.state(), "steps": np.array(1)})
    assert [step.step(batch) for _ in range(2)] == first[1:]


def test_evaluation_and_prediction_drop_nothing(adapter: Adapter) -> None:
    step = make_step(adapter, STANDING, **DROPPING)
    batch = make_batch(adapter.dtype)
    total, count = step.evaluate(batch)
    step.step(batch)
    assert step.evaluate(batch) == (total, count), "after a step"
    found = adapter.backend.predict(step.module(), batch).output
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
