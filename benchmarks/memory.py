"""Peak memory of one training step, each in a process of its own.

python -m benchmarks.memory "torch auto" 64,512,64,256,1 log-normal
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case, lengths_of
from benchmarks.machine import FRAMEWORKS
from benchmarks.suite import Suite

CHOSEN = ((CASES[3], "log-normal"), (CASES[0], "storms"))
NAMES = ["torch auto", "torch never", "torch padded", "torch PackedSequence"]
NAMES += ["jax auto", "jax never", "jax OptimizedLSTMCell"]
TOO_SLOW = {(CASES[3].name, "torch PackedSequence")}
TINY = Case(4, 8, 4, 8, 1)
MIB = 2**20


def measure(
    device: str, quick: bool, frameworks: Sequence[str] = FRAMEWORKS
) -> list[dict[str, Any]]:
    """Measure the chosen cases; the processes do not wait for each other, for none is timed."""
    chosen = CHOSEN[1:] if quick else CHOSEN
    names = [name for name in NAMES if name.split()[0] in frameworks]
    jobs = [(c, kind, name) for c, kind in chosen for name in names]
    jobs = [job for job in jobs if (job[0].name, job[2]) not in TOO_SLOW]
    with ThreadPoolExecutor(1 if device == "cuda" else 2) as pool:
        found = list(pool.map(lambda job: _in_process(job[0], job[1], job[2], device), jobs))
    return [
        {"case": c.name, "kind": kind, "name": name, **values}
        for (c, kind, name), values in zip(jobs, found, strict=True)
    ]


def step_memory(case: Case, kind: str, name: str, device: str) -> dict[str, float]:
    """Count the bytes that one training step adds at its peak, in MiB.

    The layer, its input and the factor are there before; gradients, outputs and whatever is kept
    for the backward pass are not. A tiny step goes ahead, for what a framework loads only once.
    """
    Suite(TINY, device, {}).make(name, lengths_of(TINY, kind))()
    lengths = lengths_of(case, kind)
    run = Suite(case, device, {}).prepare(name, lengths)
    return {"mib": _cuda_peak(run, name)} if device == "cuda" else peak_of(run)


def peak_of(run: Callable[[], object]) -> dict[str, float]:
    """Count what a run adds to this process at its peak, on a CPU, in MiB."""
    gc.collect()
    _give_back()
    exact = _reset_peak()
    before = _resident() if exact else _highest()
    run()
    return {"mib": round((_highest() - before) / MIB, 1), "before": round(before / MIB, 1)}


def _in_process(case: Case, kind: str, name: str, device: str) -> dict[str, float]:
    sizes = (case.batch, case.width, case.inputs, case.hidden, case.layers)
    return in_process("benchmarks.memory", name, ",".join(map(str, sizes)), kind, device)


def in_process(module: str, *arguments: str) -> dict[str, float]:
    """Run a module in a process of its own; what its last line says, or the last of its error."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}  # type: ignore[dict-item]
    return json.loads(done.stdout.splitlines()[-1])


def _highest() -> float:
    """The most memory that this process ever held, in bytes.

    Linux hands `ru_maxrss` down from the process that started this one, so its own mark is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text()).group(1)) * 1024  # type: ignore[union-attr]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _reset_peak() -> bool:
    """Begin to count the most memory anew, or say that the system cannot.

    Compiling needs more than a small step does; without this it would hide the step.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _highest() < _resident() + 8 * MIB


def _give_back() -> None:
    """Return what was freed to the system, or a step could take it without being seen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _cuda_peak(run: Any, name: str) -> float:
    if name.startswith("torch"):
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return round((torch.cuda.max_memory_allocated() - before) / MIB, 1)
    import jax

    device = jax.devices("gpu")[0]
    before = device.memory_stats()["bytes_in_use"]
    run()
    return round((device.memory_stats()["peak_bytes_in_use"] - before) / MIB, 1)


if __name__ == "__main__":
    chosen_name, numbers, chosen_kind, *rest = sys.argv[1:]
    batch, width, inputs, hidden, layers = map(int, numbers.split(","))
    chosen_case = Case(batch, width, inputs, hidden, layers)
    print(json.dumps(step_memory(chosen_case, chosen_kind, chosen_name, *(rest or ["cpu"]))))
