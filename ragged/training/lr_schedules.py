"""Learning rates over a run: pure functions of the step and of the validation losses so far."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ragged.checks import check


class LRSchedule(ABC):
    """The factor of the optimiser's learning rate at each step."""

    @abstractmethod
    def multiplier(self, step: int, steps: int, losses: Sequence[float] = ()) -> float:
        """Return the factor of a step.

        Args:
            step: counted from 0.
            steps: the number of steps of the whole run.
            losses: the validation loss of each finished epoch.
        """


@dataclass(frozen=True)
class Constant(LRSchedule):
    """A constant learning rate.

    >>> Constant().multiplier(7, steps=10)
    1.0
    """

    def multiplier(self, step: int, steps: int, losses: Sequence[float] = ()) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class WarmupCosine(LRSchedule):
    """The learning rate rises along a line, then falls along half a cosine.

    Args:
        warmup_steps: steps until it is full; the first one has `1 / (warmup_steps + 1)` of it.
        decay_steps: steps from there until it is at `min_lr_ratio`; None = the rest of the run.
        min_lr_ratio: the share of it that is left in the end, 0 to 1.

    Raises:
        OptionError: a negative number of steps, no decay steps, a share outside 0..1.

    >>> schedule = WarmupCosine(warmup_steps=1)
    >>> [round(schedule.multiplier(step, steps=5), 3) for step in range(6)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    warmup_steps: int = 0
    decay_steps: int | None = None
    min_lr_ratio: float = 0.0

    def __post_init__(self) -> None:
        check(self, "warmup_steps", self.warmup_steps >= 0, "0 or more")
        check(self, "decay_steps", self.decay_steps is None or self.decay_steps >= 1, "1 or more")
        check(self, "min_lr_ratio", 0 <= self.min_lr_ratio <= 1, "0 to 1")

    def multiplier(self, step: int, steps: int, losses: Sequence[float] = ()) -> float:
        """Return the factor of a step."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        decay_steps = self.decay_steps or max(1, steps - self.warmup_steps)
        progress = min((step - self.warmup_steps) / decay_steps, 1.0)
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class ReduceLROnPlateau(LRSchedule):
    """The learning rate is cut whenever the validation loss has stopped falling.

    Args:
        factor: what it is multiplied by each time, above 0 and below 1.
        patience: epochs without a new lowest loss before each cut, 1 or more.
        threshold: the share by which a loss must be below the lowest to count, 0 or more.
        min_lr_ratio: the share of it below which it never falls, 0 to 1.

    Raises:
        OptionError: an argument outside its range.

    >>> schedule = ReduceLROnPlateau(factor=0.5, patience=2)
    >>> [schedule.multiplier(0, 9, [3.0, 2.0, 2.5, 2.1, 2.2, 2.3][:epochs]) for epochs in range(7)]
    [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    """

    factor: float = 0.5
    patience: int = 5
    threshold: float = 1e-4
    min_lr_ratio: float = 0.0

    def __post_init__(self) -> None:
        check(self, "factor", 0 < self.factor < 1, "above 0 and below 1")
        check(self, "patience", self.patience >= 1, "1 or more")
        check(self, "threshold", self.threshold >= 0, "0 or more")
        check(self, "min_lr_ratio", 0 <= self.min_lr_ratio <= 1, "0 to 1")

    def multiplier(self, step: int, steps: int, losses: Sequence[float] = ()) -> float:
        """Return the factor after these losses; the step does not matter."""
        lowest, num_bad_epochs, factor = math.inf, 0, 1.0
        for loss in losses:
            if math.isnan(loss):
                continue  # an epoch without known validation targets
            num_bad_epochs += 1
            margin = self.threshold * abs(lowest) if lowest < math.inf else 0.0
            if loss < lowest - margin:
                lowest, num_bad_epochs = loss, 0
            if num_bad_epochs == self.patience:
                factor, num_bad_epochs = max(factor * self.factor, self.min_lr_ratio), 0
        return factor
