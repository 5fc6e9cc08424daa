"""The faults that the tests must see, by the backend that they are planted for."""

from __future__ import annotations

from tests.mutants import (
    attention,
    between,
    bookkeeping,
    core,
    dispatch,
    gated,
    jax,
    losses,
    models,
    ragged_attention,
    torch,
    training,
)
from tests.mutants.mutant import Fault

BOTH = "torch = jax"  # in a backend's place: what only a comparison of the two can see
SHARED = "torch, shared"  # likewise: what tests outside of the conformance suite see
SHARED_JAX = "jax, shared"
FAULTS: dict[str, tuple[Fault, ...]] = {
    backend: (
        *core.FAULTS,
        *losses.FAULTS,
        *dispatch.FAULTS,
        *own.FAULTS,
        *models.faults_of(backend),
        *attention.faults_of(backend),
        *ragged_attention.faults_of(backend),
        *training.faults_of(backend),
    )
    for backend, own in (("torch", torch), ("jax", jax))
}
FAULTS["torch"] += (*losses.TORCH, *attention.TORCH, *ragged_attention.KERNELS)
FAULTS[BOTH] = (*between.FAULTS, *training.BETWEEN)
FAULTS[SHARED] = (*bookkeeping.FAULTS, *gated.FAULTS)
FAULTS[SHARED_JAX] = (*jax.WITHOUT_KERNELS, *gated.JAX)
