"""Fair clocks: everything that is compared runs in turn, and medians are told with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

HOPELESS = 20  # times slower than its rival: one run says enough
LONG = 0.5  # seconds: a first run that long has no cold caches worth a second one
SHORT = 0.2  # seconds: below, it matters that the threads of the run before are still awake
AWAKE = 0.02  # seconds: 300,000 turns of libgomp, which are 17 ms where a pause takes 140 cycles


class Timing(NamedTuple):
    """Seconds: the median of the runs, its quartiles, and the first run, compilation included.

    `runs` says how many the median is of; 1 if one was enough to see that it is far behind.
    """

    median: float
    low: float
    high: float
    first: float
    runs: int = 0


def interleave(
    runs: Mapping[str, Callable[[], object]],
    *,
    budget: float,
    least: int = 3,
    most: int = 15,
    brief: Collection[str] = (),
    rivals: Mapping[str, str] | None = None,
) -> dict[str, Timing]:
    """Time each run in turn, round after round, so that a slow moment of the machine hits all.

    OpenMP's threads wait awake for a while after a call, which slows whoever comes next, while
    one's own that sleep are slow to start. A short run is timed right after more of its own, until
    the others' are asleep.

    Args:
        runs: called without arguments; each returns once its work is done.
        budget: seconds to spend after the first round, about.
        least, most: rounds.
        brief: runs that need no `least` rounds: one, and more while their share of `budget` lasts.
        rivals: whom a run is compared with; a first run of a second that took `HOPELESS` times as
            long as its rival's stays the only one.
    """
    first = {name: _seconds(run) for name, run in runs.items()}
    hopeless = {
        name
        for name, rival in (rivals or {}).items()
        if name in runs and rival in runs and first[name] > max(1.0, HOPELESS * first[rival])
    }
    going = {name: run for name, run in runs.items() if name not in hopeless}
    latest = dict(first)
    for name, run in going.items():
        if name not in brief and first[name] < LONG:
            latest[name] = _seconds(run)  # the first one also filled caches
    times: dict[str, list[float]] = {name: [] for name in going}
    share = budget / max(1, len(going))
    end = time.perf_counter() + budget
    for round_ in range(most):
        if round_ >= least and time.perf_counter() > end:
            break
        for name, run in going.items():
            if name not in brief or round_ == 0 or sum(times[name]) < share:
                if latest[name] < SHORT:  # a first run may have been long because it compiled
                    _repeat(run, AWAKE)
                latest[name] = _seconds(run)
                times[name].append(latest[name])
    times |= {name: [first[name]] for name in hopeless}
    return {name: _summary(times[name], first[name]) for name in runs}


def _repeat(run: Callable[[], object], seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        run()


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _summary(times: list[float], first: float) -> Timing:
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75])
    return Timing(float(median), float(low), float(high), first, len(times))
