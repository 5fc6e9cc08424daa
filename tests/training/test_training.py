"""Training: one trajectory on both backends, resuming, divergence, and no global traces."""

from __future__ import annotations

import functools
import io
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ragged
from ragged import losses
from ragged.backend import load_backend, use_backend
from ragged.data import EncoderDecoderDataModule, MagnetHysteresis, RaggedDataset, Storms, batches
from ragged.errors import CheckpointError, DivergenceError, OptionError
from ragged.io import checkpoint
from ragged.training import TrainerConfig
from ragged.training.loop import TrainLoop
from ragged.training.optimizers import AdamW
from ragged.training.progress import Progress
from ragged.training.signals import StopRequest

BACKENDS = ("torch", "jax")


@pytest.fixture(params=BACKENDS)
def name(request, need):
    need(request.param)
    return request.param


def parameters_of(folder: Path, file: str = "model.safetensors") -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {key: value.tobytes() for key, value in load_file(folder / file).items()}


def small_data() -> EncoderDecoderDataModule:
    data = EncoderDecoderDataModule(
        MagnetHysteresis(cycles=10, min_steps=33, max_steps=36), batch_size=4
    )
    data.setup()
    return data


def small_fit(name: str, folder: Path, **options: object) -> TrainLoop:
    folder.mkdir(parents=True, exist_ok=True)
    model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=4, dropout=0.3, seed=0)
    trainer = replace(TrainerConfig(max_epochs=2, device="cpu"), **options)
    return TrainLoop(trainer, model, small_data(), folder, seed=5)


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_equal_seeds_give_equal_parameters_on_both_backends(need, seed):
    need(*BACKENDS)
    found = []
    for name in BACKENDS:
        with use_backend(name) as backend:
            model = ragged.models.EncoderDecoderLSTM(
                3, 2, hidden_size=5, decoder_hidden_size=4, head_hidden_size=6, seed=seed
            )
            found.append(backend.get_parameters(model))
    torch, jax = found
    assert torch.keys() == jax.keys()
    for key in torch:
        assert torch[key].dtype == jax[key].dtype == np.float32
        assert torch[key].tobytes() == jax[key].tobytes(), key


def test_other_seeds_give_other_parameters(name):
    with use_backend(name) as backend:
        found = [
            backend.get_parameters(ragged.models.EncoderDecoderLSTM(1, 1, hidden_size=4, seed=s))
            for s in (0, 1)
        ]
    assert all(not np.array_equal(found[0][key], found[1][key]) for key in found[0])


def losses_of_steps(name: str, dtype: str, count: int) -> np.ndarray:
    """Train some steps on the short storms, on which twenty take seconds."""
    rows = [row for row in EncoderDecoderDataModule(Storms()).train.rows if len(row.future) < 60]
    assert len(rows) == 28
    train = RaggedDataset(rows)
    endless = (
        batch
        for epoch in itertools.count()
        for batch in batches(train, 16, shuffle_seed=0, epoch=epoch, dtype=dtype, buckets=1)
    )
    with use_backend(name) as backend:
        model = ragged.models.EncoderDecoderLSTM(3, 2, hidden_size=16, dropout=0.0, seed=0)
        step = backend.TrainingStep(model, losses.mse, AdamW(), device="cpu", dtype=dtype)
        return np.array([step.step(batch) for batch in itertools.islice(endless, count)])


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-4), ("float64", 1e-8)])
def test_trajectories_agree(need, dtype, rtol):
    need(*BACKENDS)
    import jax

    with jax.enable_x64(dtype == "float64"):
        on_torch, on_jax = (losses_of_steps(name, dtype, 20) for name in BACKENDS)
    assert len(set(on_torch)) == 20
    np.testing.assert_allclose(on_jax, on_torch, rtol=rtol)


def test_float64_without_64_bits_is_refused_on_jax(need, tmp_path):
    need("jax")
    import jax

    if jax.config.read("jax_enable_x64"):
        pytest.skip("this process has 64 bits enabled")
    with use_backend("jax"), pytest.raises(OptionError, match="JAX_ENABLE_X64=1"):
        small_fit("jax", tmp_path, precision="float64")


def finished(run: Path, read_losses) -> tuple[object, ...]:
    last = run / "checkpoints" / "last"
    return (
        read_losses(run),
        parameters_of(last),
        parameters_of(last, "optimizer.safetensors"),
        parameters_of(run / "checkpoints" / "best"),
        (last / "state.json").read_text(),
        (run / "scores.json").read_text(),
    )


def continued(run: Path, epochs: int) -> None:
    """Make a finished run one that was stopped before `epochs` were done."""
    import yaml

    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["trainer"]["max_epochs"] = epochs
    path.write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def first_epoch(train_tiny, tmp_path_factory):
    """Give a copy of a backend's tiny run that has trained one epoch."""

    @functools.cache
    def trained(name: str) -> Path:
        return train_tiny(tmp_path_factory.mktemp("first_epoch"), name, trainer__max_epochs=1)

    return lambda name, folder: Path(shutil.copytree(trained(name), folder / "run"))


def test_a_resumed_run_equals_the_unbroken_one(
    name, tiny_run, first_epoch, read_losses, tmp_path, capsys
):
    unbroken = tiny_run(name)
    run = first_epoch(name, tmp_path)
    assert finished(run, read_losses) != finished(unbroken, read_losses)
    continued(run, 3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "train_loss": 9, "validation_loss": 9}\n')
        file.write('{"epoch": 3, "tra')  # what a kill leaves
    assert ragged_main(["train", "--resume", str(run)]) == 0
    assert finished(run, read_losses) == finished(unbroken, read_losses)
    assert "best epoch" in capsys.readouterr().out


def ragged_main(arguments: list[str]) -> int:
    from ragged.cli.main import main

    return main(arguments)


def test_dropout_is_at_work_in_the_resumed_run(name, tiny_run, train_tiny, read_losses, tmp_path):
    plain = train_tiny(tmp_path, name, model__init_args__dropout="0.0", trainer__max_epochs=1)
    assert read_losses(plain)[0][1] != read_losses(tiny_run(name))[0][1]


def test_a_run_killed_before_its_first_checkpoint_starts_anew(
    name, tiny_run, first_epoch, read_losses, tmp_path
):
    """All that equal seeds train twice is equal."""
    run = first_epoch(name, tmp_path)
    continued(run, 3)
    shutil.rmtree(run / "checkpoints")
    assert ragged_main(["train", "--resume", str(run)]) == 0
    assert finished(run, read_losses) == finished(tiny_run(name), read_losses)


def test_resuming_a_finished_run_changes_nothing(name, tiny_run, read_losses, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run(name), run)
    before = finished(run, read_losses)
    assert ragged_main(["train", "--resume", str(run)]) == 0
    assert finished(run, read_losses) == before


def test_a_checkpoint_without_moments_is_not_resumed(any_backend, tmp_path):
    with use_backend(any_backend):
        fit = small_fit(any_backend, tmp_path, max_epochs=1)
        fit.run()
        (fit.last / "optimizer.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"resume: .*holds no optimizer\.safetensors"):
            small_fit(any_backend, tmp_path).resume()


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(name, tmp_path, monkeypatch):
    with use_backend(name):
        fit = small_fit(name, tmp_path, max_epochs=3)
        real, count = fit.step.launch, itertools.count()
        monkeypatch.setattr(
            fit.step,
            "launch",
            lambda batch, rate: float("nan") if next(count) == 2 else real(batch, rate=rate),
        )
        text = r"training: the loss is nan in epoch 2, at the batch of events \[('\d',? ?){1,4}\];"
        with pytest.raises(DivergenceError, match=text) as caught:
            fit.run()
        assert "Lower the learning rate" in str(caught.value)
        assert repr(str(fit.best)) in str(caught.value)
        assert checkpoint.read(fit.best).state["training"]["epoch"] == 1
    record = json.loads((tmp_path / "diverged.json").read_text())
    assert (record["epoch"], record["step"], record["loss"]) == (2, 1, "nan")
    assert str([row["event"] for row in record["rows"]]) in str(caught.value)
    assert next(count) == 4, "the loss is read a step late"


def test_the_best_epoch_is_kept_and_patience_ends_the_run(any_backend, tmp_path, monkeypatch):
    values = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    with use_backend(any_backend):
        fit = small_fit(any_backend, tmp_path, max_epochs=9, patience=2)
        monkeypatch.setattr(fit, "_validation_loss", lambda: next(values))
        fit.run()
    standing = fit.state
    assert (standing.epoch, standing.best_epoch, standing.best_loss) == (4, 1, 2.0)
    assert checkpoint.read(fit.best).state["training"]["epoch"] == 2
    assert checkpoint.read(fit.last).state["training"]["epoch"] == 4


def test_a_later_epoch_within_the_tolerance_is_kept(any_backend, tmp_path, monkeypatch):
    values = iter([3.0, 2.0, 2.15, 2.25, 1.99, 2.5])
    with use_backend(any_backend):
        fit = small_fit(any_backend, tmp_path, max_epochs=6, tolerance=0.1)
        monkeypatch.setattr(fit, "_validation_loss", lambda: next(values))
        kept = []
        while not fit.is_done:
            fit._run_epoch(None, StopRequest())
            fit._end_epoch(None)
            kept.append((fit.state.best_epoch, fit.state.best_loss))
    assert kept == [(0, 3.0), (1, 2.0), (2, 2.0), (2, 2.0), (4, 1.99), (4, 1.99)]


def test_validation_is_a_mean_over_steps_of_all_batches(name, tmp_path):
    with use_backend(name) as backend:
        fit = small_fit(name, tmp_path, max_epochs=1)
        dataset = fit.data.train  # three batches, of which the last is filled up
        fit.data.validation = dataset
        found = fit._validation_loss()
        module, total, count = fit.step.module(), 0.0, 0
        for row in range(len(dataset)):
            one = type(dataset)([dataset[row]])
            (batch,) = batches(one, 1)
            output = backend.predict(module, batch).output
            valid = batch.decoder_lengths.host[0]
            total += float(((output - batch.target)[0, :valid] ** 2).sum())
            count += int(valid)
    assert found == pytest.approx(total / count, rel=1e-5)


def settings_of_torch() -> tuple[object, ...]:
    import torch

    return (
        torch.get_rng_state().numpy().tobytes(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
    )


def settings_of_jax() -> dict[str, object]:
    import jax

    return dict(jax.config.values)


def test_training_leaves_all_settings_as_they_were(name, no_backend_chosen, tmp_path):
    settings = {"torch": settings_of_torch, "jax": settings_of_jax}[name]
    numpy_before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    before = settings()
    with use_backend(name):
        small_fit(name, tmp_path).run()
    assert settings() == before
    assert np.random.get_state()[1].tobytes() == numpy_before  # noqa: NPY002
    assert ragged.backend._default is None
    assert ragged.backend._local.get() is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": "float8"}, "TrainerConfig(): `precision` is 'float8'; expected one of"),
        (
            {"accumulate_grad_batches": 0},
            "TrainerConfig(): `accumulate_grad_batches` is 0; expected 1 or more",
        ),
        ({"ema_decay": 1.0}, "TrainerConfig(): `ema_decay` is 1.0; expected 0 or more, below 1"),
        ({"max_grad_norm": 0.0}, "TrainerConfig(): `max_grad_norm` is 0.0; expected above 0"),
        (
            {"use_loss_masking": "no"},
            "TrainerConfig(): `use_loss_masking` is 'no'; expected True or Fal",
        ),
        ({"loss": "mean"}, "TrainerConfig(): `loss` is 'mean'; expected one of ['"),
        ({"loss": "cross_entropy"}, "TrainerConfig(): `loss` is 'cross_entropy'; expected one o"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(OptionError, match=re.escape(text)):
        TrainerConfig(**options)


def test_an_unknown_device_is_refused(name):
    with pytest.raises(OptionError, match=r"`device` is 'tpu'; expected one of \(.*'cpu'"):
        TrainerConfig(device="tpu").pick_device(load_backend(name))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_all_steps_are_reported_in_a_bar_of_80_columns(any_backend, tmp_path):
    said = Terminal()
    with (
        use_backend(any_backend),
        Progress(2, small_fit(any_backend, tmp_path).steps_per_epoch, file=said) as p,
    ):
        fit = small_fit(any_backend, tmp_path)
        fit.run(p)
        assert p.bar.n == 2 * fit.steps_per_epoch == 2 * -(-len(fit.data.train) // 4)
    *_, last = said.getvalue().strip().split("\r")
    assert len(last) <= 80
    assert last.startswith("epoch 2/2 ")
    assert f", validation {fit.records[0]['validation_loss']:.4g}" in last


def test_without_a_terminal_an_epoch_is_a_line(any_backend, tmp_path):
    said = io.StringIO()
    with use_backend(any_backend), Progress(2, 1, file=said) as progress:
        fit = small_fit(any_backend, tmp_path)
        fit.run(progress)
    losses = [(r["train_loss"], r["validation_loss"]) for r in fit.records]
    expected = [
        f"epoch {epoch} of 2: loss {train:.4f}, validation {validation:.4f}"
        for epoch, (train, validation) in enumerate(losses, start=1)
    ]
    assert said.getvalue().splitlines() == expected
