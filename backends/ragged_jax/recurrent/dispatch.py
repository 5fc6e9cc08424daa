"""Which implementation runs a layer on JAX, in order of preference.

A program is traced before its target device is known, so the operator (`custom_op`) chooses from
this list when the program is lowered.
"""

from __future__ import annotations

from ragged.recurrent.dispatch import (
    Implementation,
    LayerCall,
    kernels_reason,
    no_reason,
    policy_reason,
    reasons,
)
from ragged_jax.recurrent import cpp, scan

# What JAX does around a call, as the reason why an implementation does not run it.
EXPORTED = "exported programs run on other machines too"
PARTITIONED = "XLA partitions the program over several devices"


def takes_operator(call: LayerCall) -> bool:
    """Whether a call runs as the operator, which has no projection and leaves a choice."""
    return policy_reason(call, ("auto",)) is None and not call.proj_size


def _kernels_reason(call: LayerCall) -> str | None:
    return call.surrounding or kernels_reason(call, cpp.has_kernels)


# Each `run` is a function for every primitive of the operator.
IMPLEMENTATIONS = (
    Implementation("kernels", _kernels_reason, {**scan.PASSES, **cpp.PASSES}),
    Implementation("scan", no_reason, scan.PASSES),
)


def recurrent_reasons(call: LayerCall) -> dict[str, str | None]:
    """Say why each implementation, in order, does not run a call; None = it can."""
    return reasons(IMPLEMENTATIONS, call)
