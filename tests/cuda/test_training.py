"""Training on CUDA: all models, what a step asks the device for, checkpoints and precisions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ragged  # noqa: E402
from ragged.backend import use_backend  # noqa: E402
from ragged.data import EncoderDecoderDataModule, MagnetHysteresis, Sample, Series, collate  # noqa: E402
from ragged.errors import DivergenceError  # noqa: E402
from ragged.io import checkpoint  # noqa: E402
from ragged.training import TrainerConfig  # noqa: E402
from ragged.training.loop import TrainLoop  # noqa: E402
from ragged.training.objective import Objective  # noqa: E402
from ragged.training.optimizers import SGD, AdamW  # noqa: E402
from tests.cuda import pretended_device  # noqa: E402

SMALL = {"hidden_size": 4, "num_layers": 1, "seed": 0, "dropout": 0.0}
LEFT = {"encoder_alignment": "left"}
# A model's own options, and how many launches a step of it may take: a few more than today's.
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "EncoderDecoderLSTM": ({"decoder_hidden_size": 2}, 140),
    "AttentionLSTM": ({"num_heads": 2}, 220),
    "TransformerLSTM": ({"num_heads": 2, "num_blocks": 1}, 350),
    "TemporalFusionTransformer": ({"num_heads": 2, "context_length": 5, **LEFT}, 650),
    "PFTemporalFusionTransformer": ({"num_heads": 2, "reference_length": 5, **LEFT}, 650),
    "XTFT": ({"num_heads": 2, **LEFT}, 460),
}


@pytest.fixture(autouse=True)
def _torch() -> Iterator[None]:
    with use_backend("torch"):
        yield


def make_batch(seed: int = 0, last: int = 3, labels: int = 0) -> Any:
    """Make a batch; the feature that past and future share may be one of so many labels."""
    rng, rows = np.random.default_rng(seed), []
    for k, (context, horizon) in enumerate(((3, 4), (5, 1), (2, last))):
        past, future, target = (rng.normal(size=(n, 1)) for n in (context, horizon, horizon))
        event = Series(str(k), np.arange(float(context + horizon)), {})
        past = np.repeat(past, 2, 1)
        if labels:
            past[:, :1], future = (rng.integers(labels, size=(n, 1)) for n in (context, horizon))
        rows.append(Sample(past, future, target, event, context))
    return collate(rows, batch_size=4)


def make_step(
    name: str,
    device: str,
    dtype: str = "float32",
    dropout: float = 0.0,
    optimizer: Any = None,
    described: Any = None,
    loss: str | None = None,
    **options: Any,
) -> Any:
    """Make a step of a model with its own loss, quantiles' for the fusion models."""
    own = {**SMALL, **MODELS[name][0], "dropout": dropout, **(described or {})}
    model = getattr(ragged.models, name)(2, 1, **own)
    objective = Objective.of(loss, None, model.config, 1)
    given = model, objective, optimizer or AdamW(learning_rate=0.01)
    return ragged.get_backend().TrainingStep(*given, device=device, dtype=dtype, **options)


@pytest.mark.parametrize("name", MODELS)
def test_models_train_predict_and_validate_as_on_the_cpu(cuda, name):
    batch, found = make_batch(), []
    for device in ("cpu", cuda):
        step = make_step(name, device, ema_decay=0.9)
        losses = [step.step(batch) for _ in range(3)]
        outputs = ragged.get_backend().predict(step.module(), batch).output
        found.append([np.array(losses), np.array(step.evaluate(batch)), outputs])
    for actual, expected in zip(*reversed(found), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_copies_twice_and_waits_for_nothing(counted, cuda, name):
    step, batch = make_step(name, cuda, ema_decay=0.9), make_batch()
    float(step.launch(batch))
    with counted() as found:
        loss = step.launch(batch)
    assert found["copy to device"] == 2, "the batch and its lengths"
    assert found["unpinned"] == found["synchronisation"] == found["weights copied"] == 0
    assert found["copy to host"] == 1, "the loss, read later"
    assert found["TF32"] == 0
    assert 0 < found["launch"] <= MODELS[name][1]
    assert step.optimizer.defaults["fused"], "one launch for all parameters"
    with counted() as read:
        assert float(loss) > 0
    assert (read["wait for event"], read["synchronisation"]) == (1, 0)
    with counted() as evaluated:
        step.evaluate(batch)
    assert evaluated["weights copied"] == 0, "nor those of the average"


OPTIONS: dict[str, dict[str, Any]] = {
    "TF32": {"dtype": "tf32"},
    "float64": {"dtype": "float64"},
    "dropout": {"dropout": 0.3},
    "any norm of the gradient": {"max_grad_norm": None},
    "SGD": {"optimizer": SGD(momentum=0.9)},
    "several layers": {"described": {"num_layers": 2}},
    "quantiles": {"described": {"output_size": 7}, "loss": "quantile"},
    "a Gaussian": {"described": {"output_size": 2}, "loss": "gaussian_nll"},
    "labels": {"described": {"cardinalities": (3, 0)}},
    "rows less their last value": {"described": {"row_normalization": "last_value"}},
    "rows of one scale": {"described": {"row_normalization": "standard"}},
    "rows less a season": {"described": {"row_normalization": "seasonal", "season": 2}},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_copy_nothing_more_and_wait_for_nothing(counted, cuda, name):
    batches = [make_batch(seed, labels=3 if name == "labels" else 0) for seed in (0, 1)]
    step = make_step("EncoderDecoderLSTM", cuda, **{"ema_decay": 0.9, **OPTIONS[name]})
    float(step.launch(*batches))
    with counted() as found:
        step.launch(*batches)
    assert found["copy to device"] == 2 * len(batches), "of each batch, and its lengths"
    assert found["unpinned"] == found["synchronisation"] == found["weights copied"] == 0
    with counted() as evaluated:
        step.evaluate(batches[0])
    assert evaluated["copy to device"] == 2
    assert (evaluated["unpinned"], evaluated["synchronisation"]) == (0, 1)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_waits_for_nothing_by_cudas_own_account(cuda, name):
    if pretended_device.is_loaded:
        pytest.skip("needs a real CUDA device, which can refuse to be waited for")
    step, batch = make_step(name, cuda, ema_decay=0.9), make_batch()
    float(step.launch(batch))
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = step.launch(batch)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert float(loss) > 0


@pytest.mark.parametrize(("dtype", "waits"), [("bfloat16", 0), ("float16", 1)])
def test_half_precision_trains(counted, cuda, dtype, waits):
    half, full = (make_step("EncoderDecoderLSTM", cuda, kind) for kind in (dtype, "float32"))
    batch = make_batch()
    with counted() as found:
        losses = [half.launch(batch)]
    losses += [half.launch(batch) for _ in range(2)]
    expected = [full.step(batch) for _ in range(3)]
    np.testing.assert_allclose([float(loss) for loss in losses], expected, rtol=2e-2)
    assert found["copy to device"] == 2
    assert (found["synchronisation"], found["weights copied"]) == (waits, 0)
    assert {p.dtype for p in half.module().parameters()} == {torch.float32}


def test_tf32_is_taken_where_it_is_asked_for(counted, cuda):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    step, batch = make_step("EncoderDecoderLSTM", cuda, "tf32"), make_batch()
    with counted() as found:
        step.step(batch)
    assert found["TF32"] >= 4, "both LSTMs, forward and backward"
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_models_are_exact_where_the_process_wants_tf32(counted, cuda):
    step, batch = make_step("AttentionLSTM", cuda), make_batch()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with counted() as found:
            step.step(batch)
            step.evaluate(batch)
            ragged.get_backend().predict(step.module(), batch)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert found["TF32"] == 0


def make_loop(folder: Path, device: str, **options: Any) -> TrainLoop:
    source = MagnetHysteresis(cycles=10, min_steps=33, max_steps=36)
    data = EncoderDecoderDataModule(source, batch_size=4)
    folder.mkdir(parents=True, exist_ok=True)
    model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=4, dropout=0.0, seed=0)
    trainer = TrainerConfig(**{"max_epochs": 2, "device": device, **options})
    return TrainLoop(trainer, model, data, folder, seed=5)


def losses_of(loop: TrainLoop) -> np.ndarray:
    lines = (loop.folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return np.array([[record["train_loss"], record["validation_loss"]] for record in records])


def test_a_run_its_checkpoints_and_its_resumption_equal_the_cpus(cuda, tmp_path):
    runs = {}
    for device in ("cpu", cuda):
        runs[device] = make_loop(tmp_path / device, device)
        runs[device].run()
    make_loop(tmp_path / "resumed", cuda, max_epochs=1).run()
    resumed = make_loop(tmp_path / "resumed", cuda)
    resumed.resume()
    resumed.run()
    np.testing.assert_allclose(losses_of(runs[cuda]), losses_of(runs["cpu"]), rtol=1e-4)
    np.testing.assert_array_equal(losses_of(resumed), losses_of(runs[cuda]))
    saved, expected = (checkpoint.read(run.best).parameters for run in (runs[cuda], runs["cpu"]))
    assert saved.keys() == expected.keys()
    for name, value in saved.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


def test_divergence_stops_on_the_device_too(cuda, tmp_path):
    loop = make_loop(
        tmp_path, cuda, optimizer=AdamW(learning_rate=1e30), max_grad_norm=None, max_epochs=5
    )
    with pytest.raises(DivergenceError, match=r"the loss is (nan|inf) in epoch \d, at the batch"):
        loop.run()
    record = json.loads((tmp_path / "diverged.json").read_text())
    assert record["rows"]
