"""Configurations of the release before: read, and told of."""

import re

import pytest

from ragged.cli.main import main
from ragged.runs.config import load_config

OLD = """
model: {class_path: EncoderDecoderLSTM, init_args: {hidden_size: 2, num_layers: 1}}
data:
  class_path: EncoderDecoderDataModule
  init_args:
    source: {class_path: MagnetHysteresis, init_args: {cycles: 6, max_steps: 40}}
    transforms: {field: [{class_path: ragged.data.Standard}, {class_path: ragged.data.Standard}]}
trainer:
  max_epochs: 1
  device: cpu
  gradient_clip: 0.5
  accumulate: 2
  optimizer: {class_path: ragged.optimizer.AdamW, init_args: {learning_rate: 0.01}}
  rate_schedule:
    class_path: ragged.learning_rate.Plateau
    init_args: {cut: 0.3, final: 0.1}
"""
RENAMED = (
    *("gradient_clip", "accumulate", "rate_schedule", "cut", "final", "ragged.optimizer.AdamW"),
    *("ragged.learning_rate.Plateau", "ragged.data.Standard"),
)


def test_an_old_configuration_trains_and_each_old_name_is_told_once(tmp_path, need):
    need("torch")
    (tmp_path / "old.yaml").write_text(OLD)
    options = ["--config", tmp_path / "old.yaml", "--runs", tmp_path / "runs"]
    with pytest.warns(FutureWarning) as told:
        assert main(["train", *map(str, options), "--backend", "torch"]) == 0
    texts = " ".join(str(warning.message) for warning in told)
    for name in RENAMED:
        assert texts.count(f"`{name}` is now") == 1
    (written,) = tmp_path.glob("runs/run/*/config.yaml")
    trainer = load_config(written)["trainer"]
    assert (trainer["max_grad_norm"], trainer["accumulate_grad_batches"]) == (0.5, 2)
    assert trainer["lr_schedule"] == {
        "class_path": "ragged.training.lr_schedules.ReduceLROnPlateau",
        "init_args": {"factor": 0.3, "patience": 5, "threshold": 0.0001, "min_lr_ratio": 0.1},
    }


def test_an_old_option_is_read_too(tmp_path, need):
    need("torch")
    options = {"data.source.init_args.cycles": 6, "data.source.init_args.max_steps": 40,
               "model.init_args.hidden_size": 2, "trainer.max_epochs": 1, "trainer.device": "cpu",
               "trainer.gradient_clip": 0.5, "runs": tmp_path}  # fmt: skip
    message = re.escape("`--trainer.gradient_clip` is now `--trainer.max_grad_norm`")
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with pytest.warns(FutureWarning, match=message):
        assert main(["train", "--config", "magnet", *arguments]) == 0
    (written,) = tmp_path.glob("magnet/*/config.yaml")
    assert load_config(written)["trainer"]["max_grad_norm"] == 0.5
