"""What JAX has compiled: forgotten before a long session has more of it than a process may map."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

MAPS, LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
TESTS_BETWEEN = 8  # a test compiles a hundred programs at the most; counting takes milliseconds

_tests = itertools.count(1)


def forget_if_crowded() -> None:
    """Drop JAX's programs when half of the memory maps that Linux allows are taken.

    Each program takes about nine, and XLA ends the process without a word when there are no more:
    `LLVM compilation error: Cannot allocate memory`, then a segmentation fault. To be called after
    every test.
    """
    if next(_tests) % TESTS_BETWEEN == 0 and "jax" in sys.modules and MAPS.exists():
        with MAPS.open("rb") as maps:
            taken = sum(1 for _ in maps)
        if taken > int(LIMIT.read_text()) // 2:
            sys.modules["jax"].clear_caches()
