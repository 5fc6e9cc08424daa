"""What float32 means on a GPU: float32, unless TF32, with 10 bits of its 23, is asked for.

Torch has a switch for all of cuDNN's recurrent layers, TF32 by default, and one for all other
products. They are turned for a call's duration and back again, whatever other threads do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

__all__ = ["allows_tf32", "float32_products", "use_tf32"]

_allowed: ContextVar[bool] = ContextVar("ragged_tf32", default=False)
_lock = threading.Lock()
_blocks, _before = 0, list[Any]()  # how many are open, and what the switches were before the first


def allows_tf32() -> bool:
    """Whether layers called here may compute in TF32."""
    return _allowed.get()


@contextmanager
def use_tf32(allowed: bool) -> Iterator[None]:
    """Allow layers that are called inside the block to compute in TF32, or not."""
    token = _allowed.set(allowed)
    try:
        with float32_products(tf32=allowed):
            yield
    finally:
        _allowed.reset(token)


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Compute products of float32 in TF32 inside the block, or not; a thread that wants not has it.

    Example:
        >>> before = torch.backends.cudnn.allow_tf32
        >>> with float32_products(tf32=not before):
        ...     pass
        >>> torch.backends.cudnn.allow_tf32 == before
        True
    """
    global _blocks
    with _lock:
        if not _blocks:
            _before[:] = _read()
        if not _blocks or not tf32:
            _write([tf32] * len(_before))
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                _write(_before)


def _switches() -> tuple[tuple[Any, str], ...]:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    # Since torch 2.9, which refuses to read the older names where those of a library differ.
    if hasattr(cudnn.rnn, "fp32_precision"):
        return (cudnn.rnn, "fp32_precision"), (products, "fp32_precision")
    return (cudnn, "allow_tf32"), (products, "allow_tf32")


def _read() -> list[Any]:
    return [getattr(owner, name) for owner, name in _switches()]


def _write(values: list[Any]) -> None:
    """Set the switches to True, False or what they were, where that is a change."""
    for (owner, name), value in zip(_switches(), values, strict=True):
        before = getattr(owner, name)
        is_tf32 = before in (True, "tf32")
        if value is is_tf32 or value == before:
            continue
        named = {True: "tf32", False: "ieee"}.get(value, value)
        setattr(owner, name, named if name == "fp32_precision" else value)
