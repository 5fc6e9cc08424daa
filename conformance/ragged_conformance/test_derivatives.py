"""Derivatives against finite differences, second ones too, and batched by `vmap`.

The oracle proves first derivatives at one point of each case; these tests ask the frameworks' own
checkers, whose errors the suite cannot share.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import (
    GRADIENT_LENGTHS,
    HIDDEN,
    INPUTS,
    LSTM_OPTIONS,
    WIDTH,
    fill_padding,
    lstm_state,
    normal,
)
from ragged_conformance.oracle_losses import LOSSES
from ragged_conformance.tolerances import LAYER, MODEL, assert_close

ENSEMBLE = 3
EXTRA = {"quantile": (3,), "gaussian_nll": (2,)}
losses = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.operation(f"losses.{name}")) for name in LOSSES],
)


@pytest.fixture
def float64(dtype: str) -> None:
    """Skip other dtypes."""
    if dtype != "float64":
        pytest.skip("finite differences need float64")


def lstm_inputs(options: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs with NaN at padding, and parameters."""
    layer = ragged.LSTM(INPUTS, HIDDEN, seed=seed, **LSTM_OPTIONS[options])
    h, c = lstm_state(LSTM_OPTIONS[options], len(GRADIENT_LENGTHS))
    x = fill_padding(normal(len(GRADIENT_LENGTHS), WIDTH, INPUTS, seed=seed), GRADIENT_LENGTHS)
    found = ragged.get_backend().get_parameters(layer)
    return {"x": x, "h": h, "c": c, **{name: value.astype(float) for name, value in found.items()}}


def flat_lstm(names: list[str], lengths: Any) -> Callable[..., tuple[Any, Any, Any]]:
    """The LSTM as a function of arrays alone, in the order of `names`."""

    def run(*arrays: Any) -> tuple[Any, Any, Any]:
        parameters = dict(zip(names, arrays, strict=True))
        x, state = parameters.pop("x"), (parameters.pop("h"), parameters.pop("c"))
        y, (h, c) = ragged.lstm(parameters, x, lengths, state)
        return y, h, c

    return run


def loss_inputs(name: str, seed: int = 0, lengths: Any = GRADIENT_LENGTHS) -> list[np.ndarray]:
    """Prediction, target, weights; the kinks of all losses are far from where they lie."""
    target = normal(4, WIDTH, seed=seed)
    error = 0.25 + np.abs(normal(4, WIDTH, *EXTRA.get(name, ()), seed=seed + 1))
    sign = np.sign(normal(*error.shape, seed=seed + 2))
    prediction = target.reshape(*target.shape, *(1 for _ in EXTRA.get(name, ()))) + sign * error
    weights = 0.5 + np.abs(normal(4, WIDTH, seed=seed + 3))
    padded = (fill_padding(array, lengths) for array in (prediction, target))
    return [*padded, weights]


def reductions(name: str, lengths: Any = GRADIENT_LENGTHS) -> Callable[..., tuple[Any, ...]]:
    """A loss in all its reductions to a scalar, as a function of arrays alone."""

    def run(prediction: Any, target: Any, weights: Any) -> tuple[Any, ...]:
        return tuple(
            getattr(ragged.losses, name)(
                prediction, target, lengths=lengths, weights=weights, reduction=reduction
            )
            for reduction in ("mean", "sum", "sequence_mean")
        )

    return run


@pytest.mark.operation("lstm")
@pytest.mark.parametrize("policy", ["auto", "always", "never", "segments"])
@pytest.mark.parametrize("options", ["one layer", "everything"])
@pytest.mark.usefixtures("float64")
def test_torch_lstm_passes_gradcheck(torch_adapter: Adapter, options: str, policy: str) -> None:
    from torch.autograd import gradcheck, gradgradcheck

    inputs = torch_adapter.arrays(lstm_inputs(options))
    run = flat_lstm(list(inputs), ragged.Lengths(GRADIENT_LENGTHS, WIDTH, policy=policy))
    leaves = [array.requires_grad_() for array in inputs.values()]
    assert gradcheck(run, leaves, fast_mode=True)
    if policy == "auto" and options == "one layer":
        assert gradgradcheck(run, leaves, fast_mode=True)


@losses
@pytest.mark.usefixtures("float64")
def test_torch_losses_pass_gradcheck_twice(torch_adapter: Adapter, name: str) -> None:
    from torch.autograd import gradcheck, gradgradcheck

    leaves = [torch_adapter.array(array).requires_grad_() for array in loss_inputs(name)]
    assert gradcheck(reductions(name), leaves)
    assert gradgradcheck(reductions(name), leaves)


def assert_jax_derivatives(
    function: Callable[..., Any], arrays: list[Any], order: int, modes: Any = ("fwd", "rev")
) -> None:
    """Check a scalar function's first derivatives, and forward over reverse."""
    import jax
    from jax.test_util import check_grads

    check_grads(jax.jit(function), arrays, order=1, modes=modes)
    if order == 2:
        gradient = jax.jit(jax.grad(function, argnums=tuple(range(len(arrays)))))
        check_grads(gradient, arrays, order=1, modes=("fwd",))


@pytest.mark.operation("lstm")
@pytest.mark.parametrize(
    ("options", "policy", "order"),
    [
        ("one layer", "never", 2),
        ("bidirectional", "never", 1),
        ("one layer", "auto", 2),
        ("bidirectional", "auto", 1),
        ("one layer", "segments", 2),
        ("bidirectional", "segments", 1),
    ],
)
@pytest.mark.usefixtures("float64")
def test_jax_lstm_passes_check_grads(
    jax_adapter: Adapter, options: str, policy: str, order: int
) -> None:
    inputs = jax_adapter.arrays(lstm_inputs(options))
    lengths = ragged.Lengths(GRADIENT_LENGTHS, WIDTH, policy=policy)
    run = flat_lstm(list(inputs), lengths)
    modes = (
        ("fwd", "rev") if policy == "never" else ("rev",)
    )  # what has its own backward pass has none

    def total(*arrays: Any) -> Any:
        return sum((output**2).sum() for output in run(*arrays))

    assert_jax_derivatives(total, list(inputs.values()), order, modes)


@losses
@pytest.mark.usefixtures("float64")
def test_jax_losses_pass_check_grads_twice(jax_adapter: Adapter, name: str) -> None:
    arrays = [jax_adapter.array(array) for array in loss_inputs(name)]
    assert_jax_derivatives(lambda *a: reductions(name)(*a)[-1], arrays, 2)


def assert_rows_close(adapter: Adapter, found: Any, expected: list[Any], kind: str) -> None:
    """Compare arrays with a leading axis with a list of the same arrays without it."""
    for k, one in enumerate(expected):
        for batched, alone in zip(found, one, strict=True):
            a, b = adapter.to_numpy(batched[k]), adapter.to_numpy(alone)
            assert_close(a, b, adapter.dtype, kind, f"row {k}")


@pytest.mark.operation("lstm")
def test_jax_vmap_over_an_ensemble_equals_a_loop(jax_adapter: Adapter) -> None:
    import jax

    members = [jax_adapter.arrays(lstm_inputs("one layer", seed)) for seed in range(ENSEMBLE)]
    run = flat_lstm(list(members[0]), list(GRADIENT_LENGTHS))
    shared = [members[0][name] for name in ("x", "h", "c")]

    def total(*parameters: Any) -> Any:
        outputs = run(*shared, *parameters)
        return sum((output**2).sum() for output in outputs), outputs

    each = [list(member.values())[3:] for member in members]
    one = jax.value_and_grad(total, argnums=tuple(range(len(each[0]))), has_aux=True)
    stacked = [jax.numpy.stack(arrays) for arrays in zip(*each, strict=True)]
    (_, outputs), gradients = jax.jit(jax.vmap(one))(*stacked)
    alone = [jax.jit(one)(*parameters) for parameters in each]
    assert_rows_close(jax_adapter, outputs, [values for (_, values), _ in alone], LAYER)
    assert_rows_close(jax_adapter, gradients, [found for _, found in alone], MODEL)


BATCHES = np.array([GRADIENT_LENGTHS, (1, 0, 5, 2), (0, 0, 0, 0)])


@pytest.mark.operation("lstm")
def test_jax_vmap_over_batches_equals_a_loop(jax_adapter: Adapter) -> None:
    import jax

    inputs = jax_adapter.arrays(lstm_inputs("one layer"))
    others = [array for name, array in inputs.items() if name != "x"]
    x = [fill_padding(normal(4, WIDTH, INPUTS, seed=k), n) for k, n in enumerate(BATCHES)]

    def run(x: Any, lengths: Any) -> Any:
        return flat_lstm(list(inputs), lengths)(x, *others)

    arguments = jax_adapter.array(np.stack(x)), jax_adapter.array(BATCHES)
    found, one = jax.jit(jax.vmap(run))(*arguments), jax.jit(run)
    assert_rows_close(jax_adapter, found, [one(*a) for a in zip(*arguments, strict=True)], LAYER)


@losses
def test_jax_vmap_of_losses_equals_a_loop(jax_adapter: Adapter, name: str) -> None:
    import jax

    batches = [loss_inputs(name, k, n) for k, n in enumerate(BATCHES)]
    arrays = [np.stack(arrays) for arrays in zip(*batches, strict=True)]

    def run(lengths: Any, *arrays: Any) -> Any:
        return reductions(name, lengths)(*arrays)

    arguments = [jax_adapter.array(array) for array in (BATCHES, *arrays)]
    found, one = jax.jit(jax.vmap(run))(*arguments), jax.jit(run)
    assert_rows_close(jax_adapter, found, [one(*a) for a in zip(*arguments, strict=True)], LAYER)


# Torch warns of its own code here, where functorch is first imported.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@losses
def test_torch_vmap_of_losses_equals_a_loop(torch_adapter: Adapter, name: str) -> None:
    from torch.func import vmap

    batches = [[torch_adapter.array(a) for a in loss_inputs(name, seed)] for seed in range(3)]
    stacked = [torch_adapter.backend.xp.stack(arrays) for arrays in zip(*batches, strict=True)]
    found = vmap(reductions(name))(*stacked)
    expected = [reductions(name)(*batch) for batch in batches]
    assert_rows_close(torch_adapter, found, expected, LAYER)
