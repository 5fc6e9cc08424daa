"""Time a training step of our models beside the same graphs with padding, in one process.

    python -m benchmarks.models_peers --models TemporalFusionTransformer --threads 1
    python -m benchmarks.models_peers --quick      # one tiny batch, to see that it runs

The TFT runs beside pytorch-forecasting's module, which asks for an older pandas than ours, so:

    pip install --no-deps pytorch-forecasting lightning pytorch-lightning lightning-utilities \\
        torchmetrics scikit-base scikit-learn joblib threadpoolctl cloudpickle

It drops no attention weights, so ours are timed with and without; where it is not installed, ours
run alone. The other models run beside the graphs of `plain_models`. The floor, `models_floor`, is
the matrix products of ours. Peak memory is what a step adds, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.memory import in_process, peak_of
from benchmarks.report import table
from benchmarks.timing import interleave

RESULTS = Path(__file__).parent / "results"
SHAPES = ((32, 60, 120, 64), (64, 168, 24, 32), (16, 256, 512, 64))
KINDS = ("full", "log-normal")
MODELS = ("TemporalFusionTransformer", "AttentionLSTM", "TransformerLSTM")
PAST, FUTURE, RATE = 6, 4, 0.1
HEADS = (
    "model",
    "batch, encoder, decoder, hidden",
    "lengths",
    "ours (ms)",
    "peer (ms)",
    "peer / ours",
    "floor (ms)",
    "ours / floor",
    "ours (MiB)",
    "peer (MiB)",
)
TINY = (4, 6, 8, 8)
OURS, UNDROPPED, PEER, ON_JAX = "ours", "ours, weights not dropped", "peer", "ours on JAX"
Step = Callable[[], object]


def main() -> None:
    """Time what was asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for each line")
    parser.add_argument("--jax", action="store_true", help="time the models on JAX too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a tiny batch, nothing is written")
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(chosen.threads))
    if hasattr(os, "sched_setaffinity"):  # XLA takes a thread for each core that there is
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.threads])
    import torch

    torch.set_num_threads(chosen.threads)
    if chosen.memory:
        print(json.dumps(step_memory(*chosen.memory)))
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    shapes, budget = ((TINY,), 0.0) if chosen.quick else (SHAPES, chosen.budget)
    rows = [
        row
        for model in chosen.models
        for shape in shapes
        for kind in KINDS
        for row in compare(model, shape, kind, budget, with_jax=chosen.jax)
    ]
    if chosen.quick:
        return
    about = ", ".join(f"{key} {value}" for key, value in machine.describe("cpu").items())
    text = f"# Models beside padded ones\n\n{about}, {chosen.threads} threads.\n\n"
    text += "Medians of interleaved training steps, forward, backward and AdamW, and the MiB that "
    text += "a step adds at its peak.\n\n"
    text += f"{table(HEADS, rows)}\n"
    (chosen.out / f"models_peers_cpu_{chosen.threads}.md").write_text(text)


def lengths_of(kind: str, batch: int, width: int) -> np.ndarray:
    """Give full lengths, or log-normal ones that leave 67 % of the steps as padding."""
    if kind == "full":
        return np.full(batch, width)
    drawn = np.random.default_rng(width).lognormal(size=batch)
    low, high = 0.0, float(width)
    for _ in range(60):  # the scale at which a third of the steps is valid
        scale = (low + high) / 2
        is_short = np.clip(drawn * scale, 1, width).mean() < width / 3
        low, high = (scale, high) if is_short else (low, scale)
    return np.clip(np.round(drawn * low), 1, width).astype(np.int64)


def compare(
    model: str, shape: tuple[int, ...], kind: str, budget: float, *, with_jax: bool
) -> list[list[str]]:
    """Time one model and its peer on one batch, with what ours does with attention weights."""
    names = [OURS, UNDROPPED, *([PEER] if has_peer(model) else []), *([ON_JAX] if with_jax else [])]
    runs = {name: make_step(name, model, shape, kind) for name in names}
    found = interleave(runs | {"floor": make_step("floor", model, shape, kind)}, budget=budget)
    mib = {name: memory_of(name, model, shape, kind) for name in names}
    floor, peer = found["floor"].median, found[PEER].median if PEER in names else math.nan
    rows = []
    for name in names:
        if name != PEER:
            ours, label = found[name].median, f"{model}{name.removeprefix(OURS)}"
            times = f"{1e3 * ours:.0f}", f"{1e3 * peer:.0f}", f"{peer / ours:.2f}"
            beside = f"{1e3 * floor:.0f}", f"{ours / floor:.2f}"
            memory = f"{mib[name]:.0f}", f"{mib.get(PEER, math.nan):.0f}"
            rows.append([label, ", ".join(map(str, shape)), kind, *times, *beside, *memory])
            print(*rows[-1], sep=" | ", flush=True)
    return rows


def has_peer(model: str) -> bool:
    """Whether a model's peer is installed."""
    return model != "TemporalFusionTransformer" or find_spec("pytorch_forecasting") is not None


def make_step(name: str, model: str, shape: tuple[int, ...], kind: str) -> Step:
    """Give a training step of one contestant, or the floor."""
    from benchmarks import plain_models

    batch, encoder, decoder, hidden = shape
    sizes = (batch, encoder, decoder)
    call = (
        model,
        sizes,
        hidden,
        (lengths_of(kind, batch, encoder), lengths_of(kind, batch, decoder)),
    )
    if name == "floor":
        from benchmarks.models_floor import model_floor

        return model_floor(*our_step(*call))
    if name == PEER:
        return plain_models.step(*call)
    return jax_step(*call) if name == ON_JAX else our_step(*call, drops_weights=name == OURS)[1]


def memory_of(name: str, model: str, shape: tuple[int, ...], kind: str) -> float:
    """Count what a training step adds at its peak, in a process of its own, in MiB."""
    told = name, model, ",".join(map(str, shape)), kind
    found = in_process("benchmarks.models_peers", "--memory", *told)
    if "error" in found:
        print(name, model, found["error"])
    return found.get("mib", math.nan)


def step_memory(name: str, model: str, sizes: str, kind: str) -> dict[str, float]:
    """Count it in this one; a step goes ahead, which compiles and fills what stays."""
    run = make_step(name, model, tuple(map(int, sizes.split(","))), kind)
    run()
    return peak_of(run)


def batch_of(
    sizes: tuple[int, int, int], outputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw past, future and target."""
    batch, encoder, decoder = sizes
    rng = np.random.default_rng(0)
    shapes = (batch, encoder, PAST), (batch, decoder, FUTURE), (batch, decoder, outputs)
    past, future, target = (rng.normal(size=each).astype(np.float32) for each in shapes)
    return past, future, target


def build(model: str, encoder: int, hidden: int, backend: str) -> Any:
    """Build one of our models."""
    import ragged

    options: dict[str, Any] = {"hidden_size": hidden, "dropout": RATE, "seed": 0}
    if model == "TemporalFusionTransformer":
        options |= {"context_length": encoder, "encoder_alignment": "left"}
    with ragged.use_backend(backend):
        return getattr(ragged.models, model)(PAST, FUTURE, **options)


def our_step(
    model: str,
    sizes: tuple[int, int, int],
    hidden: int,
    counts: tuple[np.ndarray, np.ndarray],
    *,
    drops_weights: bool = True,
) -> tuple[Any, Step]:
    """Give our model on torch, and a training step of it."""
    import torch
    from ragged_torch.attention import InterpretableAttention

    from ragged import Lengths

    module = build(model, sizes[1], hidden, "torch")
    for part in module.modules():
        if isinstance(part, InterpretableAttention) and not drops_weights:
            part.weights_dropout = 0.0
    past, future, target = map(torch.from_numpy, batch_of(sizes, module.config.output_size))
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    valid = (torch.arange(sizes[2]) < torch.from_numpy(counts[1])[:, None])[..., None]

    def step() -> float:
        lengths = [Lengths(each, width) for each, width in zip(counts, sizes[1:], strict=True)]
        output = module(past, future, *lengths).output
        loss = torch.where(valid, (output - target) ** 2, 0.0).sum() / math.prod(sizes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return module, step


def jax_step(
    model: str, sizes: tuple[int, int, int], hidden: int, counts: tuple[np.ndarray, np.ndarray]
) -> Step:
    """Give a training step of our model on JAX."""
    import jax
    import jax.numpy as jnp
    import optax
    import ragged_jax
    from flax import nnx

    from ragged import Lengths
    from ragged.ops.tokens import token_capacity

    module = build(model, sizes[1], hidden, "jax")
    past, future, target = map(jnp.asarray, batch_of(sizes, module.config.output_size))
    lengths = [Lengths(each, width) for each, width in zip(counts, sizes[1:], strict=True)]
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    transform = optax.adamw(1e-3)
    tokens, steps = [each.tokens for each in lengths], [sizes[0] * each for each in sizes[1:]]
    room = {"token_capacity": token_capacity(tokens, steps)}

    def loss_of(params: Any, lengths: Any) -> Any:
        output = nnx.merge(graph, params, rest, copy=True)(past, future, *lengths, **room).output
        valid = (jnp.arange(sizes[2]) < lengths[1].leaf[:, None])[..., None]
        return jnp.where(valid, (output - target) ** 2, 0.0).sum() / math.prod(sizes)

    @ragged_jax.jit
    def advance(params: Any, moments: Any, lengths: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(params, lengths)
        updates, moments = transform.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    state = [params, transform.init(params)]

    def step() -> float:
        *state[:], loss = advance(*state, lengths)
        return float(loss)

    return step


if __name__ == "__main__":
    main()
