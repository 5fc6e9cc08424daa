"""What a run counts and writes down of its epochs, recomputed by hand."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ragged
from ragged.backend import use_backend
from ragged.cli.commands import _print_header
from ragged.data import EncoderDecoderDataModule, MagnetHysteresis
from ragged.errors import DivergenceError
from ragged.training import TrainerConfig
from ragged.training import loop as module
from ragged.training.loop import TrainLoop
from ragged.training.lr_schedules import WarmupCosine
from ragged.training.optimizers import AdamW


@pytest.fixture
def make_fit(tmp_path):
    """Give the function that makes a run of seven rows of 30 to 60 steps; its steps are made up."""
    with use_backend(ragged.available_backends()[-1]):
        yield lambda **options: _make_fit(tmp_path, **options)


def _make_fit(folder: Path, *, batch_size: int = 4, seed: int = 5, **options: object) -> TrainLoop:
    source = MagnetHysteresis(cycles=10, min_steps=30, max_steps=60)
    data = EncoderDecoderDataModule(source, batch_size=batch_size, level_jitter=0.1)
    model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=2, num_layers=1, dropout=0, seed=0)
    return TrainLoop(
        TrainerConfig(max_epochs=2, device="cpu", **options), model, data, folder, seed=seed
    )


def made_up(
    fit: TrainLoop, monkeypatch: pytest.MonkeyPatch, loss=lambda place, group: place
) -> list:
    """Give every step a loss of its own, the first one 1, and keep what it was given."""
    taken: list = []

    def step(*group, rate):
        taken.append(group)
        return float(loss(len(taken), group))

    monkeypatch.setattr(fit.step, "launch", step)
    return taken


class Loss:
    """A loss that notes when it is read."""

    def __init__(self, number: int, noted: list[str]) -> None:
        self.number, self.noted = number, noted

    def __float__(self) -> float:
        self.noted.append(f"read {self.number}")
        return 1.0


def rows_of(*group) -> list[int]:
    return [int(row) for batch in group for row in batch.rows if row >= 0]


def records(fit: TrainLoop) -> list[dict[str, float]]:
    return [json.loads(line) for line in (fit.folder / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_of_an_epoch_is_the_mean_over_its_elements(make_fit, monkeypatch):
    fit = make_fit()
    taken = made_up(fit, monkeypatch)
    fit.run()
    horizons = [len(row.target) for row in fit.data.train]
    elements = np.array([sum(horizons[row] for row in rows_of(*group)) for group in taken])
    assert len(set(elements)) > 1
    assert elements.sum() == 2 * sum(horizons)
    for epoch, record in enumerate(records(fit)):
        own = slice(2 * epoch, 2 * epoch + 2)
        expected = (np.arange(1, 5) * elements)[own].sum() / elements[own].sum()
        assert record["train_loss"] == pytest.approx(expected)
        tokens = sum(len(row.past) + len(row.future) for row in fit.data.train)
        assert record["tokens_per_second"] * record["seconds"] == pytest.approx(tokens)


def test_the_rate_falls_over_all_steps_of_the_run(make_fit, monkeypatch):
    fit = make_fit(lr_schedule=WarmupCosine(), optimizer=AdamW(learning_rate=0.5))
    rates: list[float] = []
    monkeypatch.setattr(fit.step, "launch", lambda *group, rate: rates.append(rate) or 1.0)
    fit.run()
    assert rates == pytest.approx([0.25 * (1 + math.cos(math.pi * k / 4)) for k in range(4)])


def test_an_epoch_lasts_as_long_as_its_steps(make_fit, monkeypatch):
    fit, clock = make_fit(), itertools.count()
    made_up(fit, monkeypatch)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    fit.run()
    # A second a step, and one for the last one's loss, which is waited for.
    assert [record["seconds"] for record in records(fit)] == [3.0, 3.0]


def test_every_row_is_in_one_step_of_each_epoch_and_the_last_one_may_be_smaller(
    make_fit, monkeypatch
):
    orders = []
    for seed in (5, 6):
        fit = make_fit(batch_size=2, accumulate_grad_batches=3, seed=seed)
        taken = made_up(fit, monkeypatch)
        fit.run()
        assert [len(group) for group in taken] == [3, 1, 3, 1]
        assert fit.steps_per_epoch == 2
        for epoch in (taken[:2], taken[2:]):
            rows = [row for group in epoch for row in rows_of(*group)]
            assert sorted(rows) == list(range(7))
            orders.append(tuple(rows))
    assert len(set(orders)) == 4  # each seed and each epoch has its own


def test_epochs_are_jittered_anew_and_by_the_seed(make_fit, monkeypatch):
    levels = []
    for seed in (5, 6):
        fit = make_fit(batch_size=7, seed=seed)
        taken = made_up(fit, monkeypatch)
        fit.run()
        for (batch,) in taken:
            levels.append(batch.target[int(np.argmax(batch.rows == 0)), 0, 0])
    assert len(set(levels)) == 4


@pytest.mark.parametrize("accumulate_grad_batches", [1, 2])
def test_divergence_lists_the_rows_of_its_step_and_no_filling_ones(
    make_fit, monkeypatch, accumulate_grad_batches
):
    fit = make_fit(accumulate_grad_batches=accumulate_grad_batches)

    def is_filled_up(group):
        return any((batch.rows < 0).any() for batch in group)

    def loss(place, group):
        return np.nan if is_filled_up(group) else place

    taken = made_up(fit, monkeypatch, loss)
    with pytest.raises(DivergenceError):
        fit.run()
    found = json.loads((fit.folder / "diverged.json").read_text())
    place, group = next((k, group) for k, group in enumerate(taken) if is_filled_up(group))
    last = [fit.data.train[row] for row in rows_of(*group)]
    assert len(last) == (3 if accumulate_grad_batches == 1 else 7)
    assert found == {
        "name": "loss",
        "loss": "nan",
        "epoch": 1,
        "step": place + 1,
        "rows": [
            {"event": row.event.name, "start": row.start, "split": row.split, "stop": row.stop}
            for row in last
        ],
    }


def test_a_run_says_what_padding_all_rows_to_the_longest_would_waste(make_fit, capsys):
    fit = make_fit()
    _print_header(fit)
    lengths = [(len(row.past), len(row.future)) for row in fit.data.train]
    real = sum(map(sum, lengths))
    padded = 7 * sum(map(max, zip(*lengths, strict=True)))
    said = f"7 training rows, {real:,} tokens; padding all to the longest would waste "
    assert said + f"{100 * (padded - real) / padded:.0f}%" in capsys.readouterr().out


def test_a_loss_is_read_once_the_next_step_is_under_way(make_fit, monkeypatch):
    fit, noted = make_fit(batch_size=2), list[str]()

    numbers = itertools.count(1)

    def launch(*_: object, rate: float) -> Loss:
        number = next(numbers)
        noted.append(f"launch {number}")
        return Loss(number, noted)

    monkeypatch.setattr(fit.step, "launch", launch)
    fit.run()
    order = "launch 1, launch 2, read 1, launch 3, read 2, launch 4, read 3, read 4"
    assert ", ".join(noted[:8]) == order
