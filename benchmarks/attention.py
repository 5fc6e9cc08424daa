"""Attention over rows of different lengths beside other ways to compute it: a training pass each.

    python -m benchmarks.attention [--threads 1] [--rounds 7]

Decoder steps attend to [encoder; the decoder before them], four heads of 16 features that share
their values, as in a Temporal Fusion Transformer of 64. Rounds are interleaved; the table has
medians. The floor is the matrix products of the visible pairs alone, row by row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from ragged_torch import attend
from torch import Tensor, nn

from benchmarks import machine
from ragged import Lengths

RESULTS = Path(__file__).parent / "results" / "attention_cpu.md"
HEADS, SIZE = 4, 16
SHAPES = ((16, 256, 512), (32, 60, 120), (64, 168, 24))  # rows, encoder and decoder


class Case(NamedTuple):
    """A batch: arrays, lengths, and the mask that others need."""

    q: Tensor
    k: Tensor
    v: Tensor
    encoder: np.ndarray
    decoder: np.ndarray
    mask: Tensor


def make_case(rows: int, encoder: int, decoder: int, is_full: bool) -> Case:
    """Draw a batch, of full rows or with about 70 % padding."""
    drawn = np.random.default_rng(0)
    counts = [_lengths(drawn, rows, width, is_full) for width in (encoder, decoder)]
    width = encoder + decoder
    of_e, of_d = (torch.from_numpy(each)[:, None, None] for each in counts)
    query, key = torch.arange(decoder)[None, :, None], torch.arange(width)[None, None]
    mask = (query < of_d) & (key < of_e + of_d) & (key - query <= of_e - 1)
    shapes = (rows, decoder, HEADS, SIZE), (rows, width, HEADS, SIZE), (rows, width, SIZE)
    q, k, v = map(torch.randn, shapes)
    return Case(q, k, v, counts[0], counts[1], mask)


def _lengths(drawn: np.random.Generator, rows: int, width: int, is_full: bool) -> np.ndarray:
    if is_full:
        return np.full(rows, width)
    lengths = np.exp(drawn.normal(size=rows))
    return np.maximum(1, lengths / lengths.max() * width).astype(np.int64)


def ours(case: Case, q: Tensor, k: Tensor, v: Tensor, rate: float) -> Tensor:
    """Attend by ragged."""
    widths = q.shape[1], k.shape[1]
    of_q, of_k = map(Lengths, (case.decoder, case.encoder + case.decoder), widths)
    return attend(q, k, v, of_q, of_k, causal=True, diagonal=-1, dropout=rate, seed=1)[0]


def padded_softmax(case: Case, q: Tensor, k: Tensor, v: Tensor, rate: float) -> Tensor:
    """Attend by a masked softmax over the padded batch."""
    some = case.mask.any(-1, keepdim=True)
    scores = (q.transpose(1, 2) * SIZE**-0.5) @ k.transpose(1, 2).mT
    hidden = ~(case.mask | ~some)[:, None]
    weights = torch.softmax(scores.masked_fill(hidden, float("-inf")), -1)
    return torch.where(some, nn.functional.dropout(weights, rate).mean(1) @ v, 0.0)


def fused(case: Case, q: Tensor, k: Tensor, v: Tensor, rate: float) -> Tensor:
    """Attend by torch's scaled_dot_product_attention with a mask."""
    some = case.mask.any(-1, keepdim=True)
    values = v[:, None].expand(-1, HEADS, -1, -1)
    visible = (case.mask | ~some)[:, None]
    call = q.transpose(1, 2), k.transpose(1, 2), values, visible
    mixed = nn.functional.scaled_dot_product_attention(*call, dropout_p=rate).mean(1)
    return torch.where(some, mixed, 0.0)


def row_by_row(case: Case, q: Tensor, k: Tensor, v: Tensor, rate: float) -> Tensor:
    """Attend row by row, without padding."""
    results = []
    for row, (encoder, queries) in enumerate(zip(case.encoder, case.decoder, strict=True)):
        keys = encoder + queries
        of_q, of_k = (x[row, :n].transpose(0, 1) for x, n in ((q, queries), (k, keys)))
        scores = (of_q * SIZE**-0.5) @ of_k.mT
        hidden = ~case.mask[row, :queries, :keys]
        none = hidden.all(-1, keepdim=True)
        scores = scores.masked_fill(hidden & ~none, float("-inf"))
        weights = nn.functional.dropout(torch.softmax(scores, -1), rate)
        results.append(torch.where(none, 0.0, weights.mean(0) @ v[row, :keys]))
    return torch.cat(results)


def products(case: Case) -> None:
    """Run the products of visible pairs alone, forward and backward."""
    for encoder, queries in zip(case.encoder.tolist(), case.decoder.tolist(), strict=True):
        keys = encoder + queries // 2  # as many pairs as are seen
        q, k = torch.ones(HEADS, queries, SIZE), torch.ones(HEADS, keys, SIZE)
        weights = torch.ones(HEADS, queries, keys)
        for _ in range(2):  # scores, forward and again backward
            torch.matmul(q, k.mT, out=weights)
        weights[0] @ k[0], q[0] @ k[0].mT, weights[0].mT @ q[0]  # of shared values
        weights @ k, weights.mT @ q


WAYS: dict[str, Callable[..., Tensor]] = {
    "ragged": ours,
    "padded softmax": padded_softmax,
    "torch's fused": fused,
    "row by row": row_by_row,
}


def measure(case: Case, rate: float, rounds: int) -> dict[str, float]:
    """Time a training pass of each way, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in (*WAYS, "floor")}
    for _ in range(rounds):
        for name, way in WAYS.items():
            arrays = [x.clone().requires_grad_() for x in case[:3]]
            start = time.perf_counter()
            way(case, *arrays, rate).square().sum().backward()
            times[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        products(case)
        times["floor"].append(time.perf_counter() - start)
    return {name: 1e3 * median(each) for name, each in times.items()}


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    names = (*WAYS, "floor")
    lines = [f"| rows, encoder, decoder | dropout | {' | '.join(names)} |", "|---" * 7 + "|"]
    for shape in SHAPES:
        for is_full in (True, False):
            case = make_case(*shape, is_full)
            for rate in (0.0, 0.1):
                found = measure(case, rate, chosen.rounds)
                padding = 1 - case.decoder.sum() / (shape[0] * shape[2])
                what = f"{shape[0]}, {shape[1]}, {shape[2]}, {padding:.0%} padding"
                cells = " | ".join(f"{found[name]:.1f}" for name in names)
                lines.append(f"| {what} | {rate} | {cells} |")
                print(lines[-1], flush=True)
    title = f"# Attention: a training pass, ms, {chosen.threads} threads\n\n"
    about = machine.describe("cpu")
    where = ", ".join(f"{key} {about[key]}" for key in ("processor", "cores", "torch"))
    RESULTS.write_text("\n".join([f"{title}{where}.\n", *lines]) + "\n")


if __name__ == "__main__":
    main()
