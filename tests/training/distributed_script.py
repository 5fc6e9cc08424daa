"""Train a few steps on very unequal rows, by two workers and alone, and print what comes of each.

Both are of one process, in which the framework is imported once: torch's workers are its forks,
JAX's are two devices.

python distributed_script.py torch|jax
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback

import numpy as np

import ragged
from ragged.backend import use_backend
from ragged.data import Sample, Series, collate
from ragged.training.objective import Objective
from ragged.training.optimizers import SGD

# (context, horizon): one long row among many short ones, an odd number, some of length 0.
LENGTHS = (((3, 2), (24, 17), (1, 1), (2, 0), (5, 3)), ((2, 2), (1, 3), (9, 4)), ((4, 6),))
MODELS = {"EncoderDecoderLSTM": {"num_layers": 2}}


def batches(alignment: str) -> list:
    """Batches of up to five rows, the last of which has fewer rows than there are workers."""
    rng, made = np.random.default_rng(0), []
    for pairs in LENGTHS:
        rows = []
        for context, horizon in pairs:
            arrays = [rng.normal(size=(n, k)) for n, k in ((context, 3), (horizon, 2))]
            target = rng.normal(size=(horizon, 1))
            target[1:2] = np.nan  # unknown, so that the workers know unequal numbers
            event = Series("row", np.arange(float(context + horizon)), {})
            rows.append(Sample(*arrays, target, event=event, split=context))
        made.append(collate(rows, batch_size=5, dtype=np.float64, encoder_alignment=alignment))
    return made


def train(backend: object, name: str, devices: int) -> dict[str, list]:
    """Three steps, one of two batches, and an evaluation."""
    kind = getattr(ragged.models, name)
    model = kind(3, 2, hidden_size=4, dropout=0.0, seed=0, **MODELS[name])
    options = {"dtype": "float64", "devices": devices, "max_grad_norm": 0.5}
    objective = Objective.of("mse", None, model.config, targets=1)
    step = backend.TrainingStep(model, objective, SGD(learning_rate=0.3), **options)
    first, second, third = batches(model.config.encoder_alignment)
    losses = [step.step(first), step.step(second, third), step.step(first)]
    found = {"losses": losses, "evaluated": list(step.evaluate(second))}
    parameters = backend.get_parameters(step.module())
    return {**found, **{n: v.tolist() for n, v in parameters.items()}}


def train_all(name: str, devices: int = 1) -> None:
    """Train each model, and let one worker print what it comes to."""
    with use_backend(name) as backend, backend.init_process_group() as workers:
        found = {model: train(backend, model, devices) for model in MODELS}
        if workers.rank == 0:
            print(json.dumps(found), flush=True)


def train_in_two_processes() -> None:
    """Train on torch in two forks of this process."""
    import torch._dynamo  # noqa: F401  # each optimizer imports it: here, once for both

    with use_backend("torch"), socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [start_worker(rank, port) for rank in (0, 1)]
    for worker in workers:
        assert os.waitpid(worker, 0)[1] == 0


def start_worker(rank: int, port: int) -> int:
    """Fork a worker as torchrun starts one."""
    worker = os.fork()
    if worker:
        return worker
    group = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    group |= {"RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({key: str(value) for key, value in group.items()})
    status = 1
    try:
        train_all("torch")
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def main(name: str) -> None:
    """Train by two workers, then alone."""
    if name == "torch":
        train_in_two_processes()
    else:
        train_all(name, devices=2)
    train_all(name)


if __name__ == "__main__":
    main(sys.argv[1])
