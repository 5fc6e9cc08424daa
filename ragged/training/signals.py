"""Graceful stops: on SIGINT and SIGTERM a run writes its checkpoint and ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run stopped by the user; its last checkpoint is complete."""


class StopRequest:
    """Whether a signal to stop was received."""

    def __init__(self) -> None:
        self.is_set = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Record the first signal; a second one has its usual effect.

    The previous handlers are restored at the end. Ignored signals stay ignored. Outside the main
    thread nothing is changed, because Python delivers no signals there.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    previous = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        request.is_set = True
        restore()

    try:
        for number in previous:
            signal.signal(number, handle)
        yield request
    finally:
        restore()
