"""Whether a CUDA kernel may run in torch, and what is run for that verdict.

No GPU has run it. Its check is tested by host threads that play one; its clock needs a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.errors import KernelError
from ragged.kernels.cuda.verdicts import (
    ALLOWED,
    INPUTS,
    Judge,
    Question,
    Verdict,
    checked_lengths,
)
from ragged.lengths import Lengths
from ragged.recurrent.cells import CELLS
from ragged.recurrent.dispatch import LayerCall, verdict_question
from ragged_torch.arrays import name
from ragged_torch.precision import use_tf32
from ragged_torch.recurrent import scan
from ragged_torch.recurrent.cpp import Call
from ragged_torch.recurrent.cuda_kernels import Target, find_target, run_layer
from ragged_torch.recurrent.scan import WEIGHTS

Run = Callable[["Arrays"], Sequence[Tensor]]
JUDGE = Judge()


class Arrays(NamedTuple):
    """A batch for a layer.

    Args:
        x: `(batch, width, inputs)`, NaN at padding.
        states: h0 and c0.
        weights: in the order of `WEIGHTS`.
        lengths: of the rows, on the host and on the device.
        call: what else a layer is told.
    """

    x: Tensor
    states: tuple[Tensor, Tensor]
    weights: tuple[Tensor, ...]
    lengths: Lengths
    call: Call

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What gradients are taken of."""
        return (self.x, *self.states, *self.weights)


def cuda_clock(run: Callable[[], object]) -> float:
    """Return the seconds that a GPU takes for what is launched on its current stream."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def ask(target: Target, call: LayerCall) -> Question:
    """Name the verdict that a call needs."""
    device, backend = target.device, f"{name} {torch.__version__}"
    return verdict_question(call, backend, device.name, device.driver.version)


def find_verdict(call: LayerCall, other: Run) -> Verdict | None:
    """Find the verdict on the kernel of a call, by a trial if there was none.

    Args:
        call: on a CUDA device that kernels can be launched on.
        other: what would run instead.

    Returns:
        The verdict; None where there is none and a CUDA graph is captured, in which nothing can be
        timed.
    """
    target = find_target(call.device_index)
    assert target is not None
    question, device = ask(target, call), torch.device("cuda", call.device_index)
    if not JUDGE.knows(question):
        with torch.cuda.device(device):  # whose current stream is asked
            if torch.cuda.is_current_stream_capturing():
                return None
    return JUDGE.decide(question, TorchTrial(question, target, device, other))


def alone(held: Callable[[TorchTrial], float]) -> Callable[[TorchTrial], float]:
    """Hold a part of a trial whatever torch does around the call that asks for it."""

    @wraps(held)
    def hold(trial: TorchTrial) -> float:
        device = trial.device
        off = torch.autocast(device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), off, use_tf32(False):
            try:
                with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                    return held(trial)
            except torch.OutOfMemoryError as error:
                expected, remedy = "memory for a trial", "Set RAGGED_KERNELS=0 to hold none."
                raise KernelError.of("trial", "device", error, expected, remedy) from error

    return hold


class TorchTrial:
    """A trial of a kernel in torch.

    Args:
        question: what the verdict is about.
        target: where the kernel is launched.
        device: the same as torch names it.
        other: what would run instead.
        clock: measures a run.
    """

    def __init__(
        self,
        question: Question,
        target: Target,
        device: torch.device,
        other: Run,
        clock: Callable[[Callable[[], object]], float] = cuda_clock,
    ) -> None:
        self._question, self._target, self.device = question, target, device
        self._other, self._clock = other, clock

    @alone
    def find_error(self) -> float:
        """Return the greatest error beside plain operations, both directions and all gradients."""
        allowed = ALLOWED[self._question.dtype]
        errors = []
        for reverse, lengths in enumerate(checked_lengths(self._question.batch)):
            arrays = self._draw(lengths, max(lengths) + 1, bool(reverse))
            pairs = zip(_differentiate(self._kernel, arrays), _reference(arrays), strict=True)
            errors += [_error(found, right) / allowed for found, right in pairs]
        return max(errors, key=lambda error: (error != error, error))

    @alone
    def time_kernel(self) -> float:
        """Return the seconds that the kernel takes."""
        return self._time(self._kernel)

    @alone
    def time_other(self) -> float:
        """Return the seconds that what would run instead takes."""
        return self._time(self._other)

    def _time(self, run: Run) -> float:
        batch, width = self._question.batch, self._question.width
        lengths = np.linspace(1, width, batch).astype(int).tolist()
        arrays = self._draw(lengths, width, False)
        return self._clock(lambda: _differentiate(run, arrays))

    def _kernel(self, arrays: Arrays) -> Sequence[Tensor]:
        x, (h0, c0), weights, lengths, call = arrays
        count = lengths.to(load_backend(name), x).to(torch.int32)
        return run_layer(x, h0, c0, weights, count, call, self._target)

    def _draw(self, lengths: Sequence[int], width: int, reverse: bool) -> Arrays:
        """Draw a batch; it changes no generator of the user's."""
        cell, hidden = CELLS[self._question.cell], self._question.hidden
        generator = torch.Generator("cpu").manual_seed(0)
        dtype = getattr(torch, self._question.dtype)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            values = torch.randn(shape, generator=generator, device="cpu") * scale
            return values.to(self.device, dtype).requires_grad_()

        batch, height = len(lengths), cell.gates * hidden
        x = torch.randn(batch, width, INPUTS, generator=generator, device="cpu")
        for row, length in enumerate(lengths):
            x[row, length:] = torch.nan
        shapes = (height, INPUTS), (height, hidden), (height,), (height,)
        weights = tuple(draw(*shape, scale=hidden**-0.5) for shape in shapes)
        states = draw(batch, hidden), draw(batch, hidden if "c" in cell.states else 0)
        given = x.to(self.device, dtype).requires_grad_()
        call = Call(cell.mode, width, reverse)
        rows = Lengths(lengths, width).on_device(load_backend(name), given)
        return Arrays(given, states, weights, rows, call)


def _differentiate(run: Run, arrays: Arrays) -> list[Tensor]:
    """Return outputs and the gradients of the sum of their squares."""
    outputs = [each for each in run(arrays) if each.numel()]
    loss = torch.stack([each.float().square().sum() for each in outputs]).sum()
    inputs = [each for each in arrays.inputs if each.numel()]
    return [*outputs, *torch.autograd.grad(loss, inputs)]


def _reference(arrays: Arrays) -> list[Tensor]:
    """Return the same by plain operations in float32."""
    x, states, weights, lengths, call = arrays
    exact = [each.detach().float().requires_grad_() for each in (x, *states, *weights)]
    given = Arrays(exact[0], (exact[1], exact[2]), tuple(exact[3:]), lengths, call)
    return _differentiate(_run_plain, given)


def _run_plain(arrays: Arrays) -> Sequence[Tensor]:
    x, (h0, c0), weights, lengths, call = arrays
    named = dict(zip(WEIGHTS, weights, strict=True))
    return scan.run_layer(call.mode, named, x, lengths, h0, c0, reverse=call.reverse)


def _error(found: Tensor, right: Tensor) -> float:
    error = (found.detach().float() - right.detach()).abs().max()
    return float(error / (0.1 + right.detach().abs().max()))
