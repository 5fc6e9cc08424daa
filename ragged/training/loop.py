"""The training loop: epochs, early stopping, best and last checkpoints, stopping and resuming."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

from ragged.backend import get_backend
from ragged.data import (
    Batch,
    EncoderDecoderDataModule,
    RaggedDataset,
    batches,
    prefetch,
    without_loss_masking,
)
from ragged.errors import DivergenceError
from ragged.io import checkpoint
from ragged.io.checkpoint import Checkpoint
from ragged.models import ModelConfig
from ragged.training.metric_logger import MetricLogger
from ragged.training.precision import param_dtype
from ragged.training.profile import Profile
from ragged.training.progress import Progress
from ragged.training.signals import Stopped, StopRequest, stop_on_signals
from ragged.training.state import Epoch, TrainState, check_unchanged, named_rows
from ragged.training.trainer import TrainerConfig


class LaunchedStep(NamedTuple):
    """A step that is under way.

    Args:
        group: its batches.
        number: of the step in its epoch, from 1.
        loss: `float` of it waits for the step.
    """

    group: tuple[Batch, ...]
    number: int
    loss: SupportsFloat


@dataclass
class TrainLoop:
    """A training run in progress.

    Args:
        trainer: how it is trained.
        model: the native module.
        data: its data.
        folder: where checkpoints and metrics are written; None writes nothing.
        seed: of the order of the rows, of random lengths and of dropout.
        state: how far it is.
        profile: where its time goes.
        records: the metrics of each epoch of this process.
    """

    trainer: TrainerConfig
    model: Any
    data: EncoderDecoderDataModule
    folder: Path | None
    seed: int
    state: TrainState = field(default_factory=TrainState)
    profile: Profile = field(default_factory=Profile)
    records: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        backend, trainer = get_backend(), self.trainer
        self._kept: Checkpoint | None = None
        self.description: ModelConfig = self.model.config
        self.objective = trainer.objective(self.description, self.data)
        self.step = backend.TrainingStep(
            self.model,
            self.objective,
            trainer.optimizer,
            max_grad_norm=trainer.max_grad_norm,
            ema_decay=trainer.ema_decay,
            seed=self.seed,
            device=trainer.pick_device(backend),
            dtype=trainer.precision,
            devices=trainer.devices,
            use_cuda_graphs=trainer.use_cuda_graphs,
        )

    @property
    def best(self) -> Path:
        """The path of the best checkpoint."""
        return self._path("best")

    @property
    def last(self) -> Path:
        """The path of the checkpoint to resume from."""
        return self._path("last")

    def best_checkpoint(self) -> Checkpoint:
        """Return the best checkpoint so far, from its file or, without a folder, from memory."""
        return checkpoint.read(self.best) if self._kept is None else self._kept

    def keep_best(self, saved: Checkpoint) -> None:
        """Write the best checkpoint anew, with more in its state."""
        if self._kept is None:
            checkpoint.write(self.best, saved)
        else:
            self._kept = saved

    @property
    def is_writer(self) -> bool:
        """Whether this is the process that writes the run's files."""
        return bool(self.step.workers.rank == 0)

    @property
    def is_done(self) -> bool:
        """Whether the last epoch is reached, or patience is exhausted."""
        state, trainer = self.state, self.trainer
        return state.epoch >= trainer.max_epochs or state.num_bad_epochs >= trainer.patience

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps of a training epoch."""
        return -(
            -len(self.data.train) // (self.data.batch_size * self.trainer.accumulate_grad_batches)
        )

    def run(self, progress: Progress | None = None) -> None:
        """Train until done; every epoch ends with checkpoints and a line of metrics.

        Args:
            progress: is told of every step and every epoch.

        Raises:
            DivergenceError: a loss that is not finite; `diverged.json` has the details.
            Stopped: the user sent SIGINT or SIGTERM; a checkpoint was written before.
        """
        if self.is_done:
            return
        if self.is_writer and not self.trainer.use_loss_masking:
            self._warn_of_padding()
        logs = None
        if self.is_writer and self.folder is not None:
            logs = MetricLogger(self.folder, self.state.epoch)
        try:
            with stop_on_signals() as stop:
                while not self.is_done:
                    self._run_epoch(progress, stop)
                    self._end_epoch(logs, progress)
                    if self.step.workers.any_reduce(stop.is_set):
                        self._stop()
        finally:
            if logs is not None:
                logs.close()

    def resume(self) -> None:
        """Load the last checkpoint, if there is one."""
        if not self.last.exists() and not checkpoint.has_leftover(self.last):
            return
        saved = checkpoint.read(self.last)
        state = TrainState.from_dict(saved.state.get("training"))
        configured = self.description
        self.model = saved.create_model(get_backend())
        self.__post_init__()
        training, rows = saved.section("training"), named_rows(self._rows)
        for name, was, current in (
            ("model", self.description.to_config(), configured.to_config()),
            ("data", saved.section("normalization"), self.data.normalization.to_dict()),
            ("batches", named_rows(training.get("rows")), rows),
            ("loss", training.get("loss", self._loss), self._loss),
        ):
            check_unchanged(name, was, current, self.last)
        self.step.load_state_dict(saved.moments(self.step.state_dict()))
        self.state = state

    @property
    def _rows(self) -> list[int]:
        """The numbers that determine the rows of a step: of the data, of a batch, of batches."""
        return [len(self.data.train), self.data.batch_size, self.trainer.accumulate_grad_batches]

    @property
    def _loss(self) -> dict[str, Any]:
        """What the losses of epochs are; those of others say nothing of which epoch is the best."""
        levels, masking = list(self.objective.quantiles), self.trainer.use_loss_masking
        return {"loss": self.objective.name, "quantiles": levels, "use_loss_masking": masking}

    def _run_epoch(self, progress: Progress | None, stop: StopRequest) -> None:
        epoch = self.state.current
        rows = self.data.train_epoch(self.seed, self.state.epoch)
        groups = _grouped(self._batches(rows, shuffle=True), self.trainer.accumulate_grad_batches)
        prefetched = prefetch(islice(groups, epoch.steps, None))
        launched: LaunchedStep | None = None  # finished a step late, or a device would wait for it
        now = time.perf_counter()
        for group in self.profile.measure_items("batches", prefetched):
            before, launched = launched, self._launch(group)
            self._finish(before, progress)
            now, start = time.perf_counter(), now
            epoch.seconds += now - start
            if self.step.workers.any_reduce(stop.is_set):
                self._finish(launched, progress)
                self._stop()
        self._finish(launched, progress)
        epoch.seconds += time.perf_counter() - now

    def _launch(self, group: tuple[Batch, ...]) -> LaunchedStep:
        """Begin a step; a device may work at it while the next one's batch is made."""
        epoch = self.state.current
        with self.profile.measure("steps"):
            loss = self.step.launch(*group, rate=self._rate(epoch.steps))
        epoch.steps += 1
        return LaunchedStep(group, epoch.steps, loss)

    def _finish(self, launched: LaunchedStep | None, progress: Progress | None) -> None:
        """Wait for a step and count it; raise if its loss is not finite."""
        if launched is None:
            return
        with self.profile.measure("steps"):
            loss = float(launched.loss)
        if not math.isfinite(loss):
            raise self._diverged("loss", loss, launched)
        epoch, group = self.state.current, launched.group
        elements = sum(batch.count for batch in group)
        epoch.loss += loss * elements
        epoch.elements += elements
        epoch.tokens += sum(b.encoder_lengths.tokens + b.decoder_lengths.tokens for b in group)
        if progress is not None:
            progress.end_step(self.state.epoch + 1, loss)

    def _rate(self, steps_done: int) -> float:
        """Return the learning rate after a number of steps of the epoch."""
        trainer, state = self.trainer, self.state
        step = state.epoch * self.steps_per_epoch + steps_done
        steps = trainer.max_epochs * self.steps_per_epoch
        return trainer.optimizer.learning_rate * trainer.lr_schedule.multiplier(
            step, steps, state.losses
        )

    def _validation_loss(self) -> float | None:
        """Return the mean loss over the known targets of the validation rows; None without any."""
        validation_batches = self._batches(self.data.validation, shuffle=False)
        sums = [self.step.evaluate(batch) for batch in validation_batches]
        count = sum(count for _, count in sums)
        return sum(total for total, _ in sums) / count if count else None

    def _end_epoch(self, logs: MetricLogger | None, progress: Progress | None = None) -> None:
        """Validate and write checkpoints and metrics; repeated on resuming if killed."""
        state, epoch = self.state, self.state.current
        rate = self._rate(epoch.steps - 1)
        with self.profile.measure("validation"):
            loss = self._validation_loss()
        if loss is not None and not math.isfinite(loss):
            raise self._diverged("validation loss", loss, None)
        state.epoch += 1
        state.losses.append(math.nan if loss is None else loss)
        state.current = Epoch()
        with self.profile.measure("checkpoints and logs"):
            if self._is_worth_keeping(loss):
                state.best_loss = min(state.best_loss, math.inf if loss is None else loss)
                state.best_epoch = state.epoch - 1
                self._write("best")
            record = {
                "epoch": state.epoch,
                "train_loss": epoch.loss / max(1, epoch.elements),
                "validation_loss": loss,
                "learning_rate": rate,
                "seconds": epoch.seconds,
                "tokens_per_second": epoch.tokens / epoch.seconds,
            }
            if self.trainer.precision == "float16":  # so far, since their gradients overflowed
                record["skipped_steps"] = state.epoch * self.steps_per_epoch - self.step.steps
            self.records.append(record)
            if logs is not None:
                logs.write(record)
            if progress is not None:
                progress.end_epoch(record)
            self._write("last", with_optimizer=True)
        self.profile.end_epoch()

    def _is_worth_keeping(self, loss: float | None) -> bool:
        best = self.state.best_loss
        if loss is None or not math.isfinite(best):
            return True  # without validation losses the last epoch is kept
        return loss < best + self.trainer.tolerance * abs(best)

    def _stop(self) -> None:
        """Write a checkpoint and stop, as a worker received a signal."""
        self._write("last", with_optimizer=True)
        raise Stopped("" if self.folder is None else str(self.folder))

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / "checkpoints" / name

    def _write(self, name: str, *, with_optimizer: bool = False) -> None:
        """Write a checkpoint; without a folder the best one is kept in memory."""
        if self.folder is None and name != "best":
            return
        if not self.is_writer and self.folder is not None:
            return
        self.model = self.step.module()
        content = {
            "training": {**self.state.to_dict(), "rows": self._rows, "loss": self._loss},
            "normalization": self.data.normalization.to_dict(),
        }
        parameters = get_backend().get_parameters(self.model)
        if self.folder is None:
            parameters = {name: value.copy() for name, value in parameters.items()}
        saved = Checkpoint(
            parameters,
            self.description.to_config(),
            content,
            self.step.state_dict() if with_optimizer else None,
        )
        if self.folder is None:
            self._kept = saved
        else:
            checkpoint.write(self._path(name), saved)

    def _diverged(self, name: str, loss: float, launched: LaunchedStep | None) -> DivergenceError:
        """Record where a loss was not finite, with the rows of the step if it was one's."""
        dataset = self.data.train_epoch(self.seed, self.state.epoch)
        group = () if launched is None else launched.group
        rows = [dataset[int(row)] for b in group for row in b.rows if row >= 0]
        record = {
            "name": name,
            "loss": str(loss),
            "epoch": self.state.epoch + 1,
            "step": self.state.current.steps if launched is None else launched.number,
            "rows": [
                {"event": r.event.name, "start": r.start, "split": r.split, "stop": r.stop}
                for r in rows
            ],
        }
        batch = f", at the batch of events {[row.event.name for row in rows]}" if rows else ""
        written = ""
        if self.folder is not None:
            if self.is_writer:
                path = self.folder / "diverged.json"
                checkpoint.write_file(path, json.dumps(record, indent=2).encode())
            written = "; diverged.json tells where"
            if self.best.exists():
                written += f", and the best checkpoint is kept in {str(self.best)!r}"
        return DivergenceError(
            f"training: the {name} is {loss} in epoch {record['epoch']}{batch}; expected a finite "
            f"number. Lower the learning rate or the gradient clip{written}."
        )

    def _batches(self, dataset: RaggedDataset, *, shuffle: bool) -> Iterator[Batch]:
        iterator = batches(
            dataset,
            self.data.batch_size,
            shuffle_seed=self.seed if shuffle else None,
            epoch=self.state.epoch,
            dtype=param_dtype(self.trainer.precision),
        )
        return iterator if self.trainer.use_loss_masking else map(without_loss_masking, iterator)

    def _warn_of_padding(self) -> None:
        """Warn about training without a mask if horizons differ."""
        horizons = self.data.train_epoch(self.seed, self.state.epoch).lengths[:, 1]
        if horizons.min() < horizons.max():
            warnings.warn(
                "train: `trainer.use_loss_masking` is false and horizons differ, from "
                f"{horizons.min()} to {horizons.max()} steps: padding counts as forecast without "
                "an error. Set it to true for the mean over valid steps.",
                UserWarning,
                stacklevel=3,
            )


def _grouped(items: Iterable[Batch], size: int) -> Iterator[tuple[Batch, ...]]:
    iterator = iter(items)
    return iter(lambda: tuple(islice(iterator, size)), ())
