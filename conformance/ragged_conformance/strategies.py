"""What the random cases are drawn from, and the profile that draws them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import PADDING_VALUES, POLICIES

Strategy = st.SearchStrategy[Any]

SIDES = ("left", "right")


def load_profile(*, exhaustive: bool) -> None:
    """Load the suite's hypothesis profile.

    Every run and every worker draws the same cases.
    """
    # An unwritable path disables the cache, which would otherwise lie in the working folder.
    if "HYPOTHESIS_STORAGE_DIRECTORY" not in os.environ:
        set_hypothesis_home_dir(Path(os.devnull) / "hypothesis")
    settings.register_profile(
        "ragged",
        max_examples=200 if exhaustive else 8,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=True,
        # Cases are small as they are drawn; to shrink them takes minutes where much has failed.
        phases=set(Phase) - (set() if exhaustive else {Phase.shrink, Phase.explain}),
        # The adapter fixture holds no state; compilers and small machines are slow.
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    settings.load_profile("ragged")


def lengths(rows: int, width: int) -> Strategy:
    """Lengths of a batch: any, and those that expose off-by-ones, ties and shortcuts."""

    def rows_of(element: Strategy) -> Strategy:
        return st.lists(element, min_size=rows, max_size=rows)

    any_length = st.integers(0, width)
    edges = st.sampled_from((0, 1, width))
    ties = st.tuples(any_length, any_length).flatmap(lambda two: rows_of(st.sampled_from(two)))
    equal = any_length.map(lambda length: [length] * rows)
    full = st.just([width] * rows)
    long_among_short = st.integers(0, max(rows - 1, 0)).map(
        lambda long: [width if row == long else 1 for row in range(rows)]
    )
    kinds = (rows_of(any_length), rows_of(edges), ties, equal, full, long_among_short)
    return st.one_of(*kinds).map(lambda drawn: np.array(drawn, np.int64))


def batches(sizes: tuple[tuple[int, int], ...] = ((4, 5), (1, 8), (0, 5))) -> Strategy:
    """Lengths and a width; of few sizes, since JAX compiles every operation for each of them."""
    return st.sampled_from(sizes).flatmap(lambda size: st.tuples(lengths(*size), st.just(size[1])))


def seeds() -> Strategy:
    """Seeds of `cases.normal`."""
    return st.integers(0, 9999)


def orders(rows: int) -> Strategy:
    """Permutations of rows."""
    return st.permutations(range(rows)).map(lambda order: np.array(order, np.int64))


def subsets(rows: int) -> Strategy:
    """Which of the rows are chosen."""
    return st.lists(st.booleans(), min_size=rows, max_size=rows).map(
        lambda chosen: np.array(chosen, bool)
    )


def garbage() -> Strategy:
    """Values to fill padding with."""
    return st.one_of(st.sampled_from(PADDING_VALUES), st.floats(-1e6, 1e6, width=32))


# Every form of lengths that functions accept.
FORMS: dict[str, Callable[[Adapter, np.ndarray, int], Any]] = {
    "list": lambda adapter, n, width: n.tolist(),
    "int32": lambda adapter, n, width: n.astype(np.int32),
    "int64": lambda adapter, n, width: n,
    "native int32": lambda adapter, n, width: adapter.array(n.astype(np.int32)),
    "native": lambda adapter, n, width: adapter.array(n),
    "Lengths": lambda adapter, n, width: ragged.Lengths(n, width),
    "Lengths of native": lambda adapter, n, width: ragged.Lengths(adapter.array(n), width),
}


def forms() -> Strategy:
    """Names of `FORMS`."""
    return st.sampled_from(sorted(FORMS))


def policies() -> Strategy:
    """Packing policies."""
    return st.sampled_from(POLICIES)
