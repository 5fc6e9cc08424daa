"""Dropping JAX's compiled programs before a long session exceeds the limit of memory maps."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

MAPS, LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
TESTS_BETWEEN = 8  # a test compiles a hundred programs at the most; counting takes milliseconds

_tests = itertools.count(1)


def forget_if_crowded() -> None:
    """Drop JAX's programs when half of the memory maps that Linux allows are in use.

    Each program takes about nine. Without any left XLA crashes: `LLVM compilation error: Cannot
    allocate memory`, then a segmentation fault. To be called after every test.
    """
    if next(_tests) % TESTS_BETWEEN == 0 and "jax" in sys.modules and MAPS.exists():
        with MAPS.open("rb") as maps:
            count = sum(1 for _ in maps)
        if count > int(LIMIT.read_text()) // 2:
            sys.modules["jax"].clear_caches()
