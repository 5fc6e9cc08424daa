"""Training: both backends follow one trajectory, and parts of a batch add up to the whole."""

from typing import Any

import numpy as np
import pytest

import ragged
from ragged.data import Batch, Sample, Series, collate
from ragged.training.lr_schedules import WarmupCosine
from ragged.training.optimizers import AdamW
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import HIDDEN, LAST_AXIS, fill_padding, normal, parametrize, target_of
from ragged_conformance.evaluation import Evaluate, Results, evaluator, forward
from ragged_conformance.oracle_losses import LOSSES
from ragged_conformance.subjects import ATTENTION, SUBJECTS, marked
from ragged_conformance.tolerances import LAYER, MODEL, assert_all_close, assert_close

PAST, FUTURE, TARGETS = 2, 1, 2
STEPS = 20
FREE_STEPS = 4  # of a training without clipping, which diverges from the other at once
# A new model is one line here.
MODELS: dict[str, dict[str, Any]] = {
    "EncoderDecoderLSTM": {"decoder_hidden_size": 2, "num_layers": 1},
    "AttentionLSTM": {"num_heads": 3, "num_layers": 1},
    "TransformerLSTM": {"num_heads": 3, "num_layers": 1},
    "TemporalFusionTransformer": {
        "num_heads": 3,
        "num_layers": 1,
        "context_length": 5,
        "static_features": 2,
    },
    "PFTemporalFusionTransformer": {"num_heads": 3, "num_layers": 1, "reference_length": 5},
    "XTFT": {"num_heads": 3, "num_layers": 1},
}
models = parametrize(MODELS, "models.")
# Of modules whose gradients the others' steps or `test_attention_models` have.
COMPOSED = ("PFTemporalFusionTransformer", "XTFT")
OPTIMIZER = AdamW(learning_rate=0.02)
SCHEDULE = WarmupCosine(warmup_steps=2)
# Rows of length 0 and 1 on either side, in two batches of one shape.
LENGTHS = (((3, 4), (0, 2), (5, 1), (1, 0)), ((5, 4), (1, 1), (0, 0), (2, 3)))


def batches(alignment: str, static: int) -> list[Batch]:
    """Two batches whose target depends on their inputs."""
    result = []
    for seed, pairs in enumerate(LENGTHS):
        rows = []
        for k, (context, horizon) in enumerate(pairs):
            past = normal(context, PAST, seed=10 * seed + k)
            future = normal(horizon, FUTURE, seed=10 * seed + k + 1)
            target = np.concatenate([np.sin(future), future.cumsum(0)], axis=1)
            event = Series(str(k), np.arange(float(context + horizon)), {})
            statics = normal(static, seed=10 * seed + k) if static else None
            rows.append(Sample(past, future, target, event, context, statics))
        result.append(collate(rows, batch_size=5, dtype=np.float64, encoder_alignment=alignment))
    return result


def train(
    adapter: Adapter, name: str, max_grad_norm: float | None, steps: int = STEPS
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train for some steps: the loss of each, and the parameters they lead to."""
    model_type = getattr(ragged.models, name)
    with ragged.use_backend(adapter.name):
        model = model_type(
            PAST, FUTURE, hidden_size=HIDDEN, output_size=TARGETS, dropout=0.0, seed=0,
            **MODELS[name],
        )  # fmt: skip
        step = adapter.backend.TrainingStep(
            model, ragged.losses.mse, OPTIMIZER, max_grad_norm=max_grad_norm,
            device=adapter.device, dtype=adapter.dtype,
        )  # fmt: skip
        static = MODELS[name].get("static_features", 0)
        data = batches(model_type.encoder_alignment, static)
        rates = [OPTIMIZER.learning_rate * SCHEDULE.multiplier(k, 2 * STEPS) for k in range(steps)]
        losses = [step.step(data[k % len(data)], rate=rate) for k, rate in enumerate(rates)]
        return np.array(losses), adapter.backend.get_parameters(step.module())


@models
def test_backends_follow_one_trajectory(
    both: tuple[Adapter, Adapter], name: str, pytestconfig: pytest.Config
) -> None:
    dtype, exhaustive = both[0].dtype, pytestconfig.getoption("exhaustive")
    if name in COMPOSED and not exhaustive:
        pytest.skip("JAX compiles its steps for seconds, which consist of the others' modules")
    if dtype == "float32" and name in ATTENTION and not exhaustive:
        pytest.skip("float64, where a bound is tight, shows the models; float32 one of them")
    if dtype not in ("float64", "float32"):
        pytest.skip("half precision rounds a trajectory apart within a few steps")
    (torch, torch_parameters), (jax, jax_parameters) = (train(a, name, 0.1) for a in both)
    tolerance = 1e-8 if dtype == "float64" else 1e-4  # errors grow from step to step
    np.testing.assert_allclose(jax, torch, rtol=tolerance, atol=0)
    assert torch[-2:].mean() < 0.9 * torch[:2].mean(), "nothing was learnt"
    assert set(torch_parameters) == set(jax_parameters)
    for parameter, value in torch_parameters.items():
        np.testing.assert_allclose(
            jax_parameters[parameter], value, rtol=0, atol=10 * tolerance, err_msg=parameter
        )
    free, _ = train(both[0], name, None, FREE_STEPS)
    assert abs(free[-1] / torch[FREE_STEPS - 1] - 1) > 10 * tolerance, "the clipping never bit"


ROWS = np.array([0, 4, 3, 1])
PARTS = (slice(0, 2), slice(2, 4))


@parametrize(LOSSES, "losses.")
def test_parts_of_a_batch_add_up_to_its_loss(adapter: Adapter, name: str) -> None:
    arrays = {
        "prediction": fill_padding(normal(4, 4, *LAST_AXIS.get(name, ()), seed=1), ROWS),
        "target": fill_padding(target_of(name, normal(4, 4, seed=2)), ROWS),
        "weights": 0.5 + np.abs(normal(4, 4, seed=3)),
        "lengths": ROWS,
    }
    measure = getattr(ragged.losses, name)

    def mean(predicted: Any, others: Any) -> tuple[Any, dict[str, Any]]:
        loss = measure(**predicted, **others)
        return loss, {"loss": loss}

    def summed(predicted: Any, others: Any) -> tuple[Any, dict[str, Any]]:
        total, count = measure.total_and_count(**predicted, **others)
        return total, {"total": total, "count": count}

    def run(evaluate: Evaluate, rows: slice) -> tuple[Results, np.ndarray]:
        others = {what: adapter.array(array[rows]) for what, array in arrays.items()}
        predicted = {"prediction": others.pop("prediction")}
        results, gradients = evaluate(predicted, others)
        return results, gradients["prediction"]

    whole, expected = run(evaluator(adapter, mean), slice(None))
    evaluate = evaluator(adapter, summed)
    totals, gradients = zip(*(run(evaluate, rows) for rows in PARTS), strict=True)
    total, count = (sum(each[what] for each in totals) for what in ("total", "count"))
    assert_close(total / count, whole["loss"], adapter.dtype, LAYER)
    assert_close(np.concatenate(gradients) / count, expected, adapter.dtype, MODEL)


@pytest.mark.parametrize("name", marked({n: SUBJECTS[n] for n in ("EncoderDecoderLSTM", "XTFT")}))
def test_gradients_of_parts_add_up_to_those_of_the_batch(adapter: Adapter, name: str) -> None:
    subject, mse = SUBJECTS[name], ragged.losses.mse
    batch, module = subject.batch, adapter.prepare(subject.build())
    parameters, call = adapter.functional(module)
    arrays, steps = adapter.arrays(batch.arrays), batch.lengths["future"]
    target = fill_padding(normal(4, batch.arrays["future"].shape[1], TARGETS, seed=4), steps)

    def gradients(measure: Any) -> Any:
        def measured(parameters: Any, lengths: Any) -> Any:
            output = subject.call(lambda *a: call(parameters, *a), arrays, lengths)["output"]
            return measure(output, adapter.array(target), lengths=lengths["future"])

        return forward(
            adapter, lambda p, lengths: adapter.differentiate(lambda p: measured(p, lengths), p)
        )

    expected = gradients(mse)(parameters, adapter.arrays(batch.lengths))
    total, parts = gradients(lambda *a, **k: mse.total_and_count(*a, **k)[0]), []
    for rows in ([0, 3], [1, 2]):
        # As `collate` fills a batch: the rows that are not there have length 0.
        part = {what: np.where(np.isin(range(4), rows), n, 0) for what, n in batch.lengths.items()}
        parts.append(total(parameters, adapter.arrays(part)))
    count = steps.sum() * TARGETS
    actual = {parameter: sum(part[parameter] for part in parts) / count for parameter in parameters}
    assert_all_close(actual, expected, adapter.dtype)
