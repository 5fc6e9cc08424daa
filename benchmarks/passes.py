"""One training pass, the same for all: outputs and states, a loss of both, all gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.cases import Case
from ragged.recurrent import init as initial

Run = Callable[[], float]


@dataclass(frozen=True)
class Work:
    """What every contestant is given: the same input, factor and parameters, on the host."""

    case: Case
    device: str = "cpu"

    @cached_property
    def x(self) -> np.ndarray:
        """The input, `(batch, width, inputs)`."""
        return self._draw(1, self.case.inputs)

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """An LSTM's parameters under the names of `torch.nn.LSTM`."""
        return dict(initial.recurrent_values(initial.generator(0), self.case.shape))

    def factor(self, lengths: np.ndarray) -> np.ndarray:
        """What outputs are multiplied by, so that no gradient is trivial; 0 at padding."""
        factor = self._draw(2, self.case.hidden * self.case.directions)
        return factor * (np.arange(self.case.width) < lengths[:, None])[..., None]

    def directions(self) -> list[tuple[np.ndarray, ...]]:
        """For each layer and direction: weight_ih, weight_hh, bias_ih, bias_hh."""
        values = list(self.parameters.values())
        return [tuple(values[start : start + 4]) for start in range(0, len(values), 4)]

    def _draw(self, seed: int, features: int) -> np.ndarray:
        shape = (self.case.batch, self.case.width, features)
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def torch_pass(
    forward: Callable[[Any], tuple[Any, Any]],
    parameters: Iterable[Any],
    x: np.ndarray,
    factor: np.ndarray,
    *,
    device: str,
    backward: bool,
) -> Run:
    """Time `forward(x) -> (y, c)`; `backward` adds the gradients by x and all parameters."""
    import torch

    held = list(parameters)
    leaf = torch.from_numpy(x).to(device).requires_grad_(backward)
    weight = torch.from_numpy(factor).to(device)

    def run() -> float:
        with torch.set_grad_enabled(backward):
            y, c = forward(leaf)
            loss = (y * weight).sum() + c.sum()
            if backward:
                for tensor in (leaf, *held):
                    tensor.grad = None
                loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return float(loss.detach())

    return run


class JaxPass:
    """The same in JAX: `forward(parameters, x, lengths) -> (y, c)`, compiled once for all lengths.

    What is compiled is kept from one spread of lengths to the next, as it is in training.
    """

    def __init__(self, forward: Any, parameters: Any, x: np.ndarray, device: str) -> None:
        import jax
        import ragged_jax

        self.device = jax.devices("gpu" if device == "cuda" else "cpu")[0]
        self.parameters, self.x = jax.device_put((parameters, x), self.device)

        def loss(parameters: Any, x: Any, lengths: Any, factor: Any) -> Any:
            y, c = forward(parameters, x, lengths)
            return (y * factor).sum() + c.sum()

        self.compiled: dict[bool, Any] = {
            True: ragged_jax.jit(jax.value_and_grad(loss, argnums=(0, 1))),
            False: ragged_jax.jit(loss),
        }

    def __call__(self, lengths: Any, factor: np.ndarray, backward: bool) -> Run:
        """Take lengths of the kind that `forward` wants, ready to run."""
        import jax

        weight = jax.device_put(factor, self.device)
        compiled = self.compiled[backward]

        def run() -> float:
            found = jax.block_until_ready(compiled(self.parameters, self.x, lengths, weight))
            return float(found[0] if backward else found)

        return run

    def prepare(self, lengths: Any, factor: np.ndarray) -> Run:
        """Compile the training pass without running it, so that only the step needs memory."""
        import jax

        weight = jax.device_put(factor, self.device)
        ready = self.compiled[True].lower(self.parameters, self.x, lengths, weight).compile()
        return lambda: float(
            jax.block_until_ready(ready(self.parameters, self.x, lengths, weight))[0]
        )

    @property
    def programs(self) -> int:
        """How many training passes were compiled so far."""
        return int(self.compiled[True]._cache_size())
