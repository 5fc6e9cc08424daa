"""What the trainer can do beside plain steps: parts, averages, rates, logs, and a clean stop."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ragged
from ragged.backend import use_backend
from ragged.data import EncoderDecoderDataModule, MagnetHysteresis, RaggedDataset
from ragged.errors import CheckpointError, DivergenceError, OptionError
from ragged.io import checkpoint
from ragged.training import TrainerConfig
from ragged.training.loop import TrainLoop
from ragged.training.lr_schedules import ReduceLROnPlateau, WarmupCosine
from ragged.training.optimizers import SGD, Adam, AdamW
from ragged.training.signals import Stopped, stop_on_signals
from ragged.training.state import Epoch, TrainState

BACKENDS = ("torch", "jax")


@pytest.fixture(params=BACKENDS)
def name(request, need):
    need(request.param)
    return request.param


@pytest.fixture
def _hears_signals():
    """A suite that a shell started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def make_fit(
    folder: Path, *, batch_size: int = 4, dropout: float = 0.3, **options: object
) -> TrainLoop:
    folder.mkdir(parents=True, exist_ok=True)
    source = MagnetHysteresis(cycles=10, min_steps=33, max_steps=36)
    data = EncoderDecoderDataModule(source, batch_size=batch_size)
    model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=4, dropout=dropout, seed=0)
    return TrainLoop(
        replace(TrainerConfig(max_epochs=2, device="cpu"), **options), model, data, folder, seed=5
    )


def contents(folder: Path) -> dict[str, bytes]:
    kept = ("checkpoints/last", "checkpoints/best")
    return {
        f"{place}/{path.name}": path.read_bytes()
        for place in kept
        for path in sorted((folder / place).iterdir())
        if path.suffix == ".safetensors"
    }


def records(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(r["train_loss"], r["validation_loss"]) for r in records(folder)]


OPTIONS = {
    "adamw": {
        "accumulate_grad_batches": 2,
        "ema_decay": 0.9,
        "lr_schedule": ReduceLROnPlateau(patience=1),
    },
    "sgd in float16": {
        "optimizer": SGD(learning_rate=0.1),
        "lr_schedule": WarmupCosine(warmup_steps=2),
        "precision": "float16",
    },
}


@pytest.mark.usefixtures("_hears_signals")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_stopped_run_goes_on_to_the_same_end(name, tmp_path, options, monkeypatch):
    """Stopped after its first step, and twice in its second epoch."""
    with use_backend(name):
        whole = make_fit(tmp_path / "whole", batch_size=2, **options)
        whole.run()
        steps = whole.steps_per_epoch
        run = tmp_path / "stopped"
        for stop_after in (1, steps, 1):
            fit = make_fit(run, batch_size=2, **options)
            fit.resume()
            stop_at(fit, stop_after, monkeypatch)
            with pytest.raises(Stopped):
                fit.run()
        fit = make_fit(run, batch_size=2, **options)
        fit.resume()
        assert (fit.state.epoch, fit.state.current.steps) == (1, 2)
        fit.run()
    assert contents(run) == contents(tmp_path / "whole")
    assert losses(run) == losses(tmp_path / "whole")
    assert [record["epoch"] for record in records(run)] == [1, 2]


def stop_at(fit: TrainLoop, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send a SIGINT while a step runs."""
    real, done = fit.step.launch, iter(range(1, 1000))

    def step(*batches: object, rate: float) -> object:
        if next(done) == count:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*batches, rate=rate)

    monkeypatch.setattr(fit.step, "launch", step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_one_acts(number):
    before = signal.getsignal(number)
    taken = []
    signal.signal(number, lambda *_: taken.append(1))
    try:
        own = signal.getsignal(number)
        with stop_on_signals() as stop:
            assert not stop.is_set
            os.kill(os.getpid(), number)
            assert stop.is_set
            assert not taken
            os.kill(os.getpid(), number)
            assert taken == [1]
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


def test_parts_are_as_good_as_one_batch(name, tmp_path):
    """Eight rows at once, or in two batches of four: the same step, as the same rows are drawn."""
    found = []
    with use_backend(name):
        for folder, options in (
            ("one", {"batch_size": 8}),
            ("two", {"batch_size": 4, "accumulate_grad_batches": 2}),
        ):
            fit = make_fit(tmp_path / folder, dropout=0.0, max_epochs=1, **options)
            assert len(fit.data.train) == 7
            assert fit.steps_per_epoch == 1
            fit.run()
            found.append(losses(tmp_path / folder)[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_the_rate_follows_its_schedule(name, tmp_path, monkeypatch):
    schedule = WarmupCosine(warmup_steps=2, decay_steps=3)
    with use_backend(name):
        fit = make_fit(tmp_path, optimizer=AdamW(learning_rate=0.01), lr_schedule=schedule)
        taken = []
        monkeypatch.setattr(fit.step, "launch", lambda *_, rate: taken.append(rate) or 1.0)
        fit.run()
    expected = [0.01 * schedule.multiplier(step, 4) for step in range(4)]
    assert taken == pytest.approx(expected)
    first, _ = records(tmp_path)
    assert first["learning_rate"] == pytest.approx(expected[1])  # of its last step


def test_a_plateau_cuts_the_rate(any_backend, tmp_path, monkeypatch, need):
    values = iter([3.0, 3.0, 2.0, 2.5])
    with use_backend(any_backend):
        fit = make_fit(
            tmp_path, max_epochs=4, lr_schedule=ReduceLROnPlateau(factor=0.1, patience=1)
        )
        taken = []
        monkeypatch.setattr(fit.step, "launch", lambda *_, rate: taken.append(rate) or 1.0)
        monkeypatch.setattr(fit, "_validation_loss", lambda: next(values))
        fit.run()
    assert taken[:: fit.steps_per_epoch] == pytest.approx([3e-3, 3e-3, 3e-4, 3e-4])


def test_tensorboard_sees_every_epoch(any_backend, tmp_path, need):
    with use_backend(any_backend):
        make_fit(tmp_path).run()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    for tag in (b"train_loss", b"validation_loss", b"learning_rate", b"tokens_per_second"):
        assert content.count(tag) == 2


def test_the_kept_model_is_the_averaged_one(name, tmp_path):
    with use_backend(name) as backend:
        fit = make_fit(tmp_path, ema_decay=0.5, max_epochs=1)
        fit.run()
        kept = checkpoint.read(fit.last)
        raw = {
            n.removeprefix("parameter."): v for n, v in kept.optimizer.items() if "parameter." in n
        }
        assert raw.keys() == kept.parameters.keys()
        assert any((raw[n] != v).any() for n, v in kept.parameters.items())
        found = backend.get_parameters(fit.step.module())
        for parameter, value in kept.parameters.items():
            np.testing.assert_array_equal(found[parameter], value)


def test_without_validation_the_last_epoch_is_kept(any_backend, tmp_path, train_tiny, pictures):
    with pictures():
        run = train_tiny(tmp_path, any_backend, **{"data.validation": 0, "trainer.max_epochs": 2})
    assert (run / "loss.png").exists()
    assert [record["validation_loss"] for record in records(run)] == [None, None]
    found = contents(run)
    best, last = (found[f"checkpoints/{kept}/model.safetensors"] for kept in ("best", "last"))
    assert best == last
    assert (run / "scores.json").exists()


def test_another_model_does_not_go_on_with_a_run(any_backend, tmp_path):
    with use_backend(any_backend):
        make_fit(tmp_path, max_epochs=1).run()
        with pytest.raises(CheckpointError, match=r"resume: the model is now .*0\.1"):
            make_fit(tmp_path, dropout=0.1).resume()


def test_other_batches_or_data_do_not_go_on_with_a_run(any_backend, tmp_path):
    with use_backend(any_backend):
        make_fit(tmp_path, max_epochs=1).run()
        said = r"resume: the batches are now \{'batch_size': 2\}; expected \{'batch_size': "
        with pytest.raises(CheckpointError, match=said):
            make_fit(tmp_path, batch_size=2).resume()
        other = make_fit(tmp_path)
        event = other.data.events[0]
        event.columns["current"][3] += 1.0
        with pytest.raises(CheckpointError, match=r"resume: the data are now .*Restore the run's"):
            other.resume()


def test_another_loss_does_not_go_on_with_a_run(any_backend, tmp_path):
    """Its values would be compared with those of the epochs before, for which is the best."""
    with use_backend(any_backend):
        make_fit(tmp_path, max_epochs=1).run()
        for changed, said in (
            ({"loss": "mae"}, "'loss': 'mae'"),
            ({"use_loss_masking": False}, "'use_loss_masking': False"),
        ):
            message = rf"resume: the loss is now \{{{said}\}}; expected"
            with pytest.raises(CheckpointError, match=message):
                make_fit(tmp_path, **changed).resume()
        make_fit(tmp_path).resume()


def test_steps_whose_gradients_overflow_are_counted(name, tmp_path):
    with use_backend(name):
        fit = make_fit(tmp_path, precision="float16", max_epochs=1)
        fit.step.scale.value = 2.0**32
        fit.run()
    (record,) = records(tmp_path)
    assert record["skipped_steps"] == fit.steps_per_epoch - fit.step.steps > 0


@pytest.mark.parametrize("scale", [[0.0, 0.0], [1.0, -1.0]])
def test_a_damaged_loss_scale_is_refused(any_backend, tmp_path, scale):
    with use_backend(any_backend):
        fit = make_fit(tmp_path, precision="float16", max_epochs=1)
        state = {**fit.step.state_dict(), "loss_scale": np.array(scale)}
        saved = checkpoint.Checkpoint({}, {}, {}, state)
        with pytest.raises(CheckpointError, match=r"`loss_scale` of .* is .*; expected above 0"):
            saved.moments(fit.step.state_dict())


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_validation_loss_that_is_not_finite_stops_the_run(
    any_backend, tmp_path, monkeypatch, loss
):
    with use_backend(any_backend):
        fit = make_fit(tmp_path)
        monkeypatch.setattr(fit, "_validation_loss", lambda: loss)
        text = rf"the validation loss is {loss} in epoch 1; expected .*json tells where\.$"
        with pytest.raises(DivergenceError, match=text):
            fit.run()
    assert json.loads((tmp_path / "diverged.json").read_text())["rows"] == []
    assert not fit.last.exists()


def test_targets_that_are_nowhere_known_in_validation_keep_the_last_epoch(any_backend, tmp_path):
    with use_backend(any_backend):
        fit = make_fit(tmp_path)
        row = fit.data.validation[0]
        fit.data.validation = RaggedDataset([replace(row, target=np.full_like(row.target, np.nan))])
        fit.run()
    assert fit.state.best_epoch == 1
    assert fit.best.exists()


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.is_set
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stop_names_the_run(any_backend, tmp_path, monkeypatch, train_tiny, capsys):
    def stop(self: TrainLoop, progress: object) -> None:
        raise Stopped("runs/mine")

    monkeypatch.setattr(TrainLoop, "run", stop)
    with pytest.raises(AssertionError):
        train_tiny(tmp_path, any_backend)
    assert "`ragged train --resume runs/mine` goes on" in capsys.readouterr().err


def test_divergence_leaves_its_batch_behind(name, tmp_path):
    options = {"optimizer": AdamW(learning_rate=1e30), "max_grad_norm": None, "max_epochs": 5}
    with use_backend(name):
        fit = make_fit(tmp_path, **options)
        text = r"the loss is (nan|inf) in epoch \d, at the .*diverged\.json tells where"
        with pytest.raises(DivergenceError, match=text):
            fit.run()
        names = {row.event.name for row in fit.data.train.rows}
    found = json.loads((tmp_path / "diverged.json").read_text())
    assert found["loss"] in ("nan", "inf")
    assert found["epoch"] == fit.state.epoch + 1
    assert {row["event"] for row in found["rows"]} <= names
    assert 1 <= len(found["rows"]) <= 4


STANDING = TrainState(2, 1, 0.5, [1.0, 0.5], Epoch(1, 0.25, 10, 20, 0.5))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epoch": "2"}, "`epoch` of state.json's training is '2'; expected int"),
        ({"epoch": -1, "losses": []}, "`epoch` of state.json's training is -1; expected int"),
        ({"epoch": 3}, "`epoch` of state.json's training is 3 with best_epoch 1 and 2 losses"),
        ({"best_epoch": 2}, "`epoch` of state.json's training is 2 with best_epoch 2"),
        ({"best_loss": [1]}, "`best_loss` of state.json's training is [1]; expected float"),
        ({"losses": {}}, "`losses` of state.json's training is {}; expected list"),
        ({"losses": [1.0, "x"]}, "`losses` of state.json's training is 'x'; expected float"),
        ({"current": None}, "`current` of state.json's training is None; expected dict"),
        ({"current": {"steps": 1.5}}, "`steps` of state.json's training is 1.5; expected int"),
    ],
)
def test_a_damaged_standing_is_refused(change, text):
    with pytest.raises(CheckpointError, match=re.escape(text)):
        TrainState.from_dict({**STANDING.to_dict(), **change})


def test_a_standing_survives_json():
    for standing in (STANDING, TrainState()):
        assert TrainState.from_dict(json.loads(json.dumps(standing.to_dict()))) == standing


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: AdamW(learning_rate=0.0), "AdamW(): `learning_rate` is 0.0; expected above 0"),
        (lambda: AdamW(beta1=1.0), "AdamW(): `beta1` is 1.0; expected 0 or more, below 1"),
        (lambda: SGD(momentum=1.0), "SGD(): `momentum` is 1.0; expected 0 or more, below 1"),
        (lambda: SGD(weight_decay=-1.0), "SGD(): `weight_decay` is -1.0; expected 0 or more"),
        (lambda: Adam(epsilon=float("nan")), "Adam(): `epsilon` is nan; expected above 0"),
        (lambda: SGD(momentum=0.0, nesterov=True), "SGD(): `nesterov` is True; expected False wit"),
        (lambda: WarmupCosine(-1), "WarmupCosine(): `warmup_steps` is -1; expected 0 or more"),
        (lambda: WarmupCosine(0, 0), "WarmupCosine(): `decay_steps` is 0; expected 1 or more"),
        (
            lambda: WarmupCosine(min_lr_ratio=2.0),
            "WarmupCosine(): `min_lr_ratio` is 2.0; expected 0 to 1",
        ),
        (
            lambda: ReduceLROnPlateau(factor=1.0),
            "ReduceLROnPlateau(): `factor` is 1.0; expected above 0 and below 1",
        ),
        (
            lambda: ReduceLROnPlateau(patience=0),
            "ReduceLROnPlateau(): `patience` is 0; expected 1 or more",
        ),
    ],
)
def test_constants_outside_their_range_are_refused(make, text):
    with pytest.raises(OptionError, match=re.escape(text)):
        make()
