"""Training steps against their optimisers' formulas, in parts, with averages and dropout."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ragged
from ragged.data import Batch, Sample, Series, collate
from ragged.training.optimizers import SGD, Adam, AdamW, Optimizer
from ragged_conformance import oracle, oracle_models
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import fill_padding, normal
from ragged_conformance.oracle_losses import loss
from ragged_conformance.tolerances import MODEL, assert_all_close, assert_close

PAST, FUTURE = 2, 1
# Constants far from any default, each of which changes the result of a few steps.
OPTIMIZERS = {
    "AdamW": AdamW(learning_rate=0.1, beta1=0.7, beta2=0.9, epsilon=0.02, weight_decay=0.3),
    "Adam": Adam(learning_rate=0.1, beta1=0.7, beta2=0.9, epsilon=0.02),
    "SGD": SGD(learning_rate=0.5, momentum=0.0, weight_decay=0.3),
    "momentum": SGD(learning_rate=0.5, momentum=0.6, weight_decay=0.3),
    "nesterov": SGD(learning_rate=0.5, momentum=0.6, nesterov=True),
}
RATES = (0.1, 0.3, 0.05)
CLIP = 0.1
DECAY = 0.15  # of the average; the first steps keep less
pytestmark = pytest.mark.operation("models.EncoderDecoderLSTM")
Parameters = dict[str, np.ndarray]


def make_rows() -> list[Sample]:
    """Rows of several lengths."""
    rows = []
    for k, (context, horizon) in enumerate(((3, 4), (5, 1), (2, 3))):
        past, future = normal(context, PAST, seed=k), normal(horizon, FUTURE, seed=k)
        event = Series(str(k), np.arange(float(context + horizon)), {})
        rows.append(Sample(past, future, np.sin(future), event, context))
    return rows


def make_batch(dtype: str, rows: slice = slice(None)) -> Batch:
    """The rows and one that is empty, with a target at padding that must have no effect."""
    batch = collate(make_rows()[rows], batch_size=4, dtype=np.dtype(dtype))
    lengths = batch.decoder_lengths.host
    return replace(batch, target=fill_padding(batch.target, lengths, value=7.0))


def make_step(
    adapter: Adapter,
    optimizer: Optimizer,
    *,
    dropout: float = 0.0,
    model: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A step of a small model."""
    if adapter.dtype not in ("float64", "float32"):
        pytest.skip("half precision is compared with float32 below")
    built = ragged.models.EncoderDecoderLSTM(
        PAST, FUTURE, hidden_size=2, num_layers=1, dropout=dropout, seed=0, **(model or {})
    )
    return adapter.backend.TrainingStep(
        built, ragged.losses.mse, optimizer,
        **{"device": adapter.device, "dtype": adapter.dtype, **options},
    )  # fmt: skip


def follow(
    optimizer: Optimizer, parameters: Parameters, gradient: Callable[..., Parameters]
) -> Iterator[Parameters]:
    """The parameters after each step."""
    m, v = ({name: np.zeros(value.shape) for name, value in parameters.items()} for _ in "mv")
    for step, rate in enumerate(RATES):
        g = gradient(**parameters)
        norm = math.sqrt(sum((value**2).sum() for value in g.values()))
        assert norm > CLIP, "the clipping does not bite"
        moved = {}
        for name, value in parameters.items():
            clipped = g[name] * CLIP / norm
            if isinstance(optimizer, SGD):
                clipped = clipped + optimizer.weight_decay * value
                m[name] = optimizer.momentum * m[name] + clipped
                ahead = clipped + optimizer.momentum * m[name]
                moved[name] = value - rate * (ahead if optimizer.nesterov else m[name])
                continue
            assert isinstance(optimizer, (Adam, AdamW))
            m[name] = optimizer.beta1 * m[name] + (1 - optimizer.beta1) * clipped
            v[name] = optimizer.beta2 * v[name] + (1 - optimizer.beta2) * clipped**2
            mean = m[name] / (1 - optimizer.beta1 ** (step + 1))
            size = np.sqrt(v[name] / (1 - optimizer.beta2 ** (step + 1))) + optimizer.epsilon
            decay = optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0
            moved[name] = value - rate * (mean / size + decay * value)
        parameters = moved
        yield parameters


def parameters_of(adapter: Adapter, step: Any) -> Parameters:
    """The parameters that a checkpoint of a step has."""
    parameters: Parameters = adapter.backend.get_parameters(step.module())
    return parameters


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_the_formula(adapter: Adapter, name: str, pytestconfig: pytest.Config) -> None:
    few = adapter.dtype == "float32" and not pytestconfig.getoption("exhaustive")
    if few and name not in ("AdamW", "momentum"):
        pytest.skip("float64, where a bound is tight, shows every optimiser; float32 two of them")
    step = make_step(adapter, OPTIMIZERS[name], max_grad_norm=CLIP)
    batch = make_batch(adapter.dtype)
    lengths = [batch.encoder_lengths.host, batch.decoder_lengths.host]

    def mean(**parameters: Any) -> Any:
        output = oracle.encoder_decoder_lstm(parameters, batch.past, batch.future, *lengths)
        return loss("mse", output, batch.target, lengths=lengths[1])

    expected = {n: value.astype(float) for n, value in parameters_of(adapter, step).items()}
    steps = follow(OPTIMIZERS[name], expected, lambda **p: oracle.gradient(mean, p))
    for rate, after in zip(RATES, steps, strict=True):
        actual = step.step(batch, rate=rate)
        assert_close(np.array(actual), mean(**expected), adapter.dtype, MODEL, "loss")
        expected = after
        assert_all_close(parameters_of(adapter, step), after, adapter.dtype)


def test_the_optimisers_own_rate_is_the_default(adapter: Adapter) -> None:
    results = []
    for options in ({}, {"rate": 0.1}):
        step = make_step(adapter, OPTIMIZERS["AdamW"])
        step.step(make_batch(adapter.dtype), **options)
        results.append(parameters_of(adapter, step))
    assert_all_close(results[0], results[1], adapter.dtype)


def test_parts_of_a_batch_are_one_step(adapter: Adapter) -> None:
    optimizer, results = OPTIMIZERS["momentum"], []
    whole = (slice(None),)
    for parts in (whole, (slice(0, 2), slice(2, 3)), (slice(0, 1), slice(1, 2), slice(2, 3))):
        step = make_step(adapter, optimizer, max_grad_norm=CLIP)
        batches = [make_batch(adapter.dtype, part) for part in parts]
        losses = np.array([step.step(*batches) for _ in range(2)])
        results.append({"losses": losses, **parameters_of(adapter, step)})
        assert int(step.state_dict()["steps"]) == 2
    for other in results[1:]:
        assert_all_close(other, results[0], adapter.dtype)


def test_the_average_lags_behind(adapter: Adapter) -> None:
    plain = make_step(adapter, OPTIMIZERS["AdamW"])
    averaged = make_step(adapter, OPTIMIZERS["AdamW"], ema_decay=DECAY)
    batch = make_batch(adapter.dtype)
    expected = {n: value.astype(float) for n, value in parameters_of(adapter, plain).items()}
    for keep in (0.1, DECAY, DECAY):
        assert averaged.step(batch) == pytest.approx(plain.step(batch), rel=1e-5)
        current = parameters_of(adapter, plain)
        expected = {n: keep * value + (1 - keep) * current[n] for n, value in expected.items()}
        assert_all_close(parameters_of(adapter, averaged), expected, adapter.dtype)
    total, count = averaged.evaluate(batch)
    forecast = adapter.backend.predict(averaged.module(), batch).output
    lengths = batch.decoder_lengths.host
    mean = loss("mse", forecast.astype(float), batch.target.astype(float), lengths=lengths)
    assert_close(np.array(total / count), mean, adapter.dtype, MODEL)
    state = averaged.state_dict()
    assert_all_close(
        {n: state[f"parameter.{n}"] for n in expected}, parameters_of(adapter, plain), adapter.dtype
    )


@functools.cache
def two_steps(adapter: Adapter, dtype: str) -> tuple[list[float], Parameters, float]:
    """The losses of two steps, the parameters after them, and the loss that they leave."""
    step, batch = make_step(adapter, OPTIMIZERS["SGD"], dtype=dtype), make_batch("float32")
    step.scale.value = min(step.scale.value, 2.0**10)  # or the first steps would lower it
    losses = [step.step(batch) for _ in range(2)]
    return losses, parameters_of(adapter, step), np.divide(*step.evaluate(batch))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_computes_and_float32_keeps(adapter: Adapter, dtype: str) -> None:
    if adapter.dtype != "float32":
        pytest.skip("half precision is compared with float32")
    losses, actual, left = two_steps(adapter, dtype)
    expected_losses, expected, expected_left = two_steps(adapter, "float32")
    assert losses == pytest.approx(expected_losses, rel=2e-2)
    differences = [actual[name] - value for name, value in expected.items()]
    assert max(abs(difference).max() for difference in differences) < 5e-3
    assert any(abs(difference).max() > 1e-7 for difference in differences), "nothing was rounded"
    assert all(value.dtype == np.float32 for value in actual.values())
    assert left == pytest.approx(expected_left, rel=2e-2)


def test_a_gradient_that_overflows_is_left_out(adapter: Adapter) -> None:
    if adapter.dtype != "float32":
        pytest.skip("half precision is compared with float32")
    step = make_step(adapter, OPTIMIZERS["SGD"], dtype="float16")
    step.scale.value = 2.0**40
    before, batch = parameters_of(adapter, step), make_batch("float32")
    first = step.step(batch)
    for name, value in parameters_of(adapter, step).items():
        np.testing.assert_array_equal(value, before[name])
    assert step.scale.value == 2.0**39
    assert int(step.state_dict()["steps"]) == 0
    step.scale.value = 2.0**10
    assert step.step(batch) == pytest.approx(first, rel=1e-3)
    assert step.step(batch) < first


# So that losses differ by what is dropped alone.
STANDING = AdamW(learning_rate=1e-30)
DROPPING: dict[str, Any] = {"dropout": 0.5, "model": {"head_hidden_size": 8}}


def test_seed_and_number_of_a_step_decide_what_it_drops(adapter: Adapter) -> None:
    step, other = (make_step(adapter, STANDING, seed=seed, **DROPPING) for seed in (0, 1))
    batch = make_batch(adapter.dtype)
    first = [step.step(batch) for _ in range(3)]
    assert len(set(first)) == 3
    assert other.step(batch) != first[0]
    step.load_state_dict({**step.state_dict(), "steps": np.array(1)})
    assert [step.step(batch) for _ in range(2)] == first[1:]


def test_a_step_drops_after_an_evaluation_as_without_one(adapter: Adapter) -> None:
    batch, losses = make_batch(adapter.dtype), []
    for evaluates in (False, True):
        step = make_step(adapter, STANDING, **DROPPING)
        total, count = step.evaluate(batch) if evaluates else (0.0, 1.0)
        losses.append(step.step(batch))
    assert losses[0] == losses[1] != total / count


def test_evaluation_and_prediction_drop_nothing(adapter: Adapter) -> None:
    step = make_step(adapter, STANDING, **DROPPING)
    batch = make_batch(adapter.dtype)
    total, count = step.evaluate(batch)
    step.step(batch)
    assert step.evaluate(batch) == (total, count), "after a step"
    forecast = adapter.backend.predict(step.module(), batch).output
    lengths = batch.decoder_lengths.host
    expected = loss("mse", forecast.astype(float), batch.target.astype(float), lengths=lengths)
    assert count == lengths.sum()
    assert_close(np.array(total / count), expected, adapter.dtype, MODEL)
    model = adapter.prepare(step.module())
    output = model(
        adapter.array(batch.past), adapter.array(batch.future),
        batch.encoder_lengths, batch.decoder_lengths,
    ).output  # fmt: skip
    assert_close(forecast, adapter.to_numpy(output), adapter.dtype, MODEL)


@pytest.mark.operation("models.TemporalFusionTransformer")
def test_static_values_reach_the_model(adapter: Adapter, pytestconfig: pytest.Config) -> None:
    if adapter.dtype != "float64" and not pytestconfig.getoption("exhaustive"):
        pytest.skip("float64, where a bound is tight, shows it; JAX compiles it for seconds")
    with ragged.use_backend(adapter.name):
        model = ragged.models.TemporalFusionTransformer(
            PAST, FUTURE, context_length=5, static_features=2, hidden_size=4, num_heads=2,
            num_layers=1, dropout=0.0, output_size=1, seed=0,
        )  # fmt: skip
    rows = [replace(row, static=normal(2, seed=k)) for k, row in enumerate(make_rows())]
    batch = collate(rows, batch_size=4, dtype=np.dtype(adapter.dtype), encoder_alignment="right")
    assert batch.static is not None
    step = adapter.backend.TrainingStep(
        model, ragged.losses.mse, STANDING, device=adapter.device, dtype=adapter.dtype
    )
    total, count = step.evaluate(batch)
    if adapter.name != "jax":  # whose steps, compiled for seconds, `test_trajectory` compares
        assert step.step(batch) == pytest.approx(total / count, rel=1e-5)
    forecast = adapter.backend.predict(step.module(), batch, need_weights=True).output
    parameters = {n: value.astype(float) for n, value in parameters_of(adapter, step).items()}
    equations = oracle_models.run(
        model.config, parameters, batch.past, batch.future,
        batch.encoder_lengths.host, batch.decoder_lengths.host, batch.static,
    )  # fmt: skip
    assert_close(forecast, equations["output"], adapter.dtype, MODEL)
    lengths = batch.decoder_lengths.host
    expected = loss("mse", forecast.astype(float), batch.target.astype(float), lengths=lengths)
    assert_close(np.array(total / count), expected, adapter.dtype, MODEL)
    explained = step.module().interpret(batch)["static_selection"]
    assert_close(explained.sum(axis=1), np.array([1.0, 1.0, 1.0, 0.0]), adapter.dtype, MODEL)
    other = replace(batch, static=-2 * batch.static)
    assert step.evaluate(other) != (total, count)
