"""Layers and models as pure functions of all their arrays, and their expected derivatives.

Expected values come from the oracle and its complex step alone, never from a framework.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import normal
from ragged_conformance.recurrent import Layer
from ragged_conformance.runner import lengths_of
from ragged_conformance.subjects import (
    SUBJECTS,
    Batch,
    Subject,
    attention_subject,
    recurrent_subject,
)

Values = dict[str, np.ndarray]
Arrays = dict[str, Any]
SCALE = 1 / 32  # of directions: short ones, over which `oracle.curvature` is exact


@dataclass(frozen=True)
class Problem:
    """A subject, and how it is run.

    Args:
        subject: the layer or model.
        policy: of its lengths.
        kernels: whether ragged's kernels may run.
        function: the public function that it is run as; None = as a module.
        is_frozen: derivatives are by the inputs alone, the parameters are constants.
        is_tied: the backward direction has the forward direction's very parameters.
    """

    subject: Subject
    policy: str = "auto"
    kernels: bool = True
    function: Callable[..., Any] | None = None
    is_frozen: bool = False
    is_tied: bool = False

    def build(self) -> Any:
        """Build the module."""
        module = self.subject.build()
        if self.is_tied:
            for name in self.tied:
                setattr(module, name, getattr(module, name.removesuffix("_reverse")))
        return module

    @functools.cached_property
    def tied(self) -> list[str]:
        """The names of the parameters that are shared with the forward direction."""
        module = self.subject.build()
        names = ragged.get_backend().get_parameters(module)
        return [name for name in names if self.is_tied and name.endswith("_reverse")]

    def with_tied(self, parameters: Values) -> Values:
        """Add the shared parameters under their second names."""
        return parameters | {n: parameters[n.removesuffix("_reverse")] for n in self.tied}

    @functools.cached_property
    def parameters(self) -> Values:
        """Parameters none of which is 0 or 1, unlike initial biases and norms."""
        initial = ragged.get_backend().get_parameters(self.subject.build())
        return {
            name: np.float32(value + 0.25 * normal(*value.shape, seed=i)).astype(float)
            for i, (name, value) in enumerate(sorted(initial.items()))
            if name not in self.tied
        }

    @functools.cached_property
    def points(self) -> dict[str, Point]:
        """Where the problem is evaluated: at the original point, and at others for batches."""
        batch, parameters = self.subject.batch, self.parameters
        turned = batch.rows([1, 2, 3, 0])
        inputs = replace(batch, arrays=turned.arrays)
        moved = {name: value[..., ::-1].copy() for name, value in parameters.items()}
        return {
            "original": Point(self, batch, parameters),
            "other inputs": Point(self, inputs, parameters),
            "other lengths": Point(self, turned, parameters),
            "other parameters": Point(self, batch, moved),
        }


class Point:
    """The arrays at which a problem is evaluated, and the oracle's results there."""

    def __init__(self, problem: Problem, batch: Batch, parameters: Values) -> None:
        self.problem, self.batch, self.parameters = problem, batch, parameters
        self.inputs = batch.filled(np.nan).arrays
        self.variables = {**self.inputs, **({} if problem.is_frozen else parameters)}
        self.tangents = {
            name: SCALE * normal(*value.shape, seed=100 + i)
            for i, (name, value) in enumerate(self.variables.items())
        }
        # Padding of x takes part in no derivative.
        input_tangents = Batch({n: self.tangents[n] for n in batch.arrays}, batch.lengths)
        self.directions = {**self.tangents, **input_tangents.filled(0.0).arrays}
        self.tangents = {**self.tangents, **input_tangents.filled(np.nan).arrays}

    @functools.cached_property
    def outputs(self) -> Values:
        """The outputs."""
        return self._run(**self._clean)

    @functools.cached_property
    def weights(self) -> Values:
        """The weights by which outputs become a scalar."""
        return {name: normal(*value.shape, seed=7) for name, value in self.outputs.items()}

    def tangent(self, names: Sequence[str] | None = None) -> Values:
        """How the outputs move when the named variables, or all, move along their directions."""
        return self._moved(tuple(self.variables if names is None else names))

    @functools.cached_property
    def slopes(self) -> Values:
        """How the weighted sum moves with each input, and with the parameters together."""
        groups: dict[str, tuple[str, ...]] = {name: (name,) for name in self.inputs}
        if not self.problem.is_frozen:
            groups["parameters"] = tuple(self.parameters)
        return {
            group: np.array(self._weighted(self.tangent(names))) for group, names in groups.items()
        }

    def project(self, gradient: Mapping[str, np.ndarray]) -> Values:
        """Bring a gradient into the form of `slopes`."""
        result = {name: np.zeros(()) for name in self.slopes}
        for name in self.variables:
            group = name if name in self.inputs else "parameters"
            result[group] = result[group] + (gradient[name] * self.directions[name]).sum()
        return result

    def curvature(self, names: Sequence[str] | None = None) -> float:
        """The weighted sum's second derivative along the directions of the named variables."""
        return self._curvature(tuple(self.variables if names is None else names))

    @functools.cached_property
    def small(self) -> str:
        """The name of a variable with few elements, for whole Jacobians and Hessians."""
        names = [name for name in self.variables if name.endswith("bias_ih_l0")]
        return (names or list(self.variables))[0]

    @functools.cache  # noqa: B019 - points live as long as the suite
    def _moved(self, names: tuple[str, ...]) -> Values:
        moved = {n: v + 1e-30j * self.directions[n] for n, v in self._clean.items() if n in names}
        outputs = self._run(**{**self._clean, **moved})
        return {name: np.imag(value) / 1e-30 for name, value in outputs.items()}

    @functools.cache  # noqa: B019
    def _curvature(self, names: tuple[str, ...]) -> float:
        moving = {name: self._clean[name] for name in names}
        directions = {name: self.directions[name] for name in names}

        def total(**values: np.ndarray) -> Any:
            return self._weighted(self._run(**{**self._clean, **values}))

        return oracle.curvature(total, moving, directions)

    def _weighted(self, outputs: Values) -> Any:
        return sum((value * self.weights[name]).sum() for name, value in outputs.items())

    @functools.cached_property
    def _clean(self) -> Values:
        return {**self.batch.filled(0.0).arrays, **self.parameters}

    def _run(self, **values: np.ndarray) -> Values:
        inputs = {name: values.pop(name) for name in self.inputs}
        parameters = self.problem.with_tied(values)
        return self.problem.subject.oracle(inputs, parameters, self.batch.lengths)


class Trial:
    """A problem on one backend: native arrays, and native functions to transform.

    `run(variables, lengths=None) -> outputs by name` is pure; so is `total`, its weighted sum.
    """

    def __init__(self, adapter: Adapter, problem: Problem) -> None:
        self.adapter, self.problem, self.subject = adapter, problem, problem.subject
        self.point = problem.points["original"]
        self.module = adapter.prepare(problem.build())
        parameters = problem.with_tied(self.point.parameters)
        adapter.backend.set_parameters(self.module, parameters)
        self.lengths: Mapping[str, Any] = lengths_of(self.point.batch, problem.policy)
        self.variables = adapter.arrays(self.point.variables)
        self.inputs = {name: self.variables[name] for name in self.point.inputs}
        self.tangents = adapter.arrays(self.point.tangents)
        self.directions = adapter.arrays(self.point.directions)
        self.weights = adapter.arrays(self.point.weights)
        self.small = self.point.small
        self._names, self._call = self._split()

    def run(self, variables: Arrays, lengths: Mapping[str, Any] | None = None) -> Arrays:
        """The outputs, as a function of all variables."""
        inputs = {name: variables[name] for name in self.inputs}
        call = functools.partial(self._call, {name: variables[name] for name in self._names})
        return self.subject.call(call, inputs, self.lengths if lengths is None else lengths)

    def total(self, variables: Arrays, lengths: Mapping[str, Any] | None = None) -> Any:
        """The outputs' weighted sum."""
        return self.weigh(self.run(variables, lengths))

    def weigh(self, outputs: Arrays) -> Any:
        """Sum outputs up."""
        return sum((value * self.weights[name]).sum() for name, value in outputs.items())

    def vary(self, value: Any) -> Arrays:
        """The outputs, as a function of the small variable alone."""
        return self.run({**self.variables, self.small: value})

    def weigh_varied(self, value: Any) -> Any:
        """The weighted sum, as a function of the small variable alone."""
        return self.weigh(self.vary(value))

    def along(self, arrays: Arrays) -> Any:
        """The product of arrays, a gradient say, with the directions."""
        return sum((arrays[name] * value).sum() for name, value in self.directions.items())

    def at(self, point: str) -> Arrays:
        """The variables at another point."""
        return self.adapter.arrays(self.problem.points[point].variables)

    def call(self, module: Any, lengths: Mapping[str, Any] | None = None) -> Arrays:
        """The outputs of a module: the problem's, or a transformed one."""
        return self.subject.call(module, self.inputs, self.lengths if lengths is None else lengths)

    def _split(self) -> tuple[list[str], Callable[..., Any]]:
        if self.problem.is_frozen:
            return [], lambda _, *arguments: self.module(*arguments)
        if self.problem.function is not None:
            return list(self.point.parameters), self.problem.function
        parameters, call = self.adapter.functional(self.module)
        assert set(parameters) == set(self.point.parameters)
        return list(parameters), call


def function_problem(mode: str, **options: Any) -> Problem:
    """A recurrent layer, run as a function."""
    layer = Layer(mode, options)
    subject = replace(recurrent_subject(mode, **options), operation=layer.name.lower())
    return Problem(subject, function=layer.function)


# Layers are stacked by one function for all cells and implementations: the EncoderDecoderLSTM, and
# the frozen and the tied LSTM, show it. One layer alone is half as many operations for a compiler,
# in each of the derivatives.
LSTM, ONE_LSTM = SUBJECTS["LSTM"], recurrent_subject("LSTM", bidirectional=True)
GRU = recurrent_subject("GRU", bidirectional=True)
# Rows of one or three steps, normalised, curve more than `oracle.curvature` resolves.
TFT = "TemporalFusionTransformer"
CHANGED = {"LSTM": ONE_LSTM, "GRU": GRU, TFT: attention_subject(TFT, row_normalization=None)}
PROBLEMS: dict[str, Problem] = {
    "LSTM, never": Problem(ONE_LSTM, policy="never"),
    "LSTM, always": Problem(LSTM, policy="always"),
    "LSTM, no kernels": Problem(ONE_LSTM, kernels=False),
    "LSTM, frozen": Problem(LSTM, is_frozen=True),
    "LSTM, tied": Problem(LSTM, is_tied=True),
    "lstm, projection": function_problem("LSTM", proj_size=2),
    "GRU, never": Problem(GRU, policy="never"),
    "GRU, always": Problem(GRU, policy="always"),
    "GRU, no kernels": Problem(GRU, kernels=False),
    "gru, no bias": function_problem("GRU", bias=False),
    "RNN_TANH, never": Problem(SUBJECTS["RNN_TANH"], policy="never"),
    "RNN_RELU, no kernels": Problem(SUBJECTS["RNN_RELU"], kernels=False),
    **{name: Problem(CHANGED.get(name, subject)) for name, subject in SUBJECTS.items()},
}
