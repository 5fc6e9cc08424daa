"""The progress of a run, which resuming needs beside parameters and moments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragged.errors import CheckpointError
from ragged.io.safe_json import finite_or_none

COUNTS = ("epoch", "steps", "elements", "tokens")


@dataclass
class Epoch:
    """The totals of the steps of an epoch so far.

    Args:
        steps: the number of optimizer steps.
        loss: the sum of their losses, weighted by elements.
        elements: the number of valid target elements.
        tokens: the number of valid steps of rows.
        seconds: their duration.
    """

    steps: int = 0
    loss: float = 0.0
    elements: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class TrainState:
    """The state of a run.

    Args:
        epoch: the number of finished epochs.
        best_epoch: the epoch of the best checkpoint, counted from 0; -1 = none yet.
        best_loss: the lowest validation loss.
        losses: the validation loss of each epoch.
        current: the totals of the epoch in progress.

    >>> state = TrainState(epoch=2, best_epoch=1, best_loss=0.5, losses=[1.0, 0.5])
    >>> TrainState.from_dict(state.to_dict()) == state
    True
    """

    epoch: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    losses: list[float] = field(default_factory=list)
    current: Epoch = field(default_factory=Epoch)

    @property
    def num_bad_epochs(self) -> int:
        """The number of epochs since the best one."""
        return self.epoch - 1 - self.best_epoch

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinity and no NaN."""
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": finite_or_none(self.best_loss),
            "losses": [finite_or_none(loss) for loss in self.losses],
            "current": vars(self.current).copy(),
        }

    @classmethod
    def from_dict(cls, saved: Any) -> TrainState:
        """Undo `to_dict`.

        Raises:
            CheckpointError: something else; it names the field.
        """
        losses = _take(saved, "losses", list)
        epoch, best_epoch = _take(saved, "epoch", int), _take(saved, "best_epoch", int)
        best_loss = _number(_take(saved, "best_loss", float, type(None)), math.inf)
        history = [_number(_check("losses", loss, float, type(None)), math.nan) for loss in losses]
        if not 0 <= epoch == len(history) or not -1 <= best_epoch < epoch:
            got = f"{epoch} with best_epoch {best_epoch} and {len(history)} losses"
            raise _refuse("epoch", got, "a loss for each epoch, the best one among them")
        current = _take(saved, "current", dict)
        in_progress = Epoch(
            steps=_take(current, "steps", int),
            loss=float(_take(current, "loss", float)),
            elements=_take(current, "elements", int),
            tokens=_take(current, "tokens", int),
            seconds=float(_take(current, "seconds", float)),
        )
        return cls(epoch, best_epoch, best_loss, history, in_progress)


def check_unchanged(name: str, saved: Any, current: Any, path: Path) -> None:
    """Refuse to resume with another model, data, batches or loss than a checkpoint's.

    Args:
        name: which of them.
        saved: its description in the checkpoint.
        current: as it is configured now.
        path: of the checkpoint.

    Raises:
        CheckpointError: the two differ; it names in what.
    """
    if saved != current:
        verb = "is" if name in ("model", "loss") else "are"
        got, expected = _differing(current, saved), _differing(saved, current)
        raise CheckpointError(
            f"resume: the {name} {verb} now {got!s:.300}; expected {expected!s:.300}, as in "
            f"{str(path)!r}. Restore the run's config.yaml and data, or start a new run."
        )


def named_rows(rows: Any) -> Any:
    """Name the numbers that determine the rows of a step.

    >>> named_rows([62, 16, 1])
    {'rows': 62, 'batch_size': 16, 'accumulate_grad_batches': 1}
    """
    names = "rows", "batch_size", "accumulate_grad_batches"
    return dict(zip(names, rows, strict=False)) if isinstance(rows, list) else rows


def _differing(value: Any, other: Any) -> Any:
    """Return a value, of a mapping the entries alone that another one has not."""
    if not (isinstance(value, dict) and isinstance(other, dict)):
        return value
    entries = {k: _differing(v, other.get(k)) for k, v in value.items()}
    return {k: v for k, v in entries.items() if k not in other or value[k] != other[k]}


def _take(saved: Any, name: str, *kinds: type) -> Any:
    if not isinstance(saved, dict) or name not in saved:
        raise _refuse(name, "missing", kinds[0].__name__)
    return _check(name, saved[name], *kinds)


def _check(name: str, value: Any, *kinds: type) -> Any:
    allowed = (*kinds, int) if float in kinds else kinds
    negative = isinstance(value, int) and value < 0 and name in COUNTS
    if isinstance(value, bool) or not isinstance(value, allowed) or negative:
        raise _refuse(name, repr(value), kinds[0].__name__)
    return value


def _number(value: float | None, missing: float) -> float:
    return missing if value is None else float(value)


def _refuse(name: str, got: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"resume: `{name}` of state.json's training is {got}; expected {expected}. "
        "Restore the checkpoint, or start a new run."
    )
