"""Layers and models under test, whose programs are compiled once for all tests that run them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import normal
from ragged_conformance.evaluation import (
    Evaluate,
    Results,
    evaluator,
    forward,
    one_thread,
    shapes,
    to_numpy,
)
from ragged_conformance.subjects import Batch, Subject

WIDER = 3  # steps of padding that a wide batch has beyond a subject's batch


class Runner:
    """One subject on one backend, built once, in inference mode.

    Eager frameworks run it directly. JAX, which would take longer to compile single operations,
    compiles one program a shape; lengths are traced, or `Lengths` of the host, as users pass them.
    """

    def __init__(self, adapter: Adapter, subject: Subject, *, traced: bool) -> None:
        self.adapter, self.subject, self._traced = adapter, subject, traced
        with ragged.use_backend(adapter.name):
            self.module = adapter.prepare(subject.build())
        self._run = forward(adapter, self._call)

    def _call(self, arrays: Any, lengths: Any) -> Any:
        return self.subject.call(self.module, arrays, lengths)

    def run(self, batch: Batch, lengths: Mapping[str, Any] | None = None) -> Results:
        """The outputs of a batch."""
        arrays = {name: batch.arrays[name] for name in self.subject.batch.arrays}
        return self._run(self.adapter.arrays(arrays), self._lengths(batch, lengths))

    def run_uncompiled(self, batch: Batch, lengths: Mapping[str, Any]) -> Results:
        """The outputs of a batch without compilation, for lengths of any form."""
        with one_thread(self.adapter):
            outputs = self.subject.call(self.module, self.adapter.arrays(batch.arrays), lengths)
        return to_numpy(self.adapter, outputs)

    def evaluate(
        self, batch: Batch, lengths: Mapping[str, Any] | None = None
    ) -> tuple[Results, Results]:
        """The outputs of a completed batch, and all gradients."""
        inputs = {name: x for name, x in batch.arrays.items() if not name.startswith("weights")}
        weights = {name: x for name, x in batch.arrays.items() if name not in inputs}
        native = self.adapter.arrays
        return self._evaluate(
            {**native(inputs), **self.parameters},
            {**native(weights), "lengths": self._lengths(batch, lengths)},
        )

    @functools.cached_property
    def batch(self) -> Batch:
        """The subject's batch, completed."""
        return self.complete(self.subject.batch)

    def complete(self, batch: Batch, seed: int = 0) -> Batch:
        """Add what `evaluate` sums: the `weights of` each output, a `target of` each sequence."""
        arrays, lengths, subject_batch = dict(batch.arrays), dict(batch.lengths), self.subject.batch
        for output, features in self.features.items():
            shape: tuple[int, ...] = (len(next(iter(batch.arrays.values()))), *features)
            if output in self.subject.sequences:
                source = self.subject.sequences[output]
                target, width = f"target of {output}", subject_batch.arrays[source].shape[1] + WIDER
                shape = (shape[0], width, *features)
                arrays[target] = normal(*arrays[source].shape[:2], *features, seed=seed)
                lengths[target] = lengths[source]
            arrays[f"weights of {output}"] = normal(*shape, seed=seed + 1)
        return Batch(arrays, lengths)

    @functools.cached_property
    def features(self) -> dict[str, tuple[int, ...]]:
        """The shape of one row, or of one step, of each output."""
        batch, sequences = self.subject.batch, self.subject.sequences
        arrays, lengths = self.adapter.arrays(batch.arrays), self._lengths(batch, None)
        found = shapes(self.adapter, self._call, arrays, lengths)
        return {name: shape[2 if name in sequences else 1 :] for name, shape in found.items()}

    @property
    def parameters(self) -> dict[str, Any]:
        """The module's parameters by name."""
        return self._functional[0]

    @functools.cached_property
    def _functional(self) -> tuple[dict[str, Any], Any]:
        return self.adapter.functional(self.module)

    @functools.cached_property
    def _evaluate(self) -> Evaluate:
        parameters, call = self._functional

        def function(inputs: Any, constants: Any) -> tuple[Any, Any]:
            params, lengths = {name: inputs[name] for name in parameters}, constants["lengths"]
            outputs = self.subject.call(lambda *args: call(params, *args), inputs, lengths)
            return self._total(outputs, inputs, constants), outputs

        return evaluator(self.adapter, function)

    def _total(self, outputs: Any, inputs: Any, constants: Any) -> Any:
        """Sum what is additive over rows: the outputs, and a masked loss of those with steps."""
        total = 0.0
        for name, output in outputs.items():
            weights = constants[f"weights of {name}"]
            if name in self.subject.sequences:
                target, weights = f"target of {name}", weights[:, : output.shape[1]]
                lengths = constants["lengths"][target]
                total = total + ragged.losses.mse(
                    output, inputs[target], lengths=lengths, reduction="sum"
                )
            total = total + (weights * output).sum()
        return total

    def _lengths(self, batch: Batch, lengths: Mapping[str, Any] | None) -> dict[str, Any]:
        if lengths is not None:
            return dict(lengths)
        return self.adapter.arrays(batch.lengths) if self._traced else lengths_of(batch, "auto")


def lengths_of(batch: Batch, policy: str) -> dict[str, ragged.Lengths]:
    """A batch's lengths with a policy."""
    return {
        name: ragged.Lengths(n, batch.arrays[name].shape[1], policy=policy)
        for name, n in batch.lengths.items()
    }


@functools.cache
def runner(adapter: Adapter, subject: Subject, *, traced: bool = False) -> Runner:
    """The runner of a subject, one for all tests."""
    return Runner(adapter, subject, traced=traced or subject.forwards_lengths)
