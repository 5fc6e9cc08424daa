"""What torch runs for a verdict on a CUDA kernel: `Trial` of `ragged.kernels.cuda.verdicts`.

No GPU has run it. Its check is tested by host threads that play one; its clock needs a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ragged.kernels.cuda import cubins
from ragged.kernels.cuda.verdicts import Question, shape_class
from ragged.lengths import Lengths
from ragged.recurrent.cells import CELLS
from ragged_torch.recurrent import scan
from ragged_torch.recurrent.cpp import Call
from ragged_torch.recurrent.cuda_kernels import Target, run_layer
from ragged_torch.recurrent.scan import WEIGHTS

SMALL = (3, 0, 7, 1, 3, 2, 0, 5)  # lengths of the batch that is checked
INPUTS = 8
ALLOWED = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-2}  # of the greatest value, and of 0.1

Run = Callable[["Arrays"], Sequence[Tensor]]


class Arrays(NamedTuple):
    """A batch for a layer.

    Args:
        x: `(batch, width, inputs)`, NaN at padding.
        states: h0 and c0.
        weights: in the order of `WEIGHTS`.
        lengths: `(batch,)` int32.
        call: what else a layer is told.
    """

    x: Tensor
    states: tuple[Tensor, Tensor]
    weights: tuple[Tensor, ...]
    lengths: Tensor
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


def ask(target: Target, driver: int, mode: str, hidden: int, x: Tensor) -> Question:
    """Name the verdict that a padded batch `(batch, time, features)` needs."""
    dtype = str(x.dtype).removeprefix("torch.")
    layer = (mode, hidden, dtype)
    return Question(
        target.device.name, driver, cubins.digest_sources(), *layer, *shape_class(*x.shape[:2])
    )


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
        self._question, self._target, self._device = question, target, device
        self._other, self._clock = other, clock

    def find_error(self) -> float:
        """Return the greatest error beside plain operations, both directions and all gradients."""
        allowed = ALLOWED[self._question.dtype]
        errors = []
        for reverse in (False, True):
            arrays = self._draw(torch.tensor(SMALL, dtype=torch.int32), max(SMALL) + 1, reverse)
            pairs = zip(_differentiate(self._kernel, arrays), _reference(arrays), strict=True)
            errors += [_error(found, right) / allowed for found, right in pairs]
        return max(errors, key=lambda error: (error != error, error))

    def time_kernel(self) -> float:
        """Return the seconds that the kernel takes."""
        return self._time(self._kernel)

    def time_other(self) -> float:
        """Return the seconds that what would run instead takes."""
        return self._time(self._other)

    def _time(self, run: Run) -> float:
        batch, width = self._question.batch, self._question.width
        lengths = torch.linspace(1, width, batch).to(torch.int32)
        arrays = self._draw(lengths, width, False)
        return self._clock(lambda: _differentiate(run, arrays))

    def _kernel(self, arrays: Arrays) -> Sequence[Tensor]:
        x, (h0, c0), weights, lengths, call = arrays
        return run_layer(x, h0, c0, weights, lengths, call, self._target)

    def _draw(self, lengths: Tensor, width: int, reverse: bool) -> Arrays:
        """Draw a batch; it changes no generator of the user's."""
        cell, hidden = CELLS[self._question.cell], self._question.hidden
        generator = torch.Generator().manual_seed(0)
        dtype = getattr(torch, self._question.dtype)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            values = torch.randn(shape, generator=generator) * scale
            return values.to(self._device, dtype).requires_grad_()

        batch, height = len(lengths), cell.gates * hidden
        x = torch.randn(batch, width, INPUTS, generator=generator)
        x[torch.arange(width) >= lengths[:, None]] = torch.nan
        shapes = (height, INPUTS), (height, hidden), (height,), (height,)
        weights = tuple(draw(*shape, scale=hidden**-0.5) for shape in shapes)
        states = draw(batch, hidden), draw(batch, hidden if "c" in cell.states else 0)
        given = x.to(self._device, dtype).requires_grad_()
        call = Call(cell.mode, width, reverse)
        return Arrays(given, states, weights, lengths.to(self._device), call)


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
    rows = Lengths(lengths, call.width)
    return scan.run_layer(call.mode, named, x, rows, h0, c0, reverse=call.reverse)


def _error(found: Tensor, right: Tensor) -> float:
    error = (found.detach().float() - right.detach()).abs().max()
    return float(error / (0.1 + right.detach().abs().max()))
