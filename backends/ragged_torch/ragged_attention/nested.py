"""Attention of nested tensors, on torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import ragged
from ragged.errors import LengthsError, ShapeError
from ragged_torch.recurrent.sequences import take_nested_apart


def nested_attention(
    q: Any, k: Any, v: Any, q_lengths: Any = None, k_lengths: Any = None, **options: Any
) -> Any:
    """Attend as `ragged.attention` does, from nested tensors to a nested tensor too.

    Args:
        q: as there; or nested, of layout `torch.jagged`: `(batch, ragged time, heads, size)`.
        k: as q, of the keys.
        v: as k, of rows as long; or without heads.
        q_lengths: as there, of tensors that are not nested.
        k_lengths: as there.
        options: as there.

    Returns:
        What `ragged.attention` does; of nested tensors one with the rows of q.

    Raises:
        ShapeError: a nested tensor beside one that is not, of another layout or with holes.
        LengthsError: values of other lengths than the keys.

    Example:
        >>> rows = torch.nested.nested_tensor(
        ...     [torch.ones(3, 2, 4), torch.ones(1, 2, 4)], layout=torch.jagged)
        >>> [tuple(row.shape) for row in nested_attention(rows, rows, rows, causal=True).unbind()]
        [(3, 2, 4), (1, 2, 4)]
    """
    named = {"q": q, "k": k, "v": v}
    are_nested = [isinstance(x, Tensor) and x.is_nested for x in named.values()]
    if not any(are_nested):
        return ragged.attention(q, k, v, q_lengths, k_lengths, **options)
    (q, of_q), (k, of_k), (v, of_v) = (_take_apart(name, x) for name, x in named.items())
    if not (of_k is of_v or torch.equal(of_k, of_v)):
        got, expected = "of other lengths", "those of k"
        raise LengthsError.of("nested_attention", "v", got, expected, "Give a value for each key.")
    options |= {"q_offsets": of_q, "k_offsets": of_k}
    found = ragged.attention(q, k, v, q_lengths, k_lengths, **options)
    out, *weights = found if isinstance(found, tuple) else (found,)
    nested = torch.nested.nested_tensor_from_jagged(out, of_q)
    return (nested, *weights) if weights else nested


def _take_apart(name: str, x: Any) -> tuple[Tensor, Tensor]:
    """Return the tokens and offsets of a nested tensor."""
    is_nested = isinstance(x, Tensor) and x.is_nested
    if not is_nested or x.layout is not torch.jagged or x._ragged_idx != 1:
        got = f"a nested tensor of layout {x.layout}" if is_nested else "no nested tensor"
        expected = "one of layout torch.jagged, (batch, ragged time, ...), as all three"
        remedy = "Make it with torch.nested.nested_tensor(rows, layout=torch.jagged)."
        raise ShapeError.of("nested_attention", name, got, expected, remedy)
    return take_nested_apart("nested_attention", name, x)
