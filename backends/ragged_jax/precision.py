"""What float32 means on a GPU: float32, unless TF32, with 10 bits of its 23, is asked for.

JAX's own default there is TF32. A product is traced with its precision, which its derivatives keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

__all__ = ["allows_tf32", "float32_products", "use_tf32"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_allowed: ContextVar[bool] = ContextVar("ragged_tf32", default=False)


def allows_tf32() -> bool:
    """Whether what is traced here may compute in TF32."""
    return _allowed.get()


@contextmanager
def use_tf32(allowed: bool) -> Iterator[None]:
    """Allow what is traced inside the block to compute in TF32, or not."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def float32_products(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function whose products of float32 are computed in it, or in TF32 if allowed."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with jax.default_matmul_precision("tensorfloat32" if allows_tf32() else "float32"):
            return function(*args, **kwargs)

    return run
