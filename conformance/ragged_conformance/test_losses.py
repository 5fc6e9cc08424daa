"""Losses: means over what is real, values and gradients, with wild numbers at padding."""

from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import WILD, fill_padding, normal
from ragged_conformance.oracle_losses import LOSSES, loss
from ragged_conformance.tolerances import LAYER, MODEL, assert_close

SHAPE = (4, 5, 2)
LENGTHS = np.array([3, 5, 0, 1])
REDUCTIONS = ("mean", "sum", "sequence_mean", "none")
EXTRA = {"quantile": (3,), "gaussian_nll": (2,)}
OPTIONS: dict[str, dict[str, Any]] = {
    "huber": {"delta": 0.7},
    "mape": {"epsilon": 0.5},
    "quantile": {"quantiles": (0.05, 0.4, 0.9)},
    "gaussian_nll": {"full": True},
}
VALID: dict[str, dict[str, Any]] = {
    "full": {},
    "lengths": {"lengths": LENGTHS},
    "right aligned": {"lengths": LENGTHS, "alignment": "right"},
    "mask with holes": {"mask": normal(*SHAPE[:2], seed=3) > 0},
    "mask of elements": {"mask": normal(*SHAPE, seed=4) > 0},
    "nothing": {"lengths": 0 * LENGTHS},
}
WEIGHTS = {
    "none": None,
    "rows": np.array([0.5, 2.0, 1.0, 0.0]),
    "steps": np.abs(normal(*SHAPE[:2], seed=5)),
    "elements": np.abs(normal(*SHAPE, seed=6)),
}


def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a target; a few elements are 0 on both sides."""
    prediction, target = normal(*SHAPE, *EXTRA.get(name, ()), seed=1), normal(*SHAPE, seed=2)
    prediction[1, 1], target[1, 1:3] = 0.0, 0.0
    return prediction, target


def native(adapter: Adapter, arguments: dict[str, Any]) -> dict[str, Any]:
    """Make arrays native and leave the rest."""
    return {k: adapter.array(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("valid", VALID)
@pytest.mark.parametrize("name", LOSSES)
def test_values_equal_the_oracle(adapter: Adapter, name: str, valid: str, weights: str) -> None:
    prediction, target = batch(name)
    common = {**VALID[valid], "weights": WEIGHTS[weights], **OPTIONS.get(name, {})}
    for reduction in REDUCTIONS:
        expected = loss(name, prediction, target, reduction=reduction, **common)
        found = getattr(ragged.losses, name)(
            adapter.array(prediction), adapter.array(target), reduction=reduction,
            **native(adapter, common),
        )  # fmt: skip
        assert_close(adapter.to_numpy(found), expected, adapter.dtype, LAYER, reduction)


@pytest.mark.parametrize("reduction", ["mean", "sequence_mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_the_oracle(adapter: Adapter, name: str, reduction: str) -> None:
    prediction, target = batch(name)
    prediction[1, 1] = 0.25  # mae, quantile and smape have no derivative where both are 0
    common = {"lengths": LENGTHS, "weights": WEIGHTS["steps"], "reduction": reduction}
    common |= OPTIONS.get(name, {})
    expected = oracle.gradient(
        lambda prediction: loss(name, prediction, target, **common), {"prediction": prediction}
    )["prediction"]
    for value in WILD:
        wild = adapter.array(fill_padding(target, LENGTHS, value))
        found = adapter.gradients(
            lambda prediction, wild=wild: getattr(ragged.losses, name)(
                prediction, wild, **native(adapter, common)
            ),
            {"prediction": adapter.array(fill_padding(prediction, LENGTHS, value))},
        )["prediction"]
        assert_close(found, expected, adapter.dtype, MODEL, name)
        padding = ~oracle.padding_mask(LENGTHS, SHAPE[1])
        assert (found[padding] == 0).all(), f"{name}: a gradient at padding"


@pytest.mark.parametrize("reduction", ["mean", "sum", "sequence_mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_valid_gives_zero_with_zero_gradient(
    adapter: Adapter, name: str, reduction: str
) -> None:
    prediction, target = batch(name)
    nan = adapter.array(np.full_like(target, np.nan))

    def total(prediction: Any) -> Any:
        return getattr(ragged.losses, name)(
            prediction, nan, lengths=[0] * 4, reduction=reduction, **OPTIONS.get(name, {})
        )

    inputs = {"prediction": adapter.array(np.full_like(prediction, np.nan))}
    assert float(total(**inputs)) == 0.0
    assert (adapter.gradients(total, inputs)["prediction"] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_totals_and_counts_add_up_over_micro_batches(adapter: Adapter, name: str) -> None:
    prediction, target = batch(name)
    measure = getattr(ragged.losses, name)
    parts = [
        measure.total_and_count(
            adapter.array(prediction[rows]), adapter.array(target[rows]), lengths=LENGTHS[rows]
        )
        for rows in (slice(0, 1), slice(1, 4))
    ]
    total, count = (sum(float(part[i]) for part in parts) for i in (0, 1))
    expected = loss(name, prediction, target, lengths=LENGTHS)
    assert_close(np.array(total / count), np.array(expected), adapter.dtype, LAYER, name)


def test_shapes_are_not_broadcast(adapter: Adapter) -> None:
    with pytest.raises(ragged.RaggedError, match=r"mse\(\): `prediction` is of shape .*reshape"):
        ragged.losses.mse(adapter.array(np.zeros((2, 3))), adapter.array(np.zeros((2, 3, 1))))
    with pytest.raises(ragged.RaggedError, match=r"`reduction` is 'avg'; expected one of"):
        ragged.losses.mse([[1.0]], [[1.0]], reduction="avg")
