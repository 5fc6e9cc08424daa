"""`trainer.use_loss_masking`: the mean over valid steps, or the plain one over padded batches."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import ragged
from ragged.backend import use_backend
from ragged.cli import main as cli
from ragged.data import EncoderDecoderDataModule, MagnetHysteresis, batches, without_loss_masking
from ragged.report.report_data import ReportData
from ragged.runs import folder as runs
from ragged.training import TrainerConfig
from ragged.training.distributed import shard_batch
from ragged.training.loop import TrainLoop
from ragged.training.optimizers import SGD

STANDING = SGD(learning_rate=1e-30, momentum=0.0)  # so that all batches meet the same parameters
TELLS = r"`trainer.use_loss_masking` is false and horizons differ, from 2\d to 2\d steps"


@pytest.fixture(params=["torch", "jax"])
def name(request, need):
    need(request.param)
    return request.param


def make_fit(folder: Path, *, steps: tuple[int, int] = (30, 40), **options: object) -> TrainLoop:
    folder.mkdir(parents=True, exist_ok=True)
    source = MagnetHysteresis(cycles=10, min_steps=steps[0], max_steps=steps[1])
    data = EncoderDecoderDataModule(source, batch_size=4)
    model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=4, dropout=0.0, seed=0)
    given = {"max_epochs": 1, "device": "cpu", "optimizer": STANDING, **options}
    return TrainLoop(TrainerConfig(**given), model, data, folder, seed=5)


def record(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.jsonl").read_text())


def by_hand(backend, fit: TrainLoop, dataset, *, masked: bool, **order: object) -> float:
    """Squared errors of valid steps, over their number or over that of each batch's rectangle."""
    total, count = 0.0, 0
    for batch in batches(dataset, 4, **order):
        forecast = backend.predict(fit.model, batch).output
        lengths = [int(n) for n in batch.decoder_lengths.host if n > 0]
        for row, length in enumerate(lengths):
            total += float(((forecast - batch.target)[row, :length] ** 2).sum())
        count += sum(lengths) if masked else len(lengths) * max(lengths)
    return total / count


def test_without_masking_padding_counts_and_filling_rows_do_not(name, tmp_path):
    found = {}
    with use_backend(name) as backend:
        for masked in (True, False):
            folder = tmp_path / str(masked)
            fit = make_fit(folder, use_loss_masking=masked)
            assert len(fit.data.train) == 7  # of eight places
            if masked:
                fit.run()
            else:
                with pytest.warns(UserWarning, match=TELLS):
                    fit.run()
            losses = record(folder)
            train = by_hand(backend, fit, fit.data.train, masked=masked, shuffle_seed=5, epoch=0)
            assert losses["train_loss"] == pytest.approx(train, rel=1e-5)
            validation = by_hand(backend, fit, fit.data.validation, masked=masked)
            assert losses["validation_loss"] == pytest.approx(validation, rel=1e-5)
            found[masked] = losses
    assert found[False]["train_loss"] < 0.99 * found[True]["train_loss"]


def test_the_gradient_is_of_the_same_mean(name, tmp_path):
    moved = []
    with use_backend(name) as backend:
        for masked in (True, False):
            fit = make_fit(tmp_path, max_grad_norm=None)
            before = backend.get_parameters(fit.step.module())
            batch = next(batches(fit.data.train, 4))
            fit.step.step(batch if masked else without_loss_masking(batch), rate=0.5)
            after = backend.get_parameters(fit.step.module())
            moved.append({key: after[key] - value for key, value in before.items()})
    lengths = batch.decoder_lengths.host
    share_of_valid = lengths.sum() / (len(lengths) * lengths.max())
    assert share_of_valid < 0.99
    for key, value in moved[0].items():
        np.testing.assert_allclose(moved[1][key], share_of_valid * value, rtol=1e-3, atol=1e-6)


def test_rows_of_one_length_are_not_told_of_and_give_the_masked_mean(tmp_path):
    """Their width is rounded up, and that is no reason for another loss."""
    found = []
    with use_backend(ragged.available_backends()[-1]), warnings.catch_warnings():
        warnings.simplefilter("error")
        for masked in (True, False):
            fit = make_fit(tmp_path / str(masked), steps=(34, 34), use_loss_masking=masked)
            assert next(batches(fit.data.train, 4)).target.shape[1] > 23
            fit.run()
            found.append(record(tmp_path / str(masked)))
    for key in ("train_loss", "validation_loss"):
        assert found[1][key] == pytest.approx(found[0][key], rel=1e-6)


def test_parts_of_a_batch_count_as_the_whole():
    source = MagnetHysteresis(cycles=10, min_steps=30, max_steps=40)
    whole = without_loss_masking(next(batches(EncoderDecoderDataModule(source).train, 8)))
    parts = shard_batch(whole, 3)
    assert sum(part.count for part in parts) == whole.count == 7 * whole.decoder_lengths.host.max()


def test_a_run_keeps_it_and_its_report_tells(need, train_tiny, read_losses, tmp_path):
    need("torch")
    options = {"trainer__use_loss_masking": "false", "trainer__max_epochs": 1}
    with pytest.warns(UserWarning, match=TELLS):
        run = train_tiny(tmp_path, "torch", **options)
    config, before = run / "config.yaml", read_losses(run)
    assert "use_loss_masking: false" in config.read_text()
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    with pytest.warns(UserWarning, match=TELLS):
        assert cli.main(["train", "--resume", str(run)]) == 0
    assert read_losses(run)[0] == before[0]
    with runs.open_run(run, cli.train_parser()) as opened:
        material = ReportData(opened, [], {})
    assert material.averaged_over == "steps, padding counted as 0"
