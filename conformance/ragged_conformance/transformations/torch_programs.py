"""Programs that torch records, compiles and exports; a new one is a line of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ragged_conformance.transformations.comparison import BATCHES
from ragged_conformance.transformations.lines import (
    LAYERS,
    SOME,
    Results,
    Transformation,
    of_module,
    program,
)
from ragged_conformance.transformations.problems import Trial
from ragged_conformance.transformations.torch_tools import Tensors, leaves, native_lengths, pull


class Wrapper(nn.Module):
    """A user's module that contains the one under test."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.inner, self.call = trial.module, trial.subject.call

    def forward(self, inputs: Tensors, lengths: Tensors) -> Tensors:
        return self.call(self.inner, inputs, lengths)


def compiled(trial: Trial) -> Results:
    torch.compiler.reset()
    program = torch.compile(trial.run, fullgraph=True, backend="aot_eager")
    variables = leaves(trial)
    outputs = program(variables, native_lengths(trial))
    return {"outputs": outputs, "gradient": pull(trial.weigh(outputs), variables)}


def exported(strict: bool) -> Callable[[Trial], Results]:
    """`torch.export.export`."""

    def run(trial: Trial) -> Results:
        arguments = trial.inputs, native_lengths(trial)
        program = torch.export.export(Wrapper(trial), arguments, strict=strict)
        return {"outputs": program.module()(*arguments)}

    return run


def made_fx(mode: Any) -> Callable[[Trial], Results]:
    """`make_fx`, whose graph is also run at another point."""

    def run(trial: Trial) -> Results:
        from torch.fx.experimental.proxy_tensor import make_fx

        program = make_fx(lambda v: trial.run(v), tracing_mode=mode)(trial.variables)
        outputs = [program(trial.at(point)) for point in BATCHES]
        return {"outputs of batches": {n: torch.stack([o[n] for o in outputs]) for n in outputs[0]}}

    return run


def made_fx_of_the_gradient(trial: Trial) -> Results:
    from torch.fx.experimental.proxy_tensor import make_fx

    def gradient(variables: Tensors) -> Tensors:
        detached = {name: value.detach().requires_grad_() for name, value in variables.items()}
        return pull(trial.total(detached), detached)

    return {"gradient": make_fx(gradient)(trial.variables)(trial.variables)}


def functionalized(trial: Trial) -> Results:
    return {"outputs": torch.func.functionalize(trial.run)(trial.variables)}


def checkpointed(reentrant: bool) -> Callable[[Trial], Results]:
    """Activation checkpointing."""

    def run(trial: Trial) -> Results:
        variables = leaves(trial)

        def run_tuple(*values: Tensor) -> tuple[Tensor, ...]:
            return tuple(trial.run(dict(zip(variables, values, strict=True))).values())

        values = checkpoint(run_tuple, *variables.values(), use_reentrant=reentrant)
        named = dict(zip(trial.weights, values, strict=True))
        if not reentrant:
            return {"outputs": named, "gradient": pull(trial.weigh(named), variables)}
        trial.weigh(named).backward()
        return {"gradient": {name: value.grad for name, value in variables.items()}}

    return run


def saved_on_the_cpu(trial: Trial) -> Results:
    with torch.autograd.graph.save_on_cpu():
        variables = leaves(trial)
        return {"gradient": pull(trial.total(variables), variables)}


TRANSFORMATIONS: dict[str, Transformation] = {
    "checkpoint": program(checkpointed(reentrant=False)),
    "checkpoint, reentrant": program(checkpointed(reentrant=True)),
    "save_on_cpu": program(saved_on_the_cpu),
    "func.functionalize": program(functionalized),
    "compile": program(
        compiled,
        *SOME,
        "LSTM, tied",
        "LSTM, no kernels",
        "lstm*",
        "GRU",
        "GRU, no kernels",
        "RNN_RELU",
    ),
    "export, strict": of_module(exported(strict=True), *SOME, "LSTM, tied", "GRU", "RNN_TANH"),
    "export": of_module(exported(strict=False), *SOME, "GRU, no kernels"),
    "make_fx": program(made_fx("real"), *LAYERS, *SOME),
    "make_fx, symbolic": program(made_fx("symbolic"), *SOME),
    "make_fx of the gradient": program(made_fx_of_the_gradient, *SOME),
}
