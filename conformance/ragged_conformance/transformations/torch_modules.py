"""What torch does to modules and arrays; a new one is a line of the table."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ragged_conformance.transformations.lines import (
    FUNCTIONS,
    LAYERS,
    MODELS,
    Found,
    Transformation,
    of_module,
    program,
)
from ragged_conformance.transformations.problems import Trial


def backward(trial: Trial, module: nn.Module, whole: Callable[[Tensor], Tensor]) -> Found:
    """The outputs of a module, and the gradient of its inputs and parameters."""
    own = {name: value.clone().requires_grad_() for name, value in trial.inputs.items()}
    outputs = trial.subject.call(module, own, trial.lengths)
    trial.weigh({name: whole(value) for name, value in outputs.items()}).backward()
    found = {name: value.grad for name, value in own.items()}
    for name, value in module.named_parameters():
        if not trial.problem.is_frozen:
            plain = name.removeprefix("module.")
            zeros = torch.zeros_like(trial.variables[plain])
            found[plain] = zeros if value.grad is None else whole(value.grad)
    return {"outputs": outputs, "gradient": found}


def functional_call(trial: Trial) -> Found:
    return {"outputs": trial.run(trial.variables)}


def no_grad(trial: Trial) -> Found:
    with torch.no_grad():
        return {"outputs": trial.call(trial.module)}


def inference_mode(trial: Trial) -> Found:
    with torch.inference_mode():
        return {"outputs": trial.call(trial.module)}


def deep_copy(trial: Trial) -> Found:
    return backward(trial, copy.deepcopy(trial.module), lambda value: value)


def pickled(trial: Trial) -> Found:
    return backward(trial, pickle.loads(pickle.dumps(trial.module)), lambda value: value)


def saved(trial: Trial) -> Found:
    file = io.BytesIO()
    torch.save(trial.module, file)
    file.seek(0)
    return backward(trial, torch.load(file, weights_only=False), lambda value: value)


def on_meta(trial: Trial) -> Found:
    module = copy.deepcopy(trial.module).to("meta")
    inputs = {name: value.to("meta") for name, value in trial.inputs.items()}
    outputs = trial.subject.call(module, inputs, trial.lengths)
    assert all(value.is_meta for value in outputs.values())
    return {"shapes": {name: tuple(value.shape) for name, value in outputs.items()}}


def fake_tensors(trial: Trial) -> Found:
    from torch._subclasses import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        own = {name: mode.from_tensor(value) for name, value in trial.variables.items()}
        outputs = trial.run(own)
    return {"shapes": {name: tuple(value.shape) for name, value in outputs.items()}}


def two_tensors(trial: Trial) -> Found:
    from torch.testing._internal.two_tensor import TwoTensor

    own = {name: TwoTensor(value, value.clone()) for name, value in trial.variables.items()}
    found = trial.run(own)
    assert all(isinstance(value, TwoTensor) for value in found.values())
    return {"outputs": {name: value.b for name, value in found.items()}}


def subclassed(trial: Trial) -> Found:
    class Named(Tensor):
        """A subclass that changes nothing, as libraries of images and units have."""

    own = {name: value.as_subclass(Named) for name, value in trial.variables.items()}
    found = trial.run(own)
    return {"outputs": {name: value.as_subclass(Tensor) for name, value in found.items()}}


def parametrized(trial: Trial) -> Found:
    class Doubled(nn.Module):
        """A parametrisation that a tensor of half the size stands behind."""

        def forward(self, half: Tensor) -> Tensor:
            return 2 * half

        def right_inverse(self, value: Tensor) -> Tensor:
            return value / 2

    module = copy.deepcopy(trial.module)
    for part in list(module.modules()):
        for name in [n for n, _ in part.named_parameters(recurse=False) if "weight_hh" in n]:
            nn.utils.parametrize.register_parametrization(part, name, Doubled())
    return {"outputs": trial.call(module)}


@contextmanager
def one_process() -> Iterator[Any]:
    """A process group of one, and its mesh."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    store: Any = torch._C._distributed_c10d.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        distributed.destroy_process_group()


def whole(value: Any) -> Tensor:
    """What all processes hold together."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def dtensors(trial: Trial) -> Found:
    from torch.distributed.tensor import distribute_module, distribute_tensor

    with one_process() as mesh:
        module = distribute_module(copy.deepcopy(trial.module), mesh)
        inputs = {name: distribute_tensor(value, mesh) for name, value in trial.inputs.items()}
        outputs = trial.subject.call(module, inputs, trial.lengths)
        return {"outputs": {name: whole(value) for name, value in outputs.items()}}


def data_parallel(trial: Trial) -> Found:
    with one_process():
        replica = nn.parallel.DistributedDataParallel(copy.deepcopy(trial.module))
        return backward(trial, replica, whole)


def fully_sharded(trial: Trial) -> Found:
    from torch.distributed.fsdp import fully_shard

    with one_process() as mesh:
        return backward(trial, fully_shard(copy.deepcopy(trial.module), mesh=mesh), whole)


LINES: dict[str, Transformation] = {
    "functional_call": program(functional_call),
    "no_grad": of_module(no_grad),
    "inference_mode": of_module(inference_mode),
    "deepcopy": of_module(deep_copy),
    "pickle": of_module(pickled),
    "torch.save": of_module(saved, *LAYERS),
    "meta device": of_module(on_meta),
    "FakeTensorMode": program(fake_tensors),
    "TwoTensor": program(two_tensors),
    "tensor subclass": program(subclassed),
    "parametrize": program(parametrized, without=(*FUNCTIONS, "LSTM, tied")),
    "DTensor": of_module(dtensors, *LAYERS, without=MODELS),
    "DTensor, in a model": of_module(dtensors, "EncoderDecoderLSTM", without=LAYERS),
    "DistributedDataParallel": of_module(data_parallel),
    "fully_shard": of_module(fully_sharded),
}
