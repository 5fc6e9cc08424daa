"""Programs that torch records, compiles and takes apart; a new one is a line of the table."""

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
    Found,
    Transformation,
    of_module,
    program,
)
from ragged_conformance.transformations.problems import Trial
from ragged_conformance.transformations.torch_tools import Tensors, leaves, native_lengths, pull


class Whole(nn.Module):
    """A module of a user's own, with the one under test in it."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.inner, self.call = trial.module, trial.subject.call

    def forward(self, inputs: Tensors, lengths: Tensors) -> Tensors:
        return self.call(self.inner, inputs, lengths)


def compiled(trial: Trial) -> Found:
    torch.compiler.reset()
    program = torch.compile(trial.run, fullgraph=True, backend="aot_eager")
    own = leaves(trial)
    outputs = program(own, native_lengths(trial))
    return {"outputs": outputs, "gradient": pull(trial.weigh(outputs), own)}


def exported(strict: bool) -> Callable[[Trial], Found]:
    """`torch.export.export`."""

    def run(trial: Trial) -> Found:
        arguments = trial.inputs, native_lengths(trial)
        program = torch.export.export(Whole(trial), arguments, strict=strict)
        return {"outputs": program.module()(*arguments)}

    return run


def made_fx(mode: Any) -> Callable[[Trial], Found]:
    """`make_fx`, whose graph is run at another point, too."""

    def run(trial: Trial) -> Found:
        from torch.fx.experimental.proxy_tensor import make_fx

        program = make_fx(lambda own: trial.run(own), tracing_mode=mode)(trial.variables)
        each = [program(trial.at(point)) for point in BATCHES]
        return {"outputs of batches": {n: torch.stack([o[n] for o in each]) for n in each[0]}}

    return run


def made_fx_of_the_gradient(trial: Trial) -> Found:
    from torch.fx.experimental.proxy_tensor import make_fx

    def gradient(variables: Tensors) -> Tensors:
        own = {name: value.detach().requires_grad_() for name, value in variables.items()}
        return pull(trial.total(own), own)

    return {"gradient": make_fx(gradient)(trial.variables)(trial.variables)}


def functionalized(trial: Trial) -> Found:
    return {"outputs": torch.func.functionalize(trial.run)(trial.variables)}


def checkpointed(reentrant: bool) -> Callable[[Trial], Found]:
    """Activation checkpointing."""

    def run(trial: Trial) -> Found:
        own = leaves(trial)

        def outputs(*values: Tensor) -> tuple[Tensor, ...]:
            return tuple(trial.run(dict(zip(own, values, strict=True))).values())

        found = checkpoint(outputs, *own.values(), use_reentrant=reentrant)
        named = dict(zip(trial.weights, found, strict=True))
        if not reentrant:
            return {"outputs": named, "gradient": pull(trial.weigh(named), own)}
        trial.weigh(named).backward()
        return {"gradient": {name: value.grad for name, value in own.items()}}

    return run


def saved_on_the_cpu(trial: Trial) -> Found:
    with torch.autograd.graph.save_on_cpu():
        own = leaves(trial)
        return {"gradient": pull(trial.total(own), own)}


LINES: dict[str, Transformation] = {
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
