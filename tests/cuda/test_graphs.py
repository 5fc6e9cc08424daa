"""Training steps as CUDA graphs, recorded and launched by the pretended device."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ragged_torch.cuda_graphs import CudaGraphs, graphs_reason  # noqa: E402

from ragged.training.optimizers import SGD, AdamW  # noqa: E402
from tests.cuda.test_training import MODELS, _torch, make_batch, make_step  # noqa: E402, F401

LAUNCHES = 12  # of a step of one batch that is launched as two graphs
EXACT = {"rtol": 1e-9, "atol": 1e-11}  # float64: a step that another order of sums does not grow


@pytest.mark.parametrize("name", MODELS)
def test_recorded_steps_are_the_eager_ones_and_take_few_launches(counted, cuda, name):
    one, other = make_batch(), make_batch(seed=1, last=6)
    # Of either shape a step as it is and one that is recorded; then other values in one shape.
    batches, found = [one, other, one, other, make_batch(seed=2)], []
    for recorded in (False, True):
        options = {"dropout": 0.3, "ema_decay": 0.9, "use_cuda_graphs": recorded}
        step = make_step(name, cuda, "float64", **options)
        losses = [step.step(each, rate=0.01 / (k + 1)) for k, each in enumerate(batches[:-1])]
        with counted() as asked:
            losses.append(step.step(batches[-1], rate=0.001))
        parameters = [p.detach().cpu().numpy().ravel() for p in step.module().parameters()]
        found.append([*losses, *np.concatenate(parameters)])
    np.testing.assert_allclose(*found, **EXACT)
    assert asked["launch"] <= LAUNCHES
    assert asked["copy to device"] == 2, "the batch and its lengths"
    assert asked["synchronisation"] == 0


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9), AdamW(learning_rate=0.01)])
def test_several_batches_make_one_step_and_a_state_that_is_loaded_is_the_one_that_counts(
    cuda, optimizer
):
    batches, found = [make_batch(), make_batch(seed=1, last=6)], []
    for recorded in (False, True):
        options = {"dropout": 0.3, "optimizer": optimizer, "use_cuda_graphs": recorded}
        step = make_step("EncoderDecoderLSTM", cuda, "float64", **options)
        losses = [step.step(*batches) for _ in range(3)]
        step.load_state_dict(step.state_dict())
        losses += [step.step(*batches) for _ in range(3)]
        found.append([*losses, *step.evaluate(batches[0])])
    np.testing.assert_allclose(*found, **EXACT)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("cpu", "float32", 1), "a CPU has none"),
        (("cuda", "float16", 1), "overflowed"),
        (("cuda", "float32", 2), "several processes"),
        (("cuda", "tf32", 1), None),
    ],
)
def test_what_cannot_be_recorded_has_a_reason(given, reason):
    found = graphs_reason(*given)
    assert found is None if reason is None else reason in found


def test_a_step_that_cannot_be_recorded_is_told_of_and_made():
    with pytest.warns(UserWarning, match="but a CPU has none: steps run without CUDA graphs"):
        step = make_step("EncoderDecoderLSTM", "cpu", use_cuda_graphs=True)
    assert step.step(make_batch()) > 0


def test_work_that_a_gpu_does_not_record_is_told_of_once_and_done(counted, cuda):
    graphs, x = CudaGraphs(), torch.ones(2, device=cuda)

    def work() -> None:
        x.mul_(float(x.sum()))  # waits for the device

    graphs.run("work", work)
    with pytest.warns(UserWarning, match="could not be recorded as a CUDA graph: operation not"):
        graphs.run("work", work)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphs.run("work", work)
    assert x.tolist() == [128.0, 128.0]
