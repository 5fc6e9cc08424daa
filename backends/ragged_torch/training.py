"""One training step and one prediction of a forecasting model, on torch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, SupportsFloat

import numpy as np
import torch
from torch import Tensor, nn

from ragged.losses import MaskedLoss
from ragged.models.base import Forecast
from ragged.models.modules import check_batch
from ragged.training import optimizers
from ragged.training.cuda_graphs import warn_without_graphs
from ragged.training.distributed import shard_batch
from ragged.training.optimizers import Optimizer
from ragged.training.precision import LossScale, compute_dtype, param_dtype, ramped_decay
from ragged_torch.arrays import to_numpy
from ragged_torch.cuda_graphs import StepGraphs, graphs_reason
from ragged_torch.distributed import ProcessGroup
from ragged_torch.parameters import to
from ragged_torch.precision import use_tf32
from ragged_torch.transfers import (
    BatchBuffers,
    LateNumber,
    PlacedBatch,
    place_batch,
    place_inputs,
)


class TrainingStep:
    """A model, its loss and its optimiser, advanced batch by batch.

    Args:
        model: a forecasting module.
        loss: one of `ragged.losses`, or a function with their interface.
        optimizer: the optimiser's constants.
        max_grad_norm: largest global norm of the gradient; None = any.
        ema_decay: decay of a running average of the parameters, which is then evaluated and saved
            in their place; None = none.
        seed: seed of dropout; step n draws from (seed, n), so that a resumed run draws the same.
        device: "cpu" or "cuda".
        dtype: "float32" or "float64"; "bfloat16" or "float16" compute with fewer bits and keep the
            parameters in float32; "tf32" is float32 with products of fewer bits.
        devices: 1; more devices need more processes.
        use_cuda_graphs: record a step as CUDA graphs where batches of its shapes come again, and
            launch it as a whole from then on; where it cannot be, a warning says why.

    In a process group every worker gets the same batches and computes its share of them.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: MaskedLoss[...],
        optimizer: Optimizer,
        *,
        max_grad_norm: float | None = 1.0,
        ema_decay: float | None = None,
        seed: int = 0,
        device: str = "cpu",
        dtype: str = "float32",
        devices: int = 1,
        use_cuda_graphs: bool = False,
    ) -> None:
        self.model = to(model, device=device, dtype=param_dtype(dtype))
        self.loss, self.constants = loss, optimizer
        self.max_grad_norm, self.ema_decay = max_grad_norm, ema_decay
        self.seed, self.device, self.dtype = seed, device, compute_dtype(dtype)
        self._allows_tf32 = dtype == "tf32"
        self.steps = 0
        self.scale = LossScale.of(dtype)
        self.workers = ProcessGroup(devices)
        reason = graphs_reason(device, dtype, self.workers.count)
        if use_cuda_graphs and reason is not None:
            warn_without_graphs(reason)
        records = use_cuda_graphs and reason is None
        parameters = self.model.parameters()
        self.optimizer = create_optimizer(optimizer, parameters, capturable=records)
        self.network = self.workers.wrap(_Computed(self.model, getattr(torch, self.dtype)))
        # Copied after the parameters have been broadcast to all workers; moved for cuDNN's buffers.
        self.averaged = self.model if ema_decay is None else copy.deepcopy(self.model).to(device)
        self._graphs = self._create_graphs() if records else None

    def step(self, *batches: Any, rate: float | None = None) -> float:
        """Make one step on one batch, or on several as if they were one, and wait for it.

        Args:
            batches: host batches; the loss is the mean over their valid elements.
            rate: the learning rate; by default the optimiser's own.

        Returns:
            The mean loss before the step.
        """
        return float(self.launch(*batches, rate=rate))

    def launch(self, *batches: Any, rate: float | None = None) -> SupportsFloat:
        """Make a step as `step` does, but do not wait for a device: `float` of the loss does.

        With "float16" the host waits once a step, to learn whether a gradient has overflowed.
        """
        if not self.model.training:  # it sets each module's mode, of which there are hundreds
            self.model.train()
        self.optimizer.zero_grad(set_to_none=self._graphs is None)  # graphs know them by place
        count = max(1, sum(batch.count for batch in batches))
        with self._precision():
            loss = sum(
                self._differentiate(batch, count, part, is_last=part == len(batches) - 1)
                for part, batch in enumerate(batches)
            )
        self._update(self.constants.learning_rate if rate is None else rate)
        return LateNumber(self.workers.add(loss))

    def evaluate(self, batch: Any) -> tuple[float, float]:
        """Return the sum of the losses and of the weights of one batch, in inference mode."""
        network = _Computed(self.averaged, getattr(torch, self.dtype))
        self.averaged.eval()
        with torch.no_grad(), self._precision():
            total, count = self._total(network, self._place(self._share_of(batch)))
        total, count = self.workers.add(torch.stack([total, count]).double()).tolist()
        return total, count

    def module(self) -> nn.Module:
        """Return the model with its current parameters, averaged if they are."""
        return self.averaged

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copy the optimiser's state to the host under canonical names."""
        state = {"steps": np.array(self.steps)}
        for name, parameter in self.model.named_parameters():
            slots = self.optimizer.state.get(parameter, {})
            for slot in self.constants.slots:
                value = slots.get(slot, torch.zeros_like(parameter))
                state[f"{slot}.{name}"] = to_numpy(value).copy()
            if self.ema_decay is not None:
                state[f"parameter.{name}"] = to_numpy(parameter).copy()
        if self.dtype == "float16":
            state["loss_scale"] = self.scale.state
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Undo `state_dict`."""
        self.steps = int(state["steps"])
        for name, parameter in self.model.named_parameters():
            if self.steps:
                slots = {
                    slot: torch.from_numpy(np.array(state[f"{slot}.{name}"])).to(parameter)
                    for slot in self.constants.slots
                }
                step = {"step": torch.tensor(float(self.steps), device=parameter.device)}
                self.optimizer.state[parameter] = {**step, **slots}
            if self.ema_decay is not None:
                parameter.data.copy_(torch.from_numpy(np.array(state[f"parameter.{name}"])))
        if self.dtype == "float16":
            self.scale.load(state["loss_scale"])
        if self._graphs is not None:
            self._graphs = self._create_graphs()  # the optimiser's state lies elsewhere now

    def _create_graphs(self) -> StepGraphs:
        like = next(self.model.parameters())
        buffers = partial(BatchBuffers, device=like.device, **self._dtypes)
        return StepGraphs(self._backward, self._advance, self.optimizer, buffers, like)

    def _precision(self) -> AbstractContextManager[None]:
        """Let float32 mean float32, or TF32 if asked for, on the device that has both."""
        return use_tf32(self._allows_tf32) if self.device == "cuda" else nullcontext()

    def _differentiate(self, batch: Any, count: int, part: int, *, is_last: bool) -> Tensor:
        """Add a batch's share of the gradient, and return its share of the loss."""
        shard, draw = self._share_of(batch), (self.seed, self.steps, part, self.workers.rank)
        syncs = nullcontext() if is_last else self.workers.no_sync(self.network)
        with syncs, _seeded(draw, self.device):
            if self._graphs is not None:
                return self._graphs.differentiate(shard, count)
            return self._backward(self._place(shard), count)

    def _backward(self, placed: PlacedBatch, count: int | Tensor) -> Tensor:
        """Add to the gradients of the loss over `count`, which is returned."""
        loss = self._total(self.network, placed)[0] / count
        # The gradients are averaged over the workers, but their sum is needed.
        (loss * (self.scale.value * self.workers.count)).backward()
        return loss.detach()

    def _update(self, rate: float) -> None:
        share_of_new = 1.0
        if self.ema_decay is not None:
            share_of_new -= ramped_decay(self.ema_decay, self.steps)
        if self._graphs is not None:
            self._graphs.update(rate, share_of_new)
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            if not self._advance(share_of_new):
                return
        self.steps += 1

    def _advance(self, share_of_new: float | Tensor) -> bool:
        """Update the parameters and their average; return whether no gradient has overflowed."""
        groups = self.optimizer.param_groups  # quicker than to look through the model
        updated = [parameter for group in groups for parameter in group["params"]]
        gradients = [each.grad for each in updated if each.grad is not None]
        if self.dtype == "float16" and not self._unscale(gradients):
            return False
        _clip(gradients, self.max_grad_norm)
        self.optimizer.step()
        if self.ema_decay is not None:
            averaged = list[Tensor](self.averaged.parameters())
            share: Any = share_of_new  # a number for all, or one tensor for each
            if isinstance(share_of_new, Tensor):
                share = [share_of_new] * len(averaged)
            with torch.no_grad():
                torch._foreach_lerp_(averaged, updated, share)
        return True

    def _unscale(self, gradients: list[Tensor]) -> bool:
        """Divide by the loss's scale; return whether no gradient has overflowed."""
        torch._foreach_div_(gradients, self.scale.value)
        finite = bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        self.scale.update(finite)
        return finite

    @property
    def _dtypes(self) -> dict[str, torch.dtype]:
        target_dtype = getattr(torch, param_dtype(self.dtype))
        return {"dtype": getattr(torch, self.dtype), "target_dtype": target_dtype}

    def _share_of(self, batch: Any) -> Any:
        """Return this worker's rows of a batch."""
        check_batch(self.model.config, batch)
        return shard_batch(batch, self.workers.count)[self.workers.rank]

    def _place(self, batch: Any) -> PlacedBatch:
        return place_batch(batch, self.device, **self._dtypes)

    def _total(self, network: nn.Module, placed: PlacedBatch) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses and of the weights."""
        output = network(*placed.arrays, **placed.static).output
        return self.loss.total_and_count(output, placed.target, lengths=placed.loss_lengths)


class _Computed(nn.Module):
    """A model whose parameters are cast to the dtype that it computes in."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, *arrays: Any, **static: Any) -> Forecast:
        """Run the model."""
        if next(self.model.parameters()).dtype == self.dtype:  # all have that of the first
            forecast: Forecast = self.model(*arrays, **static)
        else:
            cast = {name: value.to(self.dtype) for name, value in self.model.named_parameters()}
            forecast = torch.func.functional_call(self.model, cast, arrays, static)
        return forecast


def create_optimizer(
    own: Optimizer, parameters: Iterable[nn.Parameter], *, capturable: bool = False
) -> torch.optim.Optimizer:
    """Build torch's optimiser with an optimiser's constants; one that a CUDA graph can hold."""
    match own:
        case optimizers.Adam():
            chosen = torch.optim.AdamW if isinstance(own, optimizers.AdamW) else torch.optim.Adam
            created = chosen(
                parameters,
                lr=own.learning_rate,
                betas=(own.beta1, own.beta2),
                eps=own.epsilon,
                weight_decay=getattr(own, "weight_decay", 0.0),
                fused=True,
                capturable=capturable,
            )
            # Torch would warn of the steps before one is recorded.
            created._warned_capturable_if_run_uncaptured = True
            return created
        case optimizers.SGD():
            return torch.optim.SGD(
                parameters,
                lr=own.learning_rate,
                momentum=own.momentum,
                nesterov=own.nesterov,
                weight_decay=own.weight_decay,
                fused=True,
            )
    raise optimizers.unknown(own)


def predict(module: nn.Module, batch: Any, *, need_weights: bool = False) -> Forecast:
    """Return the forecast of a host batch in inference mode, on the host.

    It runs where the module is, in its dtype; the module's mode is kept.
    """
    check_batch(module.config, batch)
    weight = next(module.parameters())
    modes = {m: m.training for m in module.modules()}
    module.eval()
    arrays, static = place_inputs(batch, weight.device, weight.dtype)
    options = {"need_weights": True} if need_weights else {}
    is_exact = use_tf32(False) if weight.is_cuda else nullcontext()
    try:
        with torch.no_grad(), is_exact:
            forecast = module(*arrays, **static, **options)
    finally:
        for m, training in modes.items():
            m.training = training
    return Forecast(*(None if array is None else to_numpy(array) for array in forecast))


def _clip(gradients: list[Tensor], limit: float | None) -> None:
    """Scale to the norm `limit` exactly, as optax does; torch's own adds 1e-6 to the norm."""
    if limit is not None:
        norm = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (limit / norm).clamp(max=1.0))


@contextmanager
def _seeded(draw: tuple[int, ...], device: str) -> Iterator[None]:
    """Seed dropout for one step and restore the user's generators."""
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    seed = int(np.random.default_rng(draw).integers(2**62))
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU's too
        if devices:
            torch.cuda.manual_seed(seed)
        yield
