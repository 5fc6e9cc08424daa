"""The grid: sizes of layers times ways in which the lengths of a batch are spread."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ragged.data import Storms
from ragged.recurrent.shape import RecurrentShape

KINDS = ("uniform", "log-normal", "third..full", "equal", "one long", "storms")


@dataclass(frozen=True)
class Case:
    """An LSTM and the padded batch that it reads."""

    batch: int
    width: int
    inputs: int
    hidden: int
    layers: int
    bidirectional: bool = False

    @property
    def name(self) -> str:
        """What a table and `--only` call it."""
        sizes = (self.batch, self.width, self.inputs, self.hidden, self.layers)
        return ", ".join(map(str, sizes)) + (", both ways" if self.bidirectional else "")

    @property
    def directions(self) -> int:
        """1, or 2 if rows are read both ways."""
        return 1 + self.bidirectional

    @property
    def shape(self) -> RecurrentShape:
        """The layer's parameters."""
        return RecurrentShape(
            self.inputs, self.hidden, self.layers, bidirectional=self.bidirectional
        )

    @property
    def layer_inputs(self) -> list[int]:
        """The features that each layer reads in each direction."""
        later = [self.hidden * self.directions] * (self.layers - 1)
        return [size for size in (self.inputs, *later) for _ in range(self.directions)]


CASES = (
    Case(32, 300, 8, 128, 2),
    Case(32, 128, 32, 128, 1),
    Case(128, 256, 16, 64, 1),
    Case(64, 512, 64, 256, 1),
    Case(16, 512, 8, 32, 1),
    Case(256, 64, 32, 128, 1),
    Case(8, 2048, 4, 64, 1),
    Case(32, 128, 32, 128, 2, bidirectional=True),
)
QUICK_CASES = (Case(32, 128, 32, 128, 1), Case(16, 512, 8, 32, 1))
QUICK_KINDS = ("log-normal", "equal", "storms")


def lengths_of(case: Case, kind: str) -> np.ndarray:
    """Draw the lengths of a batch; the first row fills the width, whatever the kind."""
    rng = np.random.default_rng([KINDS.index(kind), case.batch, case.width])
    batch, width = case.batch, case.width
    if kind == "uniform":
        lengths = rng.integers(1, width + 1, batch)
    elif kind == "log-normal":
        lengths = np.exp(rng.normal(np.log(width / 6), 0.8, batch)).astype(np.int64)
    elif kind == "third..full":
        lengths = rng.integers(width // 3, width + 1, batch)
    elif kind == "equal":
        lengths = np.full(batch, width)
    elif kind == "one long":
        lengths = rng.integers(1, width // 16 + 1, batch)
    else:
        events = rng.choice(_storm_lengths(), batch)
        lengths = np.round(events * (width / events.max())).astype(np.int64)
    lengths = np.clip(lengths, 1, width)
    lengths[0] = width
    return lengths


@cache
def _storm_lengths() -> np.ndarray:
    return np.array([event.steps for event in Storms().events()])
