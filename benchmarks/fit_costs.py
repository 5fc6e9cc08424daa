"""Fit the constants of `ragged.schedule.Costs` to this machine, and print them.

python -m benchmarks.fit_costs --backend torch                      # our own kernels
python -m benchmarks.fit_costs --backend torch --policy segments    # the framework's
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import ragged
from benchmarks.ours import training_pass
from benchmarks.timing import interleave

SIZES = [(8, 32), (16, 64), (32, 128), (128, 128), (64, 256)]  # input, hidden
ROWS = (1, 4, 16, 64, 256)
STEPS = (16, 128)
MOST = 40e6  # work beyond which a point takes too long


def measure(backend: str, device: str, policy: str) -> list[tuple[Any, ...]]:
    """Time full batches of each size: one dense call, nothing held."""
    found = []
    for inputs, hidden in SIZES:
        runs = {}
        for rows in ROWS:
            for steps in STEPS:
                if rows * steps * hidden * (hidden + inputs) < MOST * 40:
                    lengths = ragged.Lengths([steps] * rows, policy=policy)
                    run = training_pass(backend, lengths, inputs, hidden, 1, device=device)
                    runs[rows, steps] = run
        times = interleave({str(k): run for k, run in runs.items()}, budget=4.0, most=9)
        found += [(inputs, hidden, *k, times[str(k)].median) for k in runs]
    return found


def fit(points: list[tuple[Any, ...]]) -> dict[str, float]:
    """Least squares of the relative error, all constants 0 or more.

    seconds = call + steps * step + rate * steps * (rows + thin) * (product + gates * hidden)
    """
    from scipy.optimize import least_squares

    inputs, hidden, rows, steps, seconds = map(np.array, zip(*points, strict=True))

    def error(logs: np.ndarray) -> np.ndarray:
        call, step, rate, thin, gates = np.exp(logs)
        work = hidden * (hidden + inputs) + gates * hidden
        return np.log((call + steps * (step + rate * (rows + thin) * work)) / seconds)

    start = np.log([1e-4, 1e-5, 3e-10, 3.0, 30.0])
    solved = least_squares(error, start, loss="soft_l1", bounds=(start - 7, start + 4))
    names = ("call", "step", "rate", "thin", "gates")
    spread = float(np.exp(np.median(np.abs(solved.fun))) - 1)
    return {**dict(zip(names, np.exp(solved.x).tolist(), strict=True)), "median error": spread}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--policy", choices=("auto", "segments"), default="auto")
    chosen = parser.parse_args()
    measured = measure(chosen.backend, chosen.device, chosen.policy)
    for point in measured:
        print(*point)
    print({name: float(f"{value:.3g}") for name, value in fit(measured).items()})
