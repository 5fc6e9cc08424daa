"""Keras 3's LSTM with a mask, in a process of its own for each of its backends.

Keras chooses its backend when it is imported, so each one is a worker: it makes one pass for each
request, and its caller, who waits, takes the time. So it takes turns with all others.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.passes import JaxPass, Run, Work, torch_pass


class Worker:
    """Keras on one of its backends, "torch" or "jax", in another process."""

    def __init__(self, backend: str, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, backend, device), daemon=True)
        self._process.start()

    def run(self, case: Case, lengths: np.ndarray, backward: bool = True) -> Run:
        """Prepare a pass there; each call of what is returned makes one."""
        key = (case, lengths.tobytes(), backward)
        self._ask(("prepare", key, lengths))
        return lambda: self._ask(("run", key, None))

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(10)

    def _ask(self, request: tuple[Any, ...]) -> Any:
        self._pipe.send(request)
        found = self._pipe.recv()
        if isinstance(found, Exception):
            raise found
        return found


def _serve(pipe: Any, backend: str, device: str) -> None:
    with tempfile.TemporaryDirectory() as home:  # Keras writes its settings into a folder
        os.environ |= {"KERAS_BACKEND": backend, "KERAS_HOME": home}
        makers: dict[Case, Any] = {}
        runs: dict[Any, Run] = {}
        while (request := pipe.recv()) is not None:
            verb, key, lengths = request
            try:
                if verb == "prepare":
                    case, _, backward = key
                    if case not in makers:  # one at a time: the old one's memory is given back
                        makers, runs = {case: _maker(Work(case, device), backend)}, {}
                    runs[key] = makers[case](lengths, backward)
                    pipe.send(None)
                else:
                    pipe.send(runs[key]())
            except Exception as error:
                pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _maker(work: Work, backend: str) -> Callable[[np.ndarray, bool], Run]:
    """Build the layers once for all lengths; return what prepares a run."""
    layers = _layers(work)
    steps = np.arange(work.case.width)
    if backend == "torch":
        import torch

        variables = [v.value for layer in layers for v in layer.trainable_variables]

        def torch_run(lengths: np.ndarray, backward: bool) -> Run:
            mask = torch.from_numpy(steps < lengths[:, None]).to(work.device)
            return torch_pass(
                lambda x: _forward([_call(each) for each in layers], x, mask, torch.stack),
                variables,
                work.x,
                work.factor(lengths),
                device=work.device,
                backward=backward,
            )

        return torch_run
    import jax
    import jax.numpy as jnp

    def forward(parameters: Any, x: Any, lengths: Any) -> tuple[Any, Any]:
        calls = [_stateless(*pair) for pair in zip(layers, parameters, strict=True)]
        return _forward(calls, x, jnp.arange(x.shape[1]) < lengths[:, None], jnp.stack)

    values = [[v.value for v in layer.trainable_variables] for layer in layers]
    made = JaxPass(forward, values, work.x, work.device)

    def jax_run(lengths: np.ndarray, backward: bool) -> Run:
        counts = jax.device_put(lengths.astype(np.int32), made.device)
        return made(counts, work.factor(lengths), backward)

    return jax_run


def _layers(work: Work) -> list[Any]:
    """One Keras layer for each of ours, with the same parameters."""
    import keras

    case, layers = work.case, []
    per_layer = case.directions
    directions = work.directions()
    for start in range(0, len(directions), per_layer):
        layer = keras.layers.LSTM(
            case.hidden, return_sequences=True, return_state=True, unroll=False
        )
        layer = keras.layers.Bidirectional(layer) if case.bidirectional else layer
        layer.build((case.batch, case.width, case.layer_inputs[start]))
        weights = []
        for w_ih, w_hh, b_ih, b_hh in directions[start : start + per_layer]:
            weights += [w_ih.T, w_hh.T, b_ih + b_hh]
        layer.set_weights(weights)
        layers.append(layer)
    return layers


def _call(layer: Any) -> Callable[[Any, Any], Any]:
    return lambda x, mask: layer(x, mask=mask)


def _stateless(layer: Any, values: list[Any]) -> Callable[[Any, Any], Any]:
    rest = [variable.value for variable in layer.non_trainable_variables]
    return lambda x, mask: layer.stateless_call(values, rest, x, mask=mask)[0]


def _forward(calls: list[Any], x: Any, mask: Any, stack: Any) -> tuple[Any, Any]:
    cells = []
    for call in calls:
        x, *states = call(x, mask)
        cells += states[1::2]  # h and c of each direction
    return x, stack(cells)
