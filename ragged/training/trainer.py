"""The training loop: epochs, early stopping, best and last checkpoints, resuming."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragged import checkpoint, losses
from ragged.backend import Backend, get_backend
from ragged.checkpoint import Checkpoint
from ragged.data import Batch, Dataset, EncoderDecoderDataModule, batches
from ragged.errors import DivergenceError, OptionError, refusal
from ragged.models import Model
from ragged.optimizer import AdamW
from ragged.training.objective import Objective

PRECISIONS = ("float32", "float64")


@dataclass(frozen=True)
class Trainer:
    """How a model is trained.

    Args:
        max_epochs: epochs at the most.
        patience: epochs without one worth keeping before training stops.
        tolerance: an epoch is worth keeping if its validation loss is less than this share above
            the lowest so far. Above 0, chance in few validation rows does not keep an early epoch
            where a later one, of a lower learning rate, is as good.
        device: "auto" (the best at hand), "cpu" or "cuda".
        precision: "float32" or "float64" (JAX needs JAX_ENABLE_X64=1 for it).
        loss: name of a loss of ragged.losses; None = the model's own.
        quantiles: levels of the quantile loss, inside 0..1; None = 2, 10, 25, 50, 75, 90, 98 %.
        optimizer: AdamW with all its constants.
    """

    max_epochs: int = 40
    patience: int = 10
    tolerance: float = 0.0
    device: str = "auto"
    precision: str = "float32"
    loss: str | None = None
    quantiles: tuple[float, ...] | None = None
    optimizer: AdamW = field(default_factory=AdamW)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionError(
                refusal(
                    "Trainer",
                    "precision",
                    repr(self.precision),
                    f"one of {PRECISIONS}",
                    "Name one.",
                )
            )
        if not self.tolerance >= 0:
            got = repr(self.tolerance)
            raise OptionError(refusal("Trainer", "tolerance", got, "0 or more", "Raise it."))
        known = [n for n, v in vars(losses).items() if isinstance(v, losses.MaskedLoss)]
        if self.loss not in (None, *known):
            raise OptionError(
                refusal("Trainer", "loss", repr(self.loss), f"one of {known}", "Name one.")
            )
        levels = self.quantiles
        if levels is not None and not (levels and all(0 < level < 1 for level in levels)):
            raise OptionError(
                refusal(
                    "Trainer",
                    "quantiles",
                    str(levels),
                    "one level or more, each inside 0..1",
                    "Or leave it out.",
                )
            )

    def objective(self, model: Model, data: EncoderDecoderDataModule) -> Objective:
        """Return the loss of a model on data; see `Objective.of`."""
        return Objective.of(self.loss, self.quantiles, model, data.target_features)

    def pick_device(self, backend: Backend) -> str:
        """Return the device to run on.

        Raises:
            OptionError: the backend has no such device.
        """
        devices = backend.devices()
        if self.device == "auto":
            return devices[0]
        if self.device not in devices:
            raise OptionError(
                refusal(
                    "Trainer",
                    "device",
                    repr(self.device),
                    f"one of {devices} on this machine",
                    "Use device=auto, or install the framework's build for that device.",
                )
            )
        return self.device


@dataclass
class Fit:
    """One training run in progress: everything that must survive being killed."""

    trainer: Trainer
    model: Any
    data: EncoderDecoderDataModule
    folder: Path
    seed: int
    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = -1

    def __post_init__(self) -> None:
        backend = get_backend()
        self.description: Model = self.model.config
        self.objective = self.trainer.objective(self.description, self.data)
        self.step = backend.TrainingStep(
            self.model,
            self.objective,
            self.trainer.optimizer,
            seed=self.seed,
            device=self.trainer.pick_device(backend),
            dtype=self.trainer.precision,
        )

    @property
    def best(self) -> Path:
        """The checkpoint of the last epoch worth keeping."""
        return self.folder / "checkpoints" / "best"

    @property
    def last(self) -> Path:
        """The checkpoint that resuming starts from."""
        return self.folder / "checkpoints" / "last"

    @property
    def is_done(self) -> bool:
        """Whether the last epoch is reached, or patience is at its end."""
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch >= self.trainer.max_epochs or waited >= self.trainer.patience

    def run(self, progress: Any = None) -> None:
        """Train until done; every epoch ends with checkpoints and a line of metrics."""
        while not self.is_done:
            record = self._run_epoch(progress)
            self._keep(record)

    def resume(self) -> None:
        """Go back to the last checkpoint; without one, start anew."""
        if not self.last.exists() and not checkpoint.has_leftover(self.last):
            self._rewrite_metrics()
            return
        saved = checkpoint.read(self.last)
        self.model = saved.create_model(get_backend())
        self.__post_init__()
        self.step.load_state(saved.moments(self.step.state()))
        self.epoch, self.best_epoch, self.best_loss = saved.progress
        self._rewrite_metrics()

    def _run_epoch(self, progress: Any) -> dict[str, Any]:
        started, tokens, values = time.perf_counter(), 0, []
        rows = self.data.train_epoch(self.seed, self.epoch)
        for batch in self._batches(rows, shuffle=True):
            value = self.step.step(batch)
            if not math.isfinite(value):
                events = [self.data.train.rows[i].event.name for i in batch.rows if i >= 0]
                raise DivergenceError(
                    f"training: the loss is {value} in epoch {self.epoch + 1}, at the batch of "
                    f"events {events}; expected a finite number. Lower the learning rate or the "
                    f"gradient clip; the best checkpoint is kept in {str(self.best)!r}."
                )
            values.append(value)
            tokens += batch.encoder_lengths.tokens + batch.decoder_lengths.tokens
            if progress is not None:
                seconds = time.perf_counter() - started
                progress.set_postfix(
                    epoch=self.epoch + 1,
                    loss=f"{value:.4f}",
                    tokens_per_s=f"{tokens / seconds:,.0f}",
                )
                progress.update()
        seconds = time.perf_counter() - started
        return {
            "epoch": self.epoch + 1,
            "train_loss": sum(values) / len(values),
            "validation_loss": self._validation_loss(),
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
        }

    def _validation_loss(self) -> float:
        sums = [self.step.evaluate(b) for b in self._batches(self.data.validation, shuffle=False)]
        count = sum(count for _, count in sums)
        return sum(total for total, _ in sums) / count if count else math.nan

    def _keep(self, record: dict[str, Any]) -> None:
        """Write what the epoch gave; killed anywhere in here, the epoch is run again."""
        self.epoch = record["epoch"]
        self.model = self.step.module()
        loss = record["validation_loss"]
        if self._is_worth_keeping(loss):
            self.best_loss, self.best_epoch = min(loss, self.best_loss), self.epoch - 1
            checkpoint.write(self.best, self._checkpoint())
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        checkpoint.write(self.last, self._checkpoint(with_optimizer=True))

    def _is_worth_keeping(self, loss: float) -> bool:
        if not math.isfinite(self.best_loss):
            return loss < self.best_loss
        return loss < self.best_loss + self.trainer.tolerance * abs(self.best_loss)

    def _checkpoint(self, *, with_optimizer: bool = False) -> Checkpoint:
        training = {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
        }
        return Checkpoint(
            get_backend().get_parameters(self.model),
            self.description.to_config(),
            {"training": training, "normalization": self.data.standardizer.to_dict()},
            self.step.state() if with_optimizer else None,
        )

    def _rewrite_metrics(self) -> None:
        """Drop the records of epochs that are run again."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _epoch_of(line) <= self.epoch]
        checkpoint.write_file(path, "".join(f"{line}\n" for line in kept).encode())

    def _batches(self, dataset: Dataset, *, shuffle: bool) -> Iterator[Batch]:
        seed = self.seed if shuffle else None
        return batches(
            dataset,
            self.data.batch_size,
            shuffle_seed=seed,
            epoch=self.epoch,
            dtype=self.trainer.precision,
        )


def steps_per_epoch(data: EncoderDecoderDataModule) -> int:
    """The number of batches of a training epoch."""
    return -(-len(data.train.rows) // data.batch_size)


def _epoch_of(line: str) -> float:
    """The epoch of a metrics record; a line that a kill cut short belongs to no epoch kept."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
