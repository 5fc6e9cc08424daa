"""Untrusted JSON: finite numbers of at most 64 bits, without Python's extensions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


def load(content: bytes) -> Any:
    """Read JSON whose numbers are finite, in 64 bits.

    Raises:
        ValueError: no JSON, a number beyond the bounds, or nested too deeply.

    >>> load(b'{"a": 1e400}')
    Traceback (most recent call last):
    ValueError: the number 1e400
    """
    try:
        return json.loads(
            content,
            parse_int=_below(2**63, int),
            parse_float=_below(math.inf, float),
            parse_constant=_refuse,
        )
    except RecursionError as error:
        raise ValueError(str(error)) from error


def finite_or_none(value: Any) -> Any:
    """Replace a float that is not finite, which JSON lacks, by None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _below(limit: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = kind(text)
        return number if abs(number) < limit else _refuse(text)

    return read


def _refuse(text: str) -> Any:
    raise ValueError(f"the number {text[:20]}")
