"""Which implementation runs a layer on JAX, in order of preference.

A program is traced before its target device is known, so the operator (`custom_op`) chooses from
this list when the program is lowered.
"""

from __future__ import annotations

from functools import partial

from ragged.implementations import Implementation, choose, no_reason, reasons
from ragged.kernels.cuda.plans import Gpu
from ragged.recurrent.dispatch import (
    CPU_KERNELS,
    CUDA_KERNELS,
    LayerCall,
    cuda_kernels_reason,
    kernels_reason,
    policy_reason,
)
from ragged_jax.precision import allows_tf32
from ragged_jax.recurrent import cpp, cuda_kernels, cudnn, scan
from ragged_jax.recurrent.cuda_trial import find_cudnn_verdict, find_verdict


def takes_operator(call: LayerCall) -> bool:
    """Whether a call runs as the operator, which has no projection and leaves a choice."""
    return policy_reason(call, ("auto",)) is None and not call.proj_size


def _kernels_reason(call: LayerCall) -> str | None:
    return call.surrounding or kernels_reason(call, cpp.has_kernels)


def _cuda_kernels_reason(call: LayerCall) -> str | None:
    if call.surrounding is not None:
        return call.surrounding
    verdict = partial(find_verdict, other=lambda: choose(AFTER_CUDA_KERNELS, call).run)
    return cuda_kernels_reason(call, _find_gpu, verdict, tf32=allows_tf32())


def _cudnn_reason(call: LayerCall) -> str | None:
    reason = cudnn.cudnn_reason(call)
    return find_cudnn_verdict(call).reason if reason is None else reason


def _find_gpu(call: LayerCall) -> Gpu | None:
    target = cuda_kernels.find_target()
    return target.gpu if target else None


# Each `run` is a function for every primitive of the operator.
OTHERS = scan.PASSES_OF_INPUTS
AFTER_CUDA_KERNELS: tuple[Implementation[LayerCall], ...] = (
    Implementation(cudnn.CUDNN, _cudnn_reason, {**OTHERS, **cudnn.PASSES}),
    Implementation("scan", no_reason, scan.PASSES),
)
IMPLEMENTATIONS: tuple[Implementation[LayerCall], ...] = (
    Implementation(CPU_KERNELS, _kernels_reason, {**OTHERS, **cpp.PASSES}),
    Implementation(CUDA_KERNELS, _cuda_kernels_reason, {**OTHERS, **cuda_kernels.PASSES}),
    *AFTER_CUDA_KERNELS,
)


def recurrent_reasons(call: LayerCall) -> dict[str, str | None]:
    """Say why each implementation, in order, does not run a call; None = it can."""
    return reasons(IMPLEMENTATIONS, call)
