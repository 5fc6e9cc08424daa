"""A call of attention: what it is told beside its arrays, and reasons against running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ragged.errors import OptionError


class AttentionOptions(NamedTuple):
    """What attention is told beside its arrays.

    Args:
        layout: how tokens lie: "padded", `(batch, time, ...)`, or "jagged", `(tokens, ...)`.
        q_width: the longest that a row of queries may be.
        k_width: the longest that a row of keys may be.
        causal: a query sees key j only where `j - i <= keys - queries + diagonal`, in its row.
        diagonal: see there; of a padded batch too, keys and queries are a row's own.
        scale: of the products of queries and keys.
        dropout: the share of weights that is dropped.
    """

    layout: str = "padded"
    q_width: int = 1
    k_width: int = 1
    causal: bool = False
    diagonal: int = 0
    scale: float = 1.0
    dropout: float = 0.0


class AttentionCall(NamedTuple):
    """A call as those see it who choose an implementation.

    Args:
        device: that of its arrays.
        dtype: theirs too.
        compiler: whether there are kernels in the package, or a C++ compiler.
        surrounding: what the framework does around the call, said as a reason; None = nothing.
        options: what it is told.
        need_weights: whether it is to return the weights too.
    """

    device: str
    dtype: str
    compiler: bool = True
    surrounding: str | None = None
    options: AttentionOptions = AttentionOptions()
    need_weights: bool = False


def check_seed_form(seed: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    """Refuse a seed that is an array of another dtype or shape than a backend's programs take.

    Raises:
        OptionError: it is.
    """
    if seed.dtype != dtype or tuple(seed.shape) != shape:
        got, expected = f"{seed.dtype} of shape {tuple(seed.shape)}", f"{dtype} of shape {shape}"
        raise OptionError.of("attention", "seed", got, expected, "Convert it, or give an integer.")


def kernels_reason(call: AttentionCall, has_kernels: Callable[[str], bool]) -> str | None:
    """Say why kernels of our own do not run a call, on any backend.

    Args:
        call: the call.
        has_kernels: whether those of a dtype could be loaded.
    """
    if call.surrounding is not None:
        return call.surrounding
    if call.need_weights:
        return "they keep no weights, which were asked for"
    if call.device != "cpu":
        return "they run on a CPU alone"
    if not call.compiler:
        return "no C++ compiler was found, or RAGGED_KERNELS=0"
    return None if has_kernels(call.dtype) else "they could not be compiled, kept or loaded"
