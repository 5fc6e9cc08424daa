"""`ragged.attention`: attention over rows of different lengths, as a function."""

from __future__ import annotations

from typing import Any

from ragged.backend import backend_of
from ragged.checks import MAX_SIZE, as_array, as_flag, as_number, as_rate, as_size
from ragged.errors import OptionError, ShapeError
from ragged.lengths import Lengths
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
) -> Any:
    """Let the queries of each row attend to the keys of that row.

        weights[i, j] = softmax over the visible j of scale * (q[i] . k[j])
        out[i]        = sum over j of weights[i, j] * v[j]

    in each row and head. A row's queries and keys are those within its lengths; padding is never
    read, and 0 in the result and in every gradient. A query that sees no key gives 0. Only visible
    pairs are computed, and no array of all pairs is kept for the backward pass, where kernels run.

    Values may have no axis of heads, `(batch, k_time, value_size)`: then all heads share them, and
    the result is the mean over the heads, whose mean weights explain it.

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

    Returns:
        `(batch, q_time, heads, value_size)`, or without heads if values have none; with
        `need_weights` the pair of it and the weights `(batch, heads, q_time, k_time)`.

    Raises:
        ShapeError: arrays that do not fit each other.
        LengthsError: lengths that `Lengths` refuses, or not one for each row.
        DtypeError, DeviceError, MixedFrameworksError: arrays that do not go together.
        OptionError: another option than these; dropout without a seed.

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
    backend = backend_of(function, q=q, k=k, v=v, q_lengths=q_lengths, k_lengths=k_lengths)
    q = as_array(backend, function, "q", q)
    k, v = (as_array(backend, function, name, x, q) for name, x in (("k", k), ("v", v)))
    _check_shapes(function, q, k, v)
    call: dict[str, Any] = {"function": function, "batch": q.shape[0]}
    of_q = Lengths.of(q_lengths, q.shape[1], backend, **call, argument="q_lengths")
    of_k = Lengths.of(k_lengths, k.shape[1], backend, **call, argument="k_lengths")
    arrays = backend.promote_arrays(function, {"q": q, "k": k, "v": v})
    dropout = as_rate(function, "dropout", dropout)
    need_weights = as_flag(function, "need_weights", need_weights)
    out, weights = backend.attend(
        arrays["q"],
        arrays["k"],
        arrays["v"],
        of_q,
        of_k,
        causal=as_flag(function, "causal", causal),
        diagonal=as_size(function, "diagonal", diagonal, minimum=-MAX_SIZE),
        scale=None if scale is None else as_number(function, "scale", scale),
        dropout=dropout,
        seed=check_seed(function, backend, seed, dropout),
        need_weights=need_weights,
    )
    return (out, weights) if need_weights else out


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


def _check_shapes(function: str, q: Array, k: Array, v: Array) -> None:
    """Refuse arrays that do not fit each other, or have no heads or features."""
    if q.ndim != 4 or 0 in q.shape[2:]:
        expected, remedy = "(batch, q_time, heads, size)", "Split the features into heads."
        raise ShapeError.of(function, "q", f"of shape {tuple(q.shape)}", expected, remedy)
    batch, _, heads, size = q.shape
    if k.ndim != 4 or tuple(k.shape[2:]) != (heads, size) or k.shape[0] != batch:
        expected = f"({batch}, k_time, {heads}, {size}), as q has it"
        remedy = "Give the keys of the same rows and heads."
        raise ShapeError.of(function, "k", f"of shape {tuple(k.shape)}", expected, remedy)
    time = k.shape[1]
    of_heads = tuple(v.shape) == (batch, time, heads, v.shape[-1]) if v.ndim else False
    shared = v.ndim == 3 and tuple(v.shape[:2]) == (batch, time)
    if not (of_heads or shared) or not v.shape[-1]:
        expected = f"({batch}, {time}, {heads}, value_size), or without heads"
        remedy = "Give a value for each key."
        raise ShapeError.of(function, "v", f"of shape {tuple(v.shape)}", expected, remedy)
