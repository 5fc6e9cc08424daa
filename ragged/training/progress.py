"""The progress of a training: a bar on a terminal or in a notebook, else a line an epoch."""

from __future__ import annotations

import sys
from typing import Any, TextIO

WIDTH = 80  # columns of a bar at the most
BAR = "{desc} {bar} {percentage:3.0f}% {elapsed}<{remaining}{postfix}"


class Progress:
    """Tells how far a training is.

    Args:
        epochs: at the most.
        steps_per_epoch: of each epoch.
        done: the steps done before.
        is_shown: False is silent.
        file: where to write; by default stderr.

    >>> with Progress(1, 1, file=sys.stdout) as progress:
    ...     progress.end_step(1, 0.5)
    ...     progress.end_epoch({"epoch": 1, "train_loss": 0.5, "validation_loss": None})
    epoch 1 of 1: loss 0.5000
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        done: int = 0,
        is_shown: bool = True,
        file: TextIO | None = None,
    ) -> None:
        self.epochs, self.file = epochs, file or sys.stderr
        self.validation_loss: float | None = None
        self.bar: Any = None
        self.is_shown = is_shown
        has_terminal = hasattr(self.file, "isatty") and self.file.isatty()
        if is_shown and (has_terminal or (file is None and _in_notebook())):
            self.bar = _new_bar(epochs * steps_per_epoch, done, file)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def end_step(self, epoch: int, loss: float) -> None:
        """Count a step, with its training loss."""
        if self.bar is None:
            return
        validation = self.validation_loss
        losses = f"loss {loss:.4g}"
        losses += "" if validation is None else f", validation {validation:.4g}"
        self.bar.set_description_str(f"epoch {epoch}/{self.epochs}", refresh=False)
        self.bar.set_postfix_str(losses, refresh=False)
        self.bar.update()

    def end_epoch(self, record: dict[str, Any]) -> None:
        """Tell the losses of an epoch; see `TrainLoop.records`."""
        self.validation_loss = record["validation_loss"]
        if self.bar is None and self.is_shown:
            text = f"epoch {record['epoch']} of {self.epochs}: loss {record['train_loss']:.4f}"
            if self.validation_loss is not None:
                text += f", validation {self.validation_loss:.4f}"
            print(text, file=self.file, flush=True)


def _new_bar(total: int, done: int, file: TextIO | None) -> Any:
    from tqdm.auto import tqdm

    width = None if _in_notebook() else WIDTH
    return tqdm(total=total, initial=done, file=file, ncols=width, bar_format=BAR)


def _in_notebook() -> bool:
    """Whether tqdm would draw a widget."""
    from tqdm.auto import tqdm

    return any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
