"""Prefetching: a background thread prepares batches while the model computes."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

from ragged.checks import as_size

T = TypeVar("T")


def prefetch(iterator: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the items of an iterator in order, prepared ahead by a thread.

    An exception of the iterator is raised in place of its item. When the consumer stops
    early (a `break`, an error, `close()`) the thread ends, and the iterator is closed.

    Args:
        iterator: for example `batches(...)`; it runs in one background thread.
        depth: how many items are prepared ahead, 1 or more.

    Raises:
        OptionError: a depth below 1.

    >>> list(prefetch(iter([1, 2, 3])))
    [1, 2, 3]
    """
    as_size("prefetch", "depth", depth, minimum=1, maximum=None)
    return _consume(iterator, depth)


def _consume(iterator: Iterable[T], depth: int) -> Iterator[T]:
    # Items: a value in a tuple, None at the end, or an exception.
    queue: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    slots, stopped = threading.Semaphore(depth), threading.Event()
    run_in_context = contextvars.copy_context().run  # so that the chosen backend is the same
    thread = threading.Thread(
        target=run_in_context,
        args=(_produce, iterator, queue, slots, stopped),
        name="prefetch",
        daemon=True,
    )
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            slots.release()
            yield item[0]
    finally:
        stopped.set()
        slots.release()
        thread.join()


def _produce(
    iterator: Iterable[T],
    queue: SimpleQueue[tuple[T] | BaseException | None],
    slots: threading.Semaphore,
    stopped: threading.Event,
) -> None:
    source = iter(iterator)
    try:
        while True:
            slots.acquire()
            if stopped.is_set():
                break
            queue.put((next(source),))
    except StopIteration:
        pass
    except BaseException as error:  # for the consumer to raise
        queue.put(error)
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()
        queue.put(None)
