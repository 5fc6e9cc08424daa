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
    Results,
    Transformation,
    of_module,
    program,
)
from ragged_conformance.transformations.problems import Trial


def backward(trial: Trial, module: nn.Module, full_tensor: Callable[[Tensor], Tensor]) -> Results:
    """The outputs of a module, and the gradient of its inputs and parameters."""
    inputs = {name: value.clone().requires_grad_() for name, value in trial.inputs.items()}
    outputs = trial.subject.call(module, inputs, trial.lengths)
    trial.weigh({name: full_tensor(value) for name, value in outputs.items()}).backward()
    gradients = {name: value.grad for name, value in inputs.items()}
    for name, value in module.named_parameters():
        if not trial.problem.is_frozen:
            plain = name.removeprefix("module.")
            zeros = torch.zeros_like(trial.variables[plain])
            gradients[plain] = zeros if value.grad is None else full_tensor(value.grad)
    return {"outputs": outputs, "gradient": gradients}


def functional_call(trial: Trial) -> Results:
    return {"outputs": trial.run(trial.variables)}


def no_grad(trial: Trial) -> Results:
    with torch.no_grad():
        return {"outputs": trial.call(trial.module)}


def inference_mode(trial: Trial) -> Results:
    with torch.inference_mode():
        return {"outputs": trial.call(trial.module)}


def deep_copy(trial: Trial) -> Results:
    return backward(trial, copy.deepcopy(trial.module), lambda value: value)


def pickled(trial: Trial) -> Results:
    return backward(trial, pickle.loads(pickle.dumps(trial.module)), lambda value: value)


def saved(trial: Trial) -> Results:
    file = io.BytesIO()
    torch.save(trial.module, file)
    file.seek(0)
    return backward(trial, torch.load(file, weights_only=False), lambda value: value)


def on_meta(trial: Trial) -> Results:
    module = copy.deepcopy(trial.module).to("meta")
    inputs = {name: value.to("meta") for name, value in trial.inputs.items()}
    outputs = trial.subject.call(module, inputs, trial.lengths)
    assert all(value.is_meta for value in outputs.values())
    return {"shapes": {name: tuple(value.shape) for name, value in outputs.items()}}


def fake_tensors(trial: Trial) -> Results:
    from torch._subclasses import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        variables = {name: mode.from_tensor(value) for name, value in trial.variables.items()}
        outputs = trial.run(variables)
    return {"shapes": {name: tuple(value.shape) for name, value in outputs.items()}}


def two_tensors(trial: Trial) -> Results:
    from torch.testing._internal.two_tensor import TwoTensor

    variables = {name: TwoTensor(value, value.clone()) for name, value in trial.variables.items()}
    outputs = trial.run(variables)
    assert all(isinstance(value, TwoTensor) for value in outputs.values())
    return {"outputs": {name: value.b for name, value in outputs.items()}}


def subclassed(trial: Trial) -> Results:
    class Named(Tensor):
        """A subclass that changes nothing, as libraries of images and units have."""

    variables = {name: value.as_subclass(Named) for name, value in trial.variables.items()}
    outputs = trial.run(variables)
    return {"outputs": {name: value.as_subclass(Tensor) for name, value in outputs.items()}}


def parametrized(trial: Trial) -> Results:
    class Doubled(nn.Module):
        """A parametrisation by a tensor of half the value."""

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


def full_tensor(value: Any) -> Tensor:
    """Gather a `DTensor`; other tensors are returned unchanged."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def dtensors(trial: Trial) -> Results:
    from torch.distributed.tensor import distribute_module, distribute_tensor

    with one_process() as mesh:
        module = distribute_module(copy.deepcopy(trial.module), mesh)
        inputs = {name: distribute_tensor(value, mesh) for name, value in trial.inputs.items()}
        outputs = trial.subject.call(module, inputs, trial.lengths)
        return {"outputs": {name: full_tensor(value) for name, value in outputs.items()}}


def data_parallel(trial: Trial) -> Results:
    with one_process():
        replica = nn.parallel.DistributedDataParallel(copy.deepcopy(trial.module))
        results = backward(trial, replica, full_tensor)
        # Were it the last to let go of the group, it would wait for the group's threads with the
        # lock of Python held, which they need to free their last work (pytorch issue 56297).
        del replica
        return results


def fully_sharded(trial: Trial) -> Results:
    from torch.distributed.fsdp import fully_shard

    with one_process() as mesh:
        return backward(trial, fully_shard(copy.deepcopy(trial.module), mesh=mesh), full_tensor)


TRANSFORMATIONS: dict[str, Transformation] = {
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
