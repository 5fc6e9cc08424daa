"""Which implementation runs attention on JAX, in order of preference.

The operator (`custom_op`) chooses from this list when a program is lowered.
"""

from __future__ import annotations

from ragged.attend.call import AttentionCall, kernels_reason
from ragged.implementations import Implementation, no_reason
from ragged_jax.ragged_attention import cpp, plain


def _kernels_reason(call: AttentionCall) -> str | None:
    return kernels_reason(call, cpp.has_kernels)


# Each `run` is a function for every primitive of the operator.
IMPLEMENTATIONS: tuple[Implementation[AttentionCall], ...] = (
    Implementation("kernels", _kernels_reason, {**plain.PASSES, **cpp.PASSES}),
    Implementation("plain", no_reason, plain.PASSES),
)
