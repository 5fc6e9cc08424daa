"""Where the time of a run goes: steps, and what is done beside them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class Profile:
    """Seconds by what they were spent on, the first epoch apart: there programs are compiled.

    >>> profile = Profile({"steps": 20.0})
    >>> profile.end_epoch()
    >>> profile.seconds |= {"steps": 9.0, "batches": 1.0}
    >>> print(profile)
    first epoch 20.0 s; then steps 90.0 %, batches 10.0 % of 10.0 s
    """

    seconds: dict[str, float] = field(default_factory=dict)
    first: float | None = None

    def end_epoch(self) -> None:
        """Put the first epoch aside."""
        if self.first is None:
            self.first = sum(self.seconds.values())
            self.seconds.clear()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time spent inside a `with` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Give the items of an iterable, and add the time that it took to make them."""
        iterator = iter(items)
        while True:
            with self.measure(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def __str__(self) -> str:
        begin = "" if self.first is None else f"first epoch {self.first:.1f} s"
        total = sum(self.seconds.values())
        if not total:
            return begin
        shares = (f"{name} {spent / total:.1%}" for name, spent in self.seconds.items())
        shown = f"{', '.join(shares)} of {total:.1f} s".replace("%", " %")
        return f"{begin}; then {shown}" if begin else shown
