"""Which implementation runs attention on JAX, in order of preference.

The operator (`custom_op`) chooses from this list when a program is lowered.
"""

from __future__ import annotations

import jax.numpy as jnp

from ragged.attend.call import AttentionCall, kernels_reason
from ragged.implementations import Implementation, no_reason, reasons
from ragged_jax.ragged_attention import cpp, plain
from ragged_jax.recurrent.scan import computed_in


def _kernels_reason(call: AttentionCall) -> str | None:
    return kernels_reason(call, lambda dtype: cpp.has_kernels(str(computed_in(jnp.dtype(dtype)))))


# Each `run` is a function for every primitive of the operator.
IMPLEMENTATIONS: tuple[Implementation[AttentionCall], ...] = (
    Implementation("kernels", _kernels_reason, {**plain.PASSES, **cpp.PASSES}),
    Implementation("plain", no_reason, plain.PASSES),
)


def attention_reasons(call: AttentionCall) -> dict[str, str | None]:
    """Say why each implementation, in order, does not run a call; None = it can."""
    return reasons(IMPLEMENTATIONS, call)
