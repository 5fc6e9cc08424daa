"""The ways to run one thing, in order of preference: the first without a reason against a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

Call = TypeVar("Call")


class Implementation(NamedTuple, Generic[Call]):
    """One way to run a layer.

    Args:
        name: as `ragged.explain` prints it.
        unsupported_reason: why it does not run a call; None = it can.
        run: what runs it, of a form that the backend's list shares.
    """

    name: str
    unsupported_reason: Callable[[Call], str | None]
    run: Any


def choose(implementations: Sequence[Implementation[Call]], call: Call) -> Implementation[Call]:
    """Give the first implementation that has no reason against a call; the last one never has.

    >>> gpu = Implementation("gpu", lambda device: None if device == "cuda" else "no GPU", None)
    >>> choose([gpu, Implementation("any", lambda device: None, None)], "cpu").name
    'any'
    """
    for implementation in implementations:
        if implementation.unsupported_reason(call) is None:
            return implementation
    raise AssertionError(f"no implementation runs {call}")


def reasons(implementations: Sequence[Implementation[Call]], call: Call) -> dict[str, str | None]:
    """Give the reason of each implementation by its name, in order."""
    return {each.name: each.unsupported_reason(call) for each in implementations}


def first_of(reasons: Mapping[str, str | None]) -> str:
    """Name the implementation that runs."""
    return next(name for name, reason in reasons.items() if reason is None)


def print_choice(reasons: Mapping[str, str | None], condition: str = "first in order") -> None:
    """Print a line for each implementation: that it runs, or why not.

    >>> print_choice({"gpu": "no GPU", "cpu": None, "any": None})
    gpu  no GPU
    cpu  runs, first in order
    any  cpu comes first
    """
    chosen, widest = first_of(reasons), max(map(len, reasons))
    for name, reason in reasons.items():
        other = reason or f"{chosen} comes first"
        print(f"{name:<{widest}}  {f'runs, {condition}' if name == chosen else other}")


def no_reason(call: object) -> None:
    """Run any call, as plain operations do: the last implementation of a list has this."""
