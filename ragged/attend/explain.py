"""`ragged.explain_attention`: which implementation runs attention, and why the others do not."""

from __future__ import annotations

import numpy as np

from ragged.attend.call import AttentionCall, AttentionOptions
from ragged.backend import get_backend
from ragged.checks import DTYPES, MAX_SIZE, as_choice, as_flag, as_size
from ragged.errors import LengthsError
from ragged.implementations import print_choice
from ragged.kernels import available
from ragged.lengths import Lengths


def explain_attention(
    q_lengths: object,
    k_lengths: object = None,
    *,
    causal: bool = False,
    diagonal: int = 0,
    need_weights: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
) -> None:
    """Print which implementation runs the chosen backend's attention, and why each other does not.

    Args:
        q_lengths: `(batch,)` integers, or `Lengths`, of the rows of queries.
        k_lengths: the same of the rows of keys; those of the queries if not given.
        causal: as in `ragged.attention`.
        diagonal: as there.
        need_weights: as there.
        device: "cpu" or "cuda".
        dtype: of its arrays.

    Raises:
        LengthsError: lengths that `Lengths` refuses, or of another number of rows.
        OptionError: an argument of another type, device or dtype.

    Example:
        >>> import ragged
        >>> with ragged.use_backend("torch"):
        ...     ragged.explain_attention([4, 0, 2], [6, 3, 1], causal=True, need_weights=True)
        3 rows: 6 queries, 10 keys, 19 pairs are seen, 26 % of the padded batch's
        kernels  they keep no weights, which were asked for
        plain    runs, first in order
    """
    function = "explain_attention"
    of_q = q_lengths if isinstance(q_lengths, Lengths) else Lengths(q_lengths)
    given = of_q if k_lengths is None else k_lengths
    of_k = given if isinstance(given, Lengths) else Lengths(given)
    if len(of_q) != len(of_k):
        got, expected = f"{len(of_k)} lengths", f"{len(of_q)}, as q_lengths"
        remedy = "Give each row of queries its row of keys."
        raise LengthsError.of(function, "k_lengths", got, expected, remedy)
    options = AttentionOptions(
        causal=as_flag(function, "causal", causal),
        diagonal=as_size(function, "diagonal", diagonal, minimum=-MAX_SIZE),
    )
    call = AttentionCall(
        as_choice(function, "device", device, ("cpu", "cuda")),
        as_choice(function, "dtype", dtype, DTYPES),
        available(),
        options=options,
        need_weights=as_flag(function, "need_weights", need_weights),
    )
    reasons = get_backend().attention_reasons(call)
    seen, padded = count_seen(of_q, of_k, options), len(of_q) * of_q.width * of_k.width
    print(
        f"{len(of_q)} rows: {of_q.tokens} queries, {of_k.tokens} keys, {seen} pairs are seen, "
        f"{100 * seen / max(padded, 1):.0f} % of the padded batch's"
    )
    print_choice(reasons)


def count_seen(of_q: Lengths, of_k: Lengths, options: AttentionOptions) -> int:
    """Count the pairs of a query and a key that it sees.

    >>> count_seen(Lengths([2]), Lengths([3]), AttentionOptions(causal=True))
    5
    """
    pairs = 0
    for queries, keys in zip(of_q.host.tolist(), of_k.host.tolist(), strict=True):
        shift = keys - queries + options.diagonal + 1 if options.causal else keys
        step = np.arange(queries) if options.causal else np.zeros(queries, np.int64)
        pairs += int(np.clip(step + shift, 0, keys).sum())
    return pairs
