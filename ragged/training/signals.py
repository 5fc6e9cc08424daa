"""A clean stop: SIGINT and SIGTERM ask a run to write its checkpoint and end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The user stopped the run named; its last checkpoint holds all that was done."""


class StopRequest:
    """Whether the user has asked to stop."""

    def __init__(self) -> None:
        self.is_set = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note the first signal; a second one acts as it would without this.

    The handlers before are put back at the end. What is ignored stays ignored. Outside the main
    thread nothing is changed, for Python delivers no signals there.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        request.is_set = True
        put_back()

    try:
        for number in before:
            signal.signal(number, note)
        yield request
    finally:
        put_back()
