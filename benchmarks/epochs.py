"""Whole training epochs: the packaged `storms` configuration, and one of random lengths."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any
from unittest.mock import patch

import numpy as np

import ragged
from benchmarks.machine import FRAMEWORKS
from ragged import losses
from ragged.data import Batch, RaggedDataset
from ragged.data.batching import batches, collate
from ragged.data.sample import Sample
from ragged.data.sources import Series
from ragged.lengths import Lengths
from ragged.models import EncoderDecoderLSTM
from ragged.training.optimizers import AdamW

SEED = 0
RANDOM_BATCHES, RANDOM_BATCH, RANDOM_WIDTH, RANDOM_BUCKETS = 200, 32, 256, 7


def our_batches(
    dataset: RaggedDataset, batch_size: int, epoch: int, buckets: int = 4
) -> Iterator[Batch]:
    """The library's own batches of an epoch, as `ragged train` makes them."""
    return batches(dataset, batch_size, shuffle_seed=SEED, epoch=epoch, buckets=buckets)


def padded_batches(dataset: RaggedDataset, batch_size: int, epoch: int) -> Iterator[Batch]:
    """Batches in random order, all as wide as the longest row of all: what most code does."""
    order = np.random.default_rng([SEED, epoch]).permutation(len(dataset))
    encoder, decoder = dataset.lengths.max(0)
    for start in range(0, len(order), batch_size):
        rows = [dataset[int(place)] for place in order[start : start + batch_size]]
        side = dataset.encoder_alignment or "left"
        batch = collate(rows, batch_size=batch_size, encoder_alignment=side)
        yield _widen(batch, int(encoder), int(decoder))


def _widen(batch: Batch, encoder: int, decoder: int) -> Batch:
    def wide(array: np.ndarray, lengths: Lengths, width: int, side: str) -> np.ndarray:
        result = np.zeros((len(array), width, array.shape[2]), array.dtype)
        for row, count in enumerate(lengths.host):
            source = array[row, len(array[row]) - count :] if side == "right" else array[row]
            start = width - count if side == "right" else 0
            result[row, start : start + count] = source[:count]
        return result

    return replace(
        batch,
        past=wide(batch.past, batch.encoder_lengths, encoder, batch.encoder_alignment),
        future=wide(batch.future, batch.decoder_lengths, decoder, "left"),
        target=wide(batch.target, batch.decoder_lengths, decoder, "left"),
        encoder_lengths=Lengths(batch.encoder_lengths.host, encoder, "never"),
        decoder_lengths=Lengths(batch.decoder_lengths.host, decoder, "never"),
    )


@contextmanager
def padded_rows(backend: str) -> Iterator[None]:
    """Let models on torch compute whole rows: with lengths at hand they take the tokens alone."""
    if backend != "torch":
        yield
        return
    from ragged_torch.tokens import BothSides, Steps

    def whole(past: Any, future: Any, encoder: Lengths, decoder: Lengths, *_: Any) -> BothSides:
        return BothSides(Steps(encoder, past), Steps(decoder, future))

    with patch.object(BothSides, "of", whole):
        yield


def storms(backend: str, device: str, epochs: int = 2) -> dict[str, Any]:
    """Time epochs of `ragged train --config storms`, ours and padded in turn."""
    times: dict[str, list[float]] = {"ours": [], "padded": []}
    with ragged.use_backend(backend):
        runs = {"ours": _StormRun(our_batches, device), "padded": _StormRun(padded_batches, device)}
        layouts: dict[str, Callable[[], AbstractContextManager[None]]]
        layouts = {"ours": nullcontext, "padded": partial(padded_rows, backend)}
        starting = {}
        for name, run in runs.items():
            with layouts[name]():
                starting[name] = run.validation_loss()
                run.epoch(0, most=None if name == "ours" else 1)  # compile every shape
        for epoch in range(1, epochs + 1):
            for name, run in runs.items():
                with layouts[name]():
                    times[name].append(run.epoch(epoch))
        filler = {name: run.waste() for name, run in runs.items()}
    return {
        "backend": backend,
        "seconds": times,
        "ratio": sum(times["padded"]) / sum(times["ours"]),
        "loss before training": starting,  # the same rows and parameters: the same number
        "train loss": {name: run.loss for name, run in runs.items()},
        "waste": filler,
        "programs": {name: programs(run.step) for name, run in runs.items()},
    }


def storm_parts(model: str = "EncoderDecoderLSTM") -> Any:
    """Build model, data and trainer as `ragged train --config storms` does, on the chosen backend.

    Args:
        model: the name of one of `ragged.models`, with the configuration's own sizes.
    """
    from ragged.runs import folder as runs
    from ragged.runs.config import load_config
    from ragged.runs.parser import CONFIGS, parse, train_parser

    parser, config = train_parser(), load_config(CONFIGS / "storms.yaml")
    config["model"]["class_path"] = f"ragged.models.{model}"
    parts = runs.instantiate(parse(parser, config), parser)
    parts.data.encoder_alignment = parts.model.config.encoder_alignment
    parts.data.setup()
    return parts


class _StormRun:
    """The packaged configuration, built as the command line builds it, with batches of a kind."""

    def __init__(self, make: Any, device: str) -> None:
        parts = storm_parts()
        self.make, self.data, self.device = make, parts.data, device
        self.step = ragged.backend.get_backend().TrainingStep(
            parts.model,
            parts.trainer.objective(parts.model.config, self.data),
            parts.trainer.optimizer,
            max_grad_norm=parts.trainer.max_grad_norm,
            seed=SEED,
            device=device,
            dtype=parts.trainer.precision,
        )
        self.made: list[Batch] = []
        self.loss = float("nan")

    def epoch(self, epoch: int, most: int | None = None) -> float:
        """Train on `most` batches of an epoch, or all; the seconds, making batches included."""
        rows = self.data.train_epoch(SEED, epoch)
        start, values, self.made = time.perf_counter(), [], []
        for batch in islice(self.make(rows, self.data.batch_size, epoch), most):
            values.append(self.step.launch(batch))  # as training does, which reads it later
            self.made.append(batch)
        values = [float(value) for value in values]
        seconds = time.perf_counter() - start
        counts = [batch.decoder_lengths.tokens for batch in self.made]
        self.loss = float(np.average(values, weights=counts))
        return seconds

    def waste(self) -> dict[str, float]:
        """What was computed beyond the real tokens in the last epoch."""
        return waste(self.made, self.device, self.step.model.config.hidden_size)

    def validation_loss(self) -> float:
        """The mean loss over the validation rows' steps."""
        made = self.make(self.data.validation, self.data.batch_size, 0)
        totals, counts = zip(*map(self.step.evaluate, made), strict=True)
        return float(sum(totals) / sum(counts))


def random_lengths(device: str, quick: bool) -> dict[str, Any]:
    """Count what an epoch of 200 batches of random lengths compiles, and its filler, on JAX."""
    dataset = _random_dataset(RANDOM_BATCHES // (10 if quick else 1) * RANDOM_BATCH)
    with ragged.use_backend("jax") as backend:
        model = EncoderDecoderLSTM(
            past_features=3, future_features=2, hidden_size=128, num_layers=1, seed=SEED
        )
        sides = {"seed": SEED, "device": device, "dtype": "float32"}
        step = backend.TrainingStep(model, losses.mse, AdamW(), **sides)
        seconds, made = [], []
        for batch in our_batches(dataset, RANDOM_BATCH, 0, RANDOM_BUCKETS):
            start = time.perf_counter()
            step.step(batch)
            seconds.append(time.perf_counter() - start)
            made.append(batch)
        filler = waste(made, device, model.config.hidden_size)
    return {
        "batches": len(made),
        "programs": programs(step),
        "first step": seconds[0],
        "median step": float(np.median(seconds)),
        "seconds": sum(seconds),
        "waste": filler,
        "widths": sorted({(b.encoder_lengths.width, b.decoder_lengths.width) for b in made}),
    }


def waste(made: list[Batch], device: str, hidden_size: int) -> dict[str, float]:
    """What a model's layers compute beyond the real tokens, as a share: by arrays, as run."""
    sides = [side for b in made for side in (b.encoder_lengths, b.decoder_lengths)]
    tokens = sum(side.tokens for side in sides)
    padded = sum(len(side) * side.width for side in sides)
    computed = sum(_computed(side, device, hidden_size) for side in sides)
    return {"arrays": padded / tokens - 1, "computed": computed / tokens - 1}


def programs(step: Any) -> int | None:
    """How many training programs a step has compiled; None where nothing is compiled."""
    cached = getattr(step._differentiate, "_cache_size", None)
    return None if cached is None else cached()


def measure(device: str, quick: bool, frameworks: Sequence[str] = FRAMEWORKS) -> dict[str, Any]:
    """Run all of it, and print a line of each; random lengths on JAX alone, which compiles."""
    storm_runs = []
    for backend in frameworks:
        storm_runs.append(storms(backend, device, epochs=1 if quick else 2))
        print(f"storm epoch, {backend}: padded / ours {storm_runs[-1]['ratio']:.2f}", flush=True)
    results: dict[str, Any] = {"storms": storm_runs}
    if "jax" in frameworks:
        results["random lengths"] = random_lengths(device, quick)
        print(f"random lengths: {results['random lengths']}", flush=True)
    return results


def _computed(lengths: Lengths, device: str, hidden_size: int) -> int:
    """The steps of rows that a layer of the backend computes on a device."""
    from ragged.backend import get_backend
    from ragged.recurrent.dispatch import computed_steps
    from ragged.recurrent.explain import recurrent_implementation

    runs = recurrent_implementation(get_backend(), lengths, device, hidden_size)
    return computed_steps(runs, lengths)


def _random_dataset(count: int) -> RaggedDataset:
    rng = np.random.default_rng(SEED)
    steps = np.exp(rng.normal(np.log(RANDOM_WIDTH / 6), 0.8, (count, 2))).astype(np.int64)
    steps = np.clip(steps, 1, RANDOM_WIDTH)
    event = Series("random", np.arange(2.0), {})
    rows = []
    for past, future in steps:
        arrays = [rng.normal(size=(n, k)) for n, k in ((past, 3), (future, 2), (future, 1))]
        rows.append(Sample(arrays[0], arrays[1], arrays[2], event, split=int(past)))
    return RaggedDataset(rows)
