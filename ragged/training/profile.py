"""The time that a run spends on steps, batches and other work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class Profile:
    """Seconds by kind of work; the first epoch is separate, since programs are compiled in it.

    >>> profile = Profile({"steps": 20.0})
    >>> profile.end_epoch()
    >>> profile.seconds |= {"steps": 9.0, "batches": 1.0}
    >>> print(profile)
    first epoch 20.0 s; then steps 90.0 %, batches 10.0 % of 10.0 s
    """

    seconds: dict[str, float] = field(default_factory=dict)
    first_epoch: float | None = None

    def end_epoch(self) -> None:
        """Store the time of the first epoch, and reset the others."""
        if self.first_epoch is None:
            self.first_epoch = sum(self.seconds.values())
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

    def measure_items(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items of an iterable, and add the time that it takes."""
        iterator = iter(items)
        while True:
            with self.measure(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def __str__(self) -> str:
        first = "" if self.first_epoch is None else f"first epoch {self.first_epoch:.1f} s"
        total = sum(self.seconds.values())
        if not total:
            return first
        shares = (f"{name} {spent / total:.1%}" for name, spent in self.seconds.items())
        text = f"{', '.join(shares)} of {total:.1f} s".replace("%", " %")
        return f"{first}; then {text}" if first else text
