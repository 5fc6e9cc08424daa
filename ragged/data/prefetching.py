"""Batches made ahead, in a thread, while the model computes."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

from ragged.checks import as_size

T = TypeVar("T")


def prefetch(iterator: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield what an iterator yields, in its order, with the next ones made ahead by a thread.

    What the iterator raises is raised where its value would have come. When the consumer stops
    early (a `break`, an error, `close()`) the thread ends, and the iterator is closed.

    Args:
        iterator: for example `batches(...)`; it runs in one background thread.
        depth: how many are kept ready, 1 or more.

    Raises:
        OptionError: a depth below 1.

    >>> list(prefetch(iter([1, 2, 3])))
    [1, 2, 3]
    """
    as_size("prefetch", "depth", depth, least=1, most=None)
    return _consume(iterator, depth)


def _consume(iterator: Iterable[T], depth: int) -> Iterator[T]:
    # What comes: a value in a tuple, None at the end, or what was raised.
    ready: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    room, stopped = threading.Semaphore(depth), threading.Event()
    work = contextvars.copy_context().run  # so that the chosen backend is the same
    thread = threading.Thread(
        target=work, args=(_produce, iterator, ready, room, stopped), name="prefetch", daemon=True
    )
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item[0]
    finally:
        stopped.set()
        room.release()
        thread.join()


def _produce(
    iterator: Iterable[T],
    ready: SimpleQueue[tuple[T] | BaseException | None],
    room: threading.Semaphore,
    stopped: threading.Event,
) -> None:
    source = iter(iterator)
    try:
        while True:
            room.acquire()
            if stopped.is_set():
                break
            ready.put((next(source),))
    except StopIteration:
        pass
    except BaseException as error:  # for the consumer to raise
        ready.put(error)
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()
        ready.put(None)
