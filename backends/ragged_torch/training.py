"""One training step and one prediction of a forecasting model, on torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ragged.losses import MaskedLoss
from ragged.models.base import Forecast, check_batch
from ragged.optimizer import AdamW
from ragged_torch.arrays import to_numpy
from ragged_torch.parameters import place

SLOTS = ("exp_avg", "exp_avg_sq")


class TrainingStep:
    """A model, its loss and its optimiser, advanced batch by batch.

    Args:
        model: a forecasting module.
        loss: one of `ragged.losses`, or what is called as they are.
        optimizer: the optimiser's constants.
        seed: seed of dropout; step n draws from (seed, n), so that a resumed run draws the same.
        device: "cpu" or "cuda".
        dtype: "float32" or "float64".
    """

    def __init__(
        self,
        model: nn.Module,
        loss: MaskedLoss,
        optimizer: AdamW,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self.model = place(model, device=device, dtype=dtype)
        self.loss = loss
        self.constants = optimizer
        self.seed, self.device, self.dtype = seed, device, dtype
        self.steps = 0
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=optimizer.learning_rate,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
        )

    def step(self, batch: Any) -> float:
        """Advance by one batch and return its mean loss before the step."""
        self.model.train()
        self.optimizer.zero_grad()
        with _own_random_state(self.seed, self.steps, self.device):
            loss = self.loss(*self._forecast(batch), lengths=batch.decoder_lengths)
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        _clip(gradients, self.constants.gradient_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.constants.rate(self.steps)
        self.optimizer.step()
        self.steps += 1
        return float(loss.detach())

    def evaluate(self, batch: Any) -> tuple[float, float]:
        """Return the sum of the losses and of the weights of one batch, in inference mode."""
        self.model.eval()
        with torch.no_grad():
            total, count = self.loss.total_and_count(
                *self._forecast(batch), lengths=batch.decoder_lengths
            )
        return float(total), float(count)

    def module(self) -> nn.Module:
        """Return the model with its current parameters."""
        return self.model

    def state(self) -> dict[str, np.ndarray]:
        """Copy the optimiser's state to the host under canonical names."""
        state = {"steps": np.array(self.steps)}
        for name, parameter in self.model.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            for slot in SLOTS:
                moment = moments.get(slot, torch.zeros_like(parameter))
                state[f"{slot}.{name}"] = to_numpy(moment).copy()
        return state

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Undo `state`."""
        self.steps = int(state["steps"])
        for name, parameter in self.model.named_parameters():
            if self.steps:
                moments = {slot: torch.from_numpy(state[f"{slot}.{name}"]) for slot in SLOTS}
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.steps)),
                    **{slot: moment.to(parameter) for slot, moment in moments.items()},
                }

    def _forecast(self, batch: Any) -> tuple[Tensor, Tensor]:
        dtype = getattr(torch, self.dtype)
        output = _run(self.model, batch, self.device, dtype).output
        return output, _array(batch.target, self.device, dtype)


def predict(module: nn.Module, batch: Any, *, need_weights: bool = False) -> Forecast:
    """Return the forecast of a host batch in inference mode, on the host.

    It runs where the module is, in its dtype; the module's mode is kept.
    """
    weight = next(module.parameters())
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            found = _run(module, batch, weight.device, weight.dtype, need_weights)
    finally:
        for m, training in modes.items():
            m.training = training
    return Forecast(*(None if array is None else to_numpy(array) for array in found))


def _run(
    model: nn.Module, batch: Any, device: Any, dtype: torch.dtype, need_weights: bool = False
) -> Forecast:
    check_batch(model.config, batch)
    past, future = _array(batch.past, device, dtype), _array(batch.future, device, dtype)
    asked = {"need_weights": True} if need_weights else {}
    return model(past, future, batch.encoder_lengths, batch.decoder_lengths, **asked)


def _array(array: np.ndarray, device: Any, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(array).to(device=device, dtype=dtype)


def _clip(gradients: list[Tensor], limit: float | None) -> None:
    """Scale to the norm `limit` exactly, as optax does; torch's own adds 1e-6 to the norm."""
    if limit is not None:
        norm = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (limit / norm).clamp(max=1.0))


@contextmanager
def _own_random_state(seed: int, step: int, device: str) -> Iterator[None]:
    """Seed dropout for one step and give the user's generators back as they were."""
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.default_rng([seed, step]).integers(2**62)))
        yield
