"""Derivatives of losses against finite differences, second ones too, and batched by `vmap`.

The oracle proves first derivatives at one point of each case; these tests use the frameworks' own
checkers, which share no code with the suite. Those of layers and models are in
`test_transformations`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import (
    GRADIENT_LENGTHS,
    LAST_AXIS,
    WIDTH,
    fill_padding,
    normal,
    parametrize,
    target_of,
)
from ragged_conformance.oracle_losses import LOSSES
from ragged_conformance.tolerances import LAYER, assert_close

losses = parametrize(LOSSES, "losses.")


@pytest.fixture
def float64(dtype: str) -> None:
    """Skip other dtypes."""
    if dtype != "float64":
        pytest.skip("finite differences need float64")


def loss_inputs(name: str, seed: int = 0, lengths: Any = GRADIENT_LENGTHS) -> list[np.ndarray]:
    """Prediction, target, weights, far from the kinks of all losses."""
    last = LAST_AXIS.get(name, ())
    target = normal(4, WIDTH, seed=seed)
    error = 0.25 + np.abs(normal(4, WIDTH, *last, seed=seed + 1))
    sign = np.sign(normal(*error.shape, seed=seed + 2))
    prediction = target.reshape(*target.shape, *(1 for _ in last)) + sign * error
    if name == "binary_cross_entropy":
        target = 0.1 + 0.8 * target_of(name, target)  # and far from the bounds of the targets
    if name == "cross_entropy":  # which has no derivative by labels
        target = 0.1 + error / error.sum(axis=-1, keepdims=True) / 2
    weights = 0.5 + np.abs(normal(4, WIDTH, seed=seed + 3))
    padded = (fill_padding(array, lengths) for array in (prediction, target))
    return [*padded, weights]


def reduced(name: str, reduction: str, lengths: Any = GRADIENT_LENGTHS) -> Callable[..., Any]:
    """A loss as a function of arrays alone."""

    def run(prediction: Any, target: Any, weights: Any) -> Any:
        return getattr(ragged.losses, name)(
            prediction, target, lengths=lengths, weights=weights, reduction=reduction
        )

    return run


def reductions(name: str, lengths: Any = GRADIENT_LENGTHS) -> Callable[..., tuple[Any, ...]]:
    """A loss in all its reductions to a scalar, as a function of arrays alone."""
    losses = [reduced(name, each, lengths) for each in ("mean", "sum", "sequence_mean")]
    return lambda *arrays: tuple(loss(*arrays) for loss in losses)


@losses
@pytest.mark.usefixtures("float64")
def test_torch_losses_pass_gradcheck_twice(torch_adapter: Adapter, name: str) -> None:
    from torch.autograd import gradcheck, gradgradcheck

    leaves = [torch_adapter.array(array).requires_grad_() for array in loss_inputs(name)]
    assert gradcheck(reductions(name), leaves)
    assert gradgradcheck(reductions(name), leaves)


@losses
@pytest.mark.usefixtures("float64", "jax_adapter")
def test_jax_losses_pass_check_grads_twice(name: str) -> None:
    import jax
    from jax.test_util import check_grads

    loss = reduced(name, "sequence_mean")
    arrays = loss_inputs(name)  # of NumPy, which moves them without a program for each shape
    check_grads(jax.jit(loss), arrays, order=1, modes=("fwd", "rev"))
    check_grads(jax.jit(jax.grad(loss, argnums=(0, 1, 2))), arrays, order=1, modes=("fwd",))


def assert_rows_close(adapter: Adapter, actual: Any, expected: list[Any]) -> None:
    """Compare arrays with a leading axis with a list of the same arrays without it."""
    for k, arrays in enumerate(expected):
        for batched, alone in zip(actual, arrays, strict=True):
            a, b = adapter.to_numpy(batched[k]), adapter.to_numpy(alone)
            assert_close(a, b, adapter.dtype, LAYER, f"row {k}")


BATCHES = np.array([GRADIENT_LENGTHS, (1, 0, 5, 2), (0, 0, 0, 0)])


@losses
def test_jax_vmap_of_losses_equals_a_loop(jax_adapter: Adapter, name: str) -> None:
    import jax

    batches = [loss_inputs(name, k, n) for k, n in enumerate(BATCHES)]
    arrays = [np.stack(arrays) for arrays in zip(*batches, strict=True)]

    def run(lengths: Any, *arrays: Any) -> Any:
        return reductions(name, lengths)(*arrays)

    arguments = [jax_adapter.array(array) for array in (BATCHES, *arrays)]
    actual, run_one = jax.jit(jax.vmap(run))(*arguments), jax.jit(run)
    assert_rows_close(jax_adapter, actual, [run_one(*a) for a in zip(*arguments, strict=True)])


# A warning of torch's own code where functorch is first imported.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@losses
def test_torch_vmap_of_losses_equals_a_loop(torch_adapter: Adapter, name: str) -> None:
    from torch.func import vmap

    batches = [[torch_adapter.array(a) for a in loss_inputs(name, seed)] for seed in range(3)]
    stacked = [torch_adapter.backend.xp.stack(arrays) for arrays in zip(*batches, strict=True)]
    actual = vmap(reductions(name))(*stacked)
    expected = [reductions(name)(*batch) for batch in batches]
    assert_rows_close(torch_adapter, actual, expected)
