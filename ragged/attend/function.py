"""`ragged.attention`: attention over rows of different lengths, as a function."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragged.backend import backend_of
from ragged.checks import MAX_SIZE, as_arrays, as_finite, as_flag, as_rate, as_size, shown
from ragged.errors import ArgumentError, LengthsError, OptionError, ShapeError
from ragged.lengths import Lengths, lengths_of_offsets
from ragged.protocol import Array, Backend

MAX_SEED = 2**63 - 1


def attention(
    q: Array,
    k: Array,
    v: Array,
    q_lengths: object = None,
    k_lengths: object = None,
    *,
    causal: bool = False,
    diagonal: int = 0,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: object = None,
    need_weights: bool = False,
    q_offsets: object = None,
    k_offsets: object = None,
    q_max_length: object = None,
    k_max_length: object = None,
) -> Any:
    """Let the queries of each row attend to the keys of that row.

        weights[i, j] = softmax over the visible j of scale * (q[i] . k[j])
        out[i]        = sum over j of weights[i, j] * v[j]

    in each row and head. A row's queries and keys are those within its lengths; padding is never
    read, and 0 in the result and in every gradient. A query that sees no key gives 0. Only visible
    pairs are computed, and no array of all pairs is kept for the backward pass, where kernels run.

    Values may have no axis of heads, `(batch, k_time, value_size)`: then all heads share them, and
    the result is the mean over the heads, whose mean weights explain it.

    With offsets rows lie end to end, without an axis of time: q `(tokens, heads, size)`, k and v
    likewise, and the result as q. What is beyond the last row is never read, and 0 in the result.

    Args:
        q: `(batch, q_time, heads, size)`.
        k: `(batch, k_time, heads, size)`.
        v: `(batch, k_time, heads, value_size)`, or without heads.
        q_lengths: `(batch,)`, of the rows of q; None = all full.
        k_lengths: `(batch,)`, of the rows of k and v; None = all full.
        causal: query i of a row sees key j only where `j - i <= keys - queries + diagonal`, with
            the row's own numbers of keys and queries: its last query sees its last key.
        diagonal: see there; -1 hides one key more from each query, as torch.tril counts.
        scale: of the products; `size**-0.5` if not given.
        dropout: share of the weights that is set to 0, the others scaled up by `1 / (1 - dropout)`.
        seed: which weights are dropped: an integer of 0 or more, for the same on every backend and
            whatever the padding; or an array of the backend, which a compiled program can be given
            anew: torch's int64 without axes, JAX's uint32 `(2,)`, its lower and upper word.
        need_weights: return the weights too, before any is dropped, which costs their memory.
        q_offsets: `(batch + 1,)` integers, in place of lengths: where each row of q begins, and
            where the last one ends; other libraries' `cu_seqlens_q`.
        k_offsets: the same of k and v, whose rows are as many.
        q_max_length: the longest that a row of q may be. Without it traced offsets take any, and
            programs without kernels the memory of rows as long as all tokens.
        k_max_length: the same of k and v.

    Returns:
        `(batch, q_time, heads, value_size)`, or without heads if values have none; with
        `need_weights` the pair of it and the weights `(batch, heads, q_time, k_time)`, where the
        longest row stands for the time that offsets leave out.

    Raises:
        ShapeError: arrays that do not fit each other.
        LengthsError: lengths that `Lengths` refuses, or not one for each row; offsets that do not
            rise from 0 to at most the tokens.
        ArgumentError: offsets of one side alone, or beside lengths.
        DtypeError, DeviceError, MixedFrameworksError: arrays that do not go together.
        OptionError: another option than these; dropout without a seed, or an array that is none.

    Example:
        >>> import numpy as np, ragged
        >>> q = k = np.ones((2, 3, 1, 4), np.float32)
        >>> v = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
        >>> out = ragged.attention(q, k, v, [3, 1], [3, 2], causal=True)
        >>> np.asarray(out)[..., 0, 0].round(3).tolist()
        [[0.0, 0.5, 1.0], [3.5, 0.0, 0.0]]

    Source: A. Vaswani and others, Attention Is All You Need (2017); shared values: B. Lim and
    others, Temporal Fusion Transformers (2021).
    """
    function = "attention"
    beside = {"q_lengths": q_lengths, "k_lengths": k_lengths}
    beside |= {"q_offsets": q_offsets, "k_offsets": k_offsets}
    backend = backend_of(function, q=q, k=k, v=v, **beside)
    q, k, v = as_arrays(backend, function, {"q": q, "k": k, "v": v}).values()
    is_jagged = _have_offsets(function, q_offsets, k_offsets)
    _check_shapes(function, q, k, v, is_jagged=is_jagged)
    of_q, of_k = (
        _rows(function, backend, side, *rows, is_jagged=is_jagged)
        for side, *rows in (
            ("q", q, q_lengths, q_offsets, q_max_length),
            ("k", k, k_lengths, k_offsets, k_max_length),
        )
    )
    if of_q.batch != of_k.batch:
        got, expected = f"of {of_k.batch} rows", f"{of_q.batch}, as q_offsets tell"
        remedy = "Give each row of queries its row of keys, empty if there are none."
        raise LengthsError.of(function, "k_offsets", got, expected, remedy)
    arrays = backend.promote_arrays(function, {"q": q, "k": k, "v": v})
    dropout = as_rate(function, "dropout", dropout)
    need_weights = as_flag(function, "need_weights", need_weights)
    out, weights = backend.attend(
        arrays["q"],
        arrays["k"],
        arrays["v"],
        of_q,
        of_k,
        layout="jagged" if is_jagged else "padded",
        causal=as_flag(function, "causal", causal),
        diagonal=as_size(function, "diagonal", diagonal, minimum=-MAX_SIZE),
        scale=None if scale is None else _as_scale(function, scale, str(arrays["q"].dtype)),
        dropout=dropout,
        seed=check_seed(function, backend, seed, dropout),
        need_weights=need_weights,
    )
    return (out, weights) if need_weights else out


def _as_scale(function: str, scale: object, dtype: str) -> float:
    """Return a number that weights are computed with: in float64, or else in float32."""
    number, most = as_finite(function, "scale", scale), float(np.finfo(np.float32).max)
    if abs(number) > most and not dtype.endswith("float64"):
        expected = "within the range of float32, in which weights are computed"
        raise OptionError.of(function, "scale", shown(scale), expected, "Give a smaller one.")
    return number


def check_seed(function: str, backend: Backend, seed: Any, dropout: float) -> Any:
    """Give a seed that a backend takes, None if nothing is dropped.

    Raises:
        OptionError: none for what is dropped, or one out of range.
    """
    if backend.owns(seed):
        return seed
    if seed is not None:
        return as_size(function, "seed", seed, maximum=MAX_SEED)
    if dropout:
        got, expected = "None beside dropout", "an integer of 0 or more"
        raise OptionError.of(function, "seed", got, expected, "Give another one to each call.")
    return None


def _have_offsets(function: str, q_offsets: object, k_offsets: object) -> bool:
    """Whether rows lie end to end, those of both sides or of none."""
    given = {"q_offsets": q_offsets, "k_offsets": k_offsets}
    missing = [name for name, offsets in given.items() if offsets is None]
    if len(missing) == 1:
        remedy = "Give both; rows that attend to themselves have the same."
        raise ArgumentError.of(function, missing[0], "None", "offsets, as the other's", remedy)
    return not missing


def _rows(
    function: str,
    backend: Backend,
    side: str,
    x: Array,
    lengths: object,
    offsets: object,
    max_length: object,
    *,
    is_jagged: bool,
) -> Lengths:
    """Read the lengths of the rows of a side, "q" or "k"."""
    if is_jagged:
        call = function, backend, offsets, x.shape[0], lengths, max_length
        return lengths_of_offsets(*call, side=f"{side}_")
    if max_length is not None:
        remedy = "Leave it out: the axis of time tells it."
        got = shown(max_length)
        raise ArgumentError.of(function, f"{side}_max_length", got, "None without offsets", remedy)
    named = {"function": function, "argument": f"{side}_lengths"}
    return Lengths.of(lengths, x.shape[1], backend, batch=x.shape[0], **named)


def _check_shapes(function: str, q: Array, k: Array, v: Array, *, is_jagged: bool) -> None:
    """Refuse arrays that do not fit each other, or have no heads or features."""
    axes = 1 if is_jagged else 2
    if q.ndim != axes + 2 or 0 in q.shape[axes:]:
        expected = f"({'tokens' if is_jagged else 'batch, q_time'}, heads, size)"
        remedy = "Split the features into heads."
        raise ShapeError.of(function, "q", f"of shape {tuple(q.shape)}", expected, remedy)
    heads, size = q.shape[axes:]
    is_of_rows = k.ndim == axes + 2 and (is_jagged or k.shape[0] == q.shape[0])
    if not is_of_rows or tuple(k.shape[axes:]) != (heads, size):
        of_k = "tokens" if is_jagged else f"{q.shape[0]}, k_time"
        expected = f"({of_k}, {heads}, {size}), as q has it"
        remedy = "Give the keys of the same rows and heads."
        raise ShapeError.of(function, "k", f"of shape {tuple(k.shape)}", expected, remedy)
    places = tuple(k.shape[:axes])
    if tuple(v.shape[:-1]) not in (places, (*places, heads)) or not v.shape[-1]:
        expected = f"({', '.join(map(str, places))}, {heads}, value_size), or without heads"
        remedy = "Give a value for each key."
        raise ShapeError.of(function, "v", f"of shape {tuple(v.shape)}", expected, remedy)
