"""Modules under test, whose programs are compiled once for all tests that run them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import fill_padding, normal
from ragged_conformance.evaluation import compiled, one_thread, to_numpy
from ragged_conformance.subjects import SUBJECTS, Batch

Results = dict[str, np.ndarray]


class Runner:
    """One subject on one backend, built once, in inference mode.

    Eager frameworks run it as it stands. JAX, whose single operations take longer to compile than
    the whole, compiles a program for each form of lengths, which stay on the host: they are those
    of a user who hands them over outside of `jax.jit`.
    """

    def __init__(self, adapter: Adapter, name: str) -> None:
        self.adapter, self.subject = adapter, SUBJECTS[name]
        with ragged.use_backend(adapter.name):
            self.module = adapter.prepare(self.subject.build())
        self._programs: dict[Any, Callable[..., Any]] = {}

    def run(self, batch: Batch, lengths: Any = None) -> Results:
        """Run the module on a batch and copy its outputs to the host."""
        lengths = batch.lengths if lengths is None else lengths

        def forward(arrays: Any) -> Any:
            return self.subject.call(self.module, arrays, lengths)

        with one_thread(self.adapter):
            found = self._program("run", lengths, forward)(self.adapter.arrays(batch.arrays))
        return to_numpy(self.adapter, found)

    def gradients(self, batch: Batch, lengths: Any = None) -> Results:
        """Differentiate a weighted sum of the outputs and a masked loss by all there is."""
        own, call = self.adapter.functional(self.module)
        lengths = batch.lengths if lengths is None else lengths

        def total(values: Any) -> Any:
            parameters = {name: values[name] for name in own}
            outputs = self.subject.call(lambda *a: call(parameters, *a), values, lengths)
            result = 0.0
            for name, output in outputs.items():
                weight = self.adapter.array(normal(*output.shape, seed=8))
                result = result + (output * weight).sum()
                if name in self.subject.sequences:
                    n = batch.lengths[self.subject.sequences[name]]
                    target = self.adapter.array(fill_padding(normal(*output.shape, seed=9), n))
                    result = result + ragged.losses.mse(output, target, lengths=n)
            return result

        with one_thread(self.adapter):
            differentiate = self._program(
                "gradients", lengths, lambda values: self.adapter.differentiate(total, values)
            )
            found = differentiate({**self.adapter.arrays(batch.arrays), **own})
        return to_numpy(self.adapter, found)

    def _program(self, what: str, lengths: Any, function: Callable[..., Any]) -> Any:
        key = (what, *((name, _key(value)) for name, value in lengths.items()))
        if key not in self._programs:
            self._programs[key] = compiled(self.adapter, function)
        return self._programs[key]


@functools.cache
def runner(adapter: Adapter, name: str) -> Runner:
    """The runner of a subject of `subjects`, one for all tests."""
    return Runner(adapter, name)


def _key(lengths: Any) -> Any:
    if isinstance(lengths, ragged.Lengths):
        return (lengths.width, lengths.policy, *lengths.host.tolist())
    return None if lengths is None else (str(type(lengths)), *np.asarray(lengths).tolist())
