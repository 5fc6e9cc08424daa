"""A training step of each model, eager and compiled by torch, on batches of the storms.

python -m benchmarks.compiled --models XTFT
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import ragged
from benchmarks import machine
from benchmarks.epochs import storm_parts
from benchmarks.models import MODELS, RESULTS
from benchmarks.report import table
from benchmarks.timing import interleave
from ragged.data import Batch
from ragged.data.batching import batches

BATCHES = 6  # of different shapes, one after the other in a run
HEADS = ("model", "eager (ms)", "compiled (ms)", "compiled / eager", "warm-up (s)", "graphs")


def main() -> None:
    """Measure what was asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--mode", default="default", help="torch.compile's, e.g. reduce-overhead")
    parser.add_argument("--budget", type=float, default=12.0, help="seconds of a model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    results: dict[str, Any] = {"machine": machine.describe(chosen.device), "models": []}
    for model in chosen.models:
        results["models"].append(measure(model, chosen.device, chosen.mode, chosen.budget))
        print(table(HEADS, [cells(results["models"][-1])]).splitlines()[-1], flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    name = f"compiled_{chosen.device}"
    (chosen.out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    text = (
        f"# Compiled training steps\n\n{about}. `python -m benchmarks.compiled`: forward, loss, "
        f"backward and AdamW over {BATCHES} batches of the storms, each of another shape; medians "
        "of interleaved rounds with quartiles, the milliseconds of one step. The warm-up is what "
        "the first round takes beyond a later one.\n\n"
        f"{table(HEADS, [cells(found) for found in results['models']])}\n"
    )
    (chosen.out / f"{name}.md").write_text(text)
    print(text)


def measure(model: str, device: str, mode: str, budget: float) -> dict[str, Any]:
    """Time a step of one model both ways."""
    import torch
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    with ragged.use_backend("torch"):
        parts = storm_parts(model)
    runs = {"eager": _Step(parts, device, None), "compiled": _Step(parts, device, mode)}
    starting = time.perf_counter()
    losses = {name: run() for name, run in runs.items()}
    assert np.isfinite(list(losses.values())).all()  # that both are equal the tests prove
    first = time.perf_counter() - starting
    found = interleave(runs, budget=budget, least=5, most=31)
    warm_up = first - sum(timing.median for timing in found.values())
    return {
        "model": model,
        "warm-up": warm_up,
        "graphs": counters["stats"]["unique_graphs"],
        **{name: timing._asdict() for name, timing in found.items()},
    }


def cells(found: dict[str, Any]) -> list[str]:
    """One row of the table."""
    shown = [
        "{median:.1f} [{low:.1f}, {high:.1f}]".format(
            **{key: 1e3 * found[way][key] / BATCHES for key in ("median", "low", "high")}
        )
        for way in ("eager", "compiled")
    ]
    ratio = found["compiled"]["median"] / found["eager"]["median"]
    return [found["model"], *shown, f"{ratio:.2f}", f"{found['warm-up']:.0f}", str(found["graphs"])]


class _Step:
    """Training steps over all batches, dropout as it is trained with."""

    def __init__(self, parts: Any, device: str, mode: str | None) -> None:
        import torch

        self.module = copy.deepcopy(parts.model).to(device).train()
        self.run = self.module
        if mode is not None:
            self.run = torch.compile(self.module, fullgraph=True, mode=mode)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-4)
        self.loss = parts.trainer.objective(parts.model.config, parts.data)
        rows = parts.data.train_epoch(0, 0)
        made = islice(batches(rows, parts.data.batch_size, shuffle_seed=0), BATCHES)
        self.batches = [_tensors(batch, device) for batch in made]

    def __call__(self) -> float:
        for arrays, target in self.batches:
            output = self.run(*arrays).output
            total, count = self.loss.total_and_count(output, target, lengths=arrays[3])
            loss = total / count
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return float(loss.detach())


def _tensors(batch: Batch, device: str) -> tuple[tuple[Any, ...], Any]:
    """What a model is called with and the target; lengths stay on the host."""
    import torch

    past, future, target = (
        torch.from_numpy(array).to(device, torch.float32)
        for array in (batch.past, batch.future, batch.target)
    )
    lengths = (batch.encoder_lengths.host, batch.decoder_lengths.host)
    return (past, future, *(torch.from_numpy(each.copy()) for each in lengths)), target


if __name__ == "__main__":
    main()
