"""Train all six models on the storms with both backends and write the table of their scores.

python -m benchmarks.models --models AttentionLSTM XTFT --backends torch
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import machine
from benchmarks.report import table

RESULTS = Path(__file__).parent / "results"
MODELS = (
    "EncoderDecoderLSTM",
    "AttentionLSTM",
    "TransformerLSTM",
    "TemporalFusionTransformer",
    "PFTemporalFusionTransformer",
    "XTFT",
)
BACKENDS = ("torch", "jax")
HEADS = (
    "model",
    "backend",
    "parameters",
    "R²",
    "RMSE",
    "MAE",
    "pinball",
    "10..90 % band holds",
    "epoch (s)",
    "tokens/s",
    "outside the model",
    "training (s)",
)


def main() -> None:
    """Train what was asked for, one process each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_epochs", type=int, default=None, help="fewer than the default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    results: dict[str, Any] = {"machine": machine.describe(chosen.device), "runs": []}
    with TemporaryDirectory() as folder:
        for model in chosen.models:
            for backend in chosen.backends:
                found = train(Path(folder), model, backend, chosen)
                results["runs"].append(found)
                print(table(HEADS, [cells(found)]).splitlines()[-1], flush=True)
    results["baselines"] = results["runs"][0].pop("baselines")
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / f"models_{chosen.device}.json").write_text(json.dumps(results, indent=1) + "\n")
    text = markdown(results)
    (chosen.out / f"models_{chosen.device}.md").write_text(text)
    print(text)


def train(folder: Path, model: str, backend: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train one model as a user does and read what the run left."""
    command = [sys.executable, "-m", "ragged", "train", "--config", "storms"]
    options = {
        "backend": backend, "model.class_path": model, "trainer.device": chosen.device,
        "seed": chosen.seed, "runs": folder, "name": f"{model}-{backend}",
    }  # fmt: skip
    if chosen.max_epochs is not None:
        options["trainer.max_epochs"] = chosen.max_epochs
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    subprocess.run(command, check=True, capture_output=True)
    (run,) = (folder / f"{model}-{backend}").iterdir()
    scores = json.loads((run / "scores.json").read_text())
    ((target, of_target),) = scores["targets"].items()
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = median(record["seconds"] for record in epochs[1:] or epochs)
    return {
        "model": model,
        "backend": backend,
        "parameters": count_parameters(run),
        **of_target.pop(model),
        "pinball": scores.get("pinball", {}).get(target),
        "coverage": scores.get("coverage", {}).get(target),
        "epoch_seconds": seconds,
        "tokens_per_second": median(r["tokens_per_second"] for r in epochs[1:] or epochs),
        "outside": batching_seconds(run) / seconds,
        "training_seconds": sum(record["seconds"] for record in epochs),
        "baselines": of_target,
    }


def count_parameters(run: Path) -> int:
    """Count the numbers in a run's best checkpoint."""
    from ragged.io import checkpoint

    return sum(
        value.size for value in checkpoint.read(run / "checkpoints/best").parameters.values()
    )


def batching_seconds(run: Path) -> float:
    """How long drawing and collating one epoch's batches takes, the median of five."""
    from ragged.data import batches
    from ragged.runs import folder as runs
    from ragged.runs.parser import train_parser

    config = runs.read_config(run, train_parser())
    data = runs.open_parts(config).data
    times = []
    for epoch in range(5):
        started = time.perf_counter()
        rows = data.train_epoch(config.seed, epoch)
        for _ in batches(rows, data.batch_size, shuffle_seed=config.seed, epoch=epoch):
            pass
        times.append(time.perf_counter() - started)
    return median(times)


def cells(found: dict[str, Any]) -> list[str]:
    """One row of the table."""
    optional = [
        "-" if found["pinball"] is None else f"{found['pinball']:.3f}",
        "-" if found["coverage"] is None else f"{found['coverage']:.0%}",
    ]
    return [
        found["model"],
        found["backend"],
        f"{found['parameters']:,}",
        f"{found['r2']:.3f}",
        f"{found['rmse']:.3f}",
        f"{found['mae']:.3f}",
        *optional,
        f"{found['epoch_seconds']:.2f}",
        f"{found['tokens_per_second']:,.0f}",
        f"{found['outside']:.1%}",
        f"{found['training_seconds']:.0f}",
    ]


def markdown(results: dict[str, Any]) -> str:
    """The whole page: the machine, the models, the baselines."""
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    baselines = [
        [name, "", "", *(f"{score[key]:.3f}" for key in ("r2", "rmse", "mae"))]
        + [""] * (len(HEADS) - 6)
        for name, score in results["baselines"].items()
    ]
    rows: Sequence[Sequence[str]] = [*(cells(found) for found in results["runs"]), *baselines]
    return (
        f"# All models on the storms\n\n{about}. `make models`; scores of log turbidity on the "
        "test events, seed 0.\nAn epoch is the median one, compiling left out; `outside the model` "
        f"is drawing and collating its batches.\n\n{table(HEADS, rows)}\n"
    )


if __name__ == "__main__":
    main()
