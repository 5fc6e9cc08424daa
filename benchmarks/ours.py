"""Our layers, ready to be timed: each function returns a run without arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

import ragged
from benchmarks.cases import Case
from benchmarks.passes import JaxPass, Run, Work, torch_pass
from ragged.recurrent.explain import recurrent_implementation


def torch_layer(work: Work) -> Any:
    """Our layer on torch, with the parameters that all contestants have."""
    return _layer("torch", work).to(work.device)


def _layer(framework: str, work: Work) -> Any:
    with ragged.use_backend(framework) as backend:
        case = work.case
        layer = ragged.LSTM(case.inputs, case.hidden, case.layers, bidirectional=case.bidirectional)
        backend.set_parameters(layer, work.parameters)
    return layer


def torch_run(layer: Any, work: Work, lengths: ragged.Lengths, backward: bool = True) -> Run:
    """Time our layer on torch by the policy of `lengths`."""

    def forward(x: Any) -> tuple[Any, Any]:
        y, (_, c) = layer(x, lengths)
        return y, c

    factor = work.factor(lengths.host)
    values = layer.parameters()
    return torch_pass(forward, values, work.x, factor, device=work.device, backward=backward)


def jax_layer(work: Work) -> JaxPass:
    """Our layer on JAX; what it compiles depends on the lengths it is called with."""
    from flax import nnx

    graph, parameters, rest = nnx.split(_layer("jax", work), nnx.Param, ...)

    def forward(parameters: Any, x: Any, lengths: Any) -> tuple[Any, Any]:
        y, (_, c) = nnx.merge(graph, parameters, rest)(x, lengths)
        return y, c

    return JaxPass(forward, parameters, work.x, work.device)


def training_pass(
    backend: str,
    lengths: ragged.Lengths,
    features: int,
    hidden: int,
    layers: int,
    *,
    bidirectional: bool = False,
    device: str = "cpu",
    backward: bool = True,
) -> Run:
    """Our LSTM by the policy of `lengths`, forward and, by default, backward."""
    case = Case(len(lengths), lengths.width, features, hidden, layers, bidirectional)
    work = Work(case, device)
    if backend == "torch":
        return torch_run(torch_layer(work), work, lengths, backward)
    return jax_layer(work)(lengths, work.factor(lengths.host), backward)


def program_of(framework: str, case: Case, lengths: ragged.Lengths, device: str) -> object:
    """Name what a policy comes to: equal answers run the same."""
    with ragged.use_backend(framework) as backend:
        if framework == "jax":
            import jax

            structure: Any = jax.tree.structure(lengths)
            static = structure.node_data()[1]  # all that is compiled in, and the policy
            return tuple(entry for entry in static if entry != lengths.policy)
        return recurrent_implementation(backend, lengths, device, case.hidden)


def batch_lengths(values: np.ndarray, case: Case, policy: str) -> ragged.Lengths:
    """Wrap lengths, as a collate function would once for each batch."""
    return ragged.Lengths(values, width=case.width, policy=policy)
