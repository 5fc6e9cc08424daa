"""The metrics of a run: a line of JSON and TensorBoard's scalars for each epoch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ragged.io.checkpoint import write_file
from ragged.io.safe_json import finite_or_none


class MetricLogger:
    """The records of a run's epochs, in `metrics.jsonl` and in `tensorboard/`.

    Args:
        folder: the run's.
        epoch: finished epochs; records of later ones, of a killed run, are dropped.
    """

    def __init__(self, folder: Path, epoch: int = 0) -> None:
        from tensorboardX import SummaryWriter

        self.path = folder / "metrics.jsonl"
        lines = self.path.read_text(errors="replace").splitlines() if self.path.exists() else []
        earlier = [line for line in lines if _epoch_of(line) <= epoch]
        write_file(self.path, "".join(f"{line}\n" for line in earlier).encode())
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=epoch + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Add an epoch's record; what is not finite is null."""
        plain = {name: finite_or_none(value) for name, value in record.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(plain) + "\n")
        for name, value in plain.items():
            if name != "epoch" and isinstance(value, (int, float)):
                self.board.add_scalar(name, value, record["epoch"])
        self.board.flush()

    def close(self) -> None:
        """Flush and close TensorBoard's writer."""
        self.board.close()


def _epoch_of(line: str) -> float:
    """Return the epoch of a record; infinity for a truncated line."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
