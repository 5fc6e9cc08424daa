"""The frameworks' transformations of functions and modules, tried on every layer and model.

A new transformation is a line of a backend's tables: a function of a `Trial` that gives by name
what `comparison.CHECKS` compares. A new way of running a layer or model is a line of
`problems.PROBLEMS`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from ragged_conformance.transformations.lines import Transformation

FRAMEWORKS = {"torch": "torch", "jax": "flax"}
PARTS = ("derivatives", "programs", "modules")


def table_of(backend: str) -> dict[str, Transformation]:
    """The transformations of a backend's framework; none where it is not installed."""
    if find_spec(FRAMEWORKS[backend]) is None:
        return {}
    table: dict[str, Transformation] = {}
    for part in PARTS:
        table |= import_module(f"{__name__}.{backend}_{part}").TRANSFORMATIONS
    return table
