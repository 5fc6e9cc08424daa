"""Whether a kernel may run on a GPU in JAX, ours or cuDNN's, and what is run for that verdict.

A program is lowered before it runs, so the trial is a program of its own that runs meanwhile. No
GPU has run it; its check is tested by host threads that play one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ragged.errors import KernelError
from ragged.kernels.cuda.driver import load_driver
from ragged.kernels.cuda.verdicts import (
    ALLOWED,
    CUDNN,
    INPUTS,
    Judge,
    Question,
    Verdict,
    checked_lengths,
)
from ragged.recurrent.cells import CELLS
from ragged.recurrent.dispatch import LayerCall, verdict_question
from ragged_jax.arrays import find_gpu, name
from ragged_jax.precision import use_tf32
from ragged_jax.recurrent import cuda_kernels, cudnn, scan
from ragged_jax.recurrent.cuda_kernels import Target, find_target

JUDGE = Judge()
Clock = Callable[[Callable[[], Any]], float]
Passes = Mapping[str, Callable[..., tuple[Array, ...]]]
Program = Callable[..., list[Array]]


class Arrays(NamedTuple):
    """A batch for a layer.

    Args:
        lengths: `(batch,)` int32.
        x: `(batch, width, inputs)`, NaN at padding.
        h0: `(batch, hidden)`.
        c0: `(batch, hidden)`, or of no features.
        weights: in the order of `WEIGHTS`.
    """

    lengths: Array
    x: Array
    h0: Array
    c0: Array
    weights: tuple[Array, ...]


def host_clock(run: Callable[[], Any]) -> float:
    """Return the seconds that a run takes, which waits for its results."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def ask(target: Target, call: LayerCall) -> Question:
    """Name the verdict that a call needs."""
    return _ask(call, target.name)


def _ask(call: LayerCall, device: str) -> Question:
    driver = load_driver()
    backend = f"{name} {jax.__version__}"
    return verdict_question(call, backend, device, driver.version if driver else 0)


def find_verdict(call: LayerCall, other: Callable[[], Passes] = lambda: scan.PASSES) -> Verdict:
    """Find the verdict on our kernel of a call, by a trial if there was none.

    Args:
        call: on GPUs that kernels can be launched on.
        other: gives what would run instead.
    """
    target = find_target()
    assert target is not None
    question = ask(target, call)
    launched = {key: partial(run, target=target) for key, run in cuda_kernels.PASSES.items()}
    return JUDGE.decide(question, JaxTrial(question, launched, other))


def find_cudnn_verdict(call: LayerCall) -> Verdict:
    """Find the verdict on cuDNN for a call that it takes, by a trial if there was none."""
    device = cudnn.find_device()
    assert device is not None
    question = _ask(call, device)._replace(sources=f"{CUDNN} of JAX {jax.__version__}")
    return JUDGE.decide(question, JaxTrial(question, cudnn.PASSES, lambda: scan.PASSES))


def alone(held: Callable[[JaxTrial], float]) -> Callable[[JaxTrial], float]:
    """Hold a part of a trial on a GPU, whatever is set around the program that asks for it."""

    @wraps(held)
    def hold(trial: JaxTrial) -> float:
        on_gpu = jax.default_device(find_gpu())
        with on_gpu, use_tf32(False), jax.debug_nans(False), jax.disable_jit(False):
            return held(trial)

    return hold


class JaxTrial:
    """A trial of a kernel in JAX, checked against the scan.

    Args:
        question: what the verdict is about.
        passes: that launch the kernel.
        other: gives what would run instead.
        clock: measures a run.
    """

    def __init__(
        self,
        question: Question,
        passes: Passes,
        other: Callable[[], Passes],
        clock: Clock = host_clock,
    ) -> None:
        self._question, self._find_other, self._clock = question, other, clock
        self._kernel, self._exact = self._compile(passes), self._compile(scan.PASSES)

    @alone
    def find_error(self) -> float:
        """Return the greatest error beside plain operations, both directions and all gradients."""
        allowed = ALLOWED[self._question.dtype]
        errors = []
        for k, lengths in enumerate(checked_lengths(self._question.batch)):
            arrays, reverse = self._draw(np.array(lengths), max(lengths) + 1), bool(k)
            exact = jax.tree.map(_in_float32, arrays)
            found, right = _run(self._kernel, arrays, reverse), _run(self._exact, exact, reverse)
            pairs = zip(found, right, strict=True)
            errors += [_error(*pair) / allowed for pair in pairs if pair[1].size]
        return max(errors, key=lambda error: (error != error, error))

    @alone
    def time_kernel(self) -> float:
        """Return the seconds that the kernel takes."""
        return self._time(self._kernel)

    @alone
    def time_other(self) -> float:
        """Return the seconds that what would run instead takes."""
        return self._time(self._other)

    @cached_property
    def _other(self) -> Program:
        return self._compile(self._find_other())

    def _time(self, program: Program) -> float:
        batch, width = self._question.batch, self._question.width
        arrays = self._draw(np.linspace(1, width, batch).astype(int), width)
        _run(program, arrays, False)  # which compiles it where it was not
        return self._clock(lambda: _run(program, arrays, False))

    def _compile(self, passes: Passes) -> Program:
        """Make one program of both passes, for the runs that are timed not to compile it anew."""
        run = partial(_differentiate, passes, mode=self._question.cell)
        return jax.jit(run, static_argnames="reverse")

    def _draw(self, lengths: np.ndarray, width: int) -> Arrays:
        """Draw a batch."""
        cell, hidden = CELLS[self._question.cell], self._question.hidden
        generator = np.random.default_rng(0)

        def draw(*shape: int, scale: float = 1.0) -> Array:
            return jnp.asarray(generator.normal(size=shape) * scale, self._question.dtype)

        batch, height = len(lengths), cell.gates * hidden
        valid = np.arange(width) < lengths[:, None]
        x = jnp.where(valid[..., None], draw(batch, width, INPUTS), jnp.nan)
        shapes = (height, INPUTS), (height, hidden), (height,), (height,)
        weights = tuple(draw(*shape, scale=hidden**-0.5) for shape in shapes)
        states = draw(batch, hidden), draw(batch, hidden if "c" in cell.states else 0)
        return Arrays(jnp.asarray(lengths, jnp.int32), x, *states, weights)


def _run(program: Program, arrays: Arrays, reverse: bool) -> list[Array]:
    """Run a program and wait for it, since an error may come as late as its results."""
    try:
        return jax.block_until_ready(program(arrays, reverse=reverse))
    except jax.errors.JaxRuntimeError as error:
        expected, remedy = "a trial that runs", "Set RAGGED_KERNELS=0 to hold none."
        raise KernelError.of("trial", "kernel", error, expected, remedy) from error


def _differentiate(passes: Any, arrays: Arrays, *, mode: str, reverse: bool) -> list[Array]:
    """Return outputs and the gradients of half the sum of their squares."""
    lengths, x, h0, c0, weights = arrays
    options = {"mode": mode, "layout": "padded", "width": x.shape[1]}
    options |= {"reverse": reverse, "start": "zeros"}
    fixed = lengths, jnp.zeros((len(x), 0), bool)
    inputs = (x, h0, c0, *weights)
    y, h, c, kept = passes["recurrent_forward"](*fixed, *inputs, keep=True, **options)
    known = (x, h0, c0, *weights, y, kept)
    backward = passes["recurrent_backward"]
    return [y, h, c, *backward(*fixed, *known, y, h, c, wants_x=True, **options)]


def _in_float32(array: Array) -> Array:
    return array.astype(jnp.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _error(found: Array, right: Array) -> float:
    error = jnp.abs(found.astype(jnp.float32) - right).max()
    return float(error / (0.1 + jnp.abs(right).max()))
