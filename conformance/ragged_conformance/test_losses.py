"""Losses: means over valid elements, values and gradients, with NaN and infinities at padding."""

import functools
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import (
    LAST_AXIS,
    PADDING_VALUES,
    fill_padding,
    normal,
    parametrize,
    target_of,
)
from ragged_conformance.evaluation import Evaluate, evaluator, forward, native
from ragged_conformance.oracle_losses import LOSSES, loss
from ragged_conformance.tolerances import LAYER, MODEL, assert_close

SHAPE = (4, 5, 2)
LENGTHS = np.array([3, 5, 0, 1])
SCALARS = ("mean", "sum", "sequence_mean")
REDUCTIONS = (*SCALARS, "none")
OPTIONS: dict[str, dict[str, Any]] = {
    "huber": {"delta": 0.7},
    "mape": {"epsilon": 0.5},
    "quantile": {"quantiles": (0.05, 0.4, 0.9)},
    "gaussian_nll": {"full": True},
    "cross_entropy": {"class_weights": np.array([0.5, 2.0, 1.25]), "label_smoothing": 0.25},
    "binary_cross_entropy": {"pos_weight": 3.0, "label_smoothing": 0.25},
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
names = parametrize(LOSSES, "losses.")


def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a target; a few elements are 0 on both sides."""
    prediction = normal(*SHAPE, *LAST_AXIS.get(name, ()), seed=1)
    target = target_of(name, normal(*SHAPE, seed=2))
    prediction[1, 1], target[1, 1:3] = 0.0, 0.0
    return prediction, target


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("valid", VALID)
@names
def test_values_equal_the_oracle(
    adapter: Adapter, name: str, valid: str, weights: str, pytestconfig: pytest.Config
) -> None:
    is_plain = name in ("mse", "cross_entropy") or valid == "lengths" or weights == "none"
    if adapter.name == "jax" and not is_plain and not pytestconfig.getoption("exhaustive"):
        pytest.skip("masks and weights meet in one function: two losses, and torch, show all pairs")
    prediction, target = batch(name)
    common = {**VALID[valid], "weights": WEIGHTS[weights], **OPTIONS.get(name, {})}
    for reduction in REDUCTIONS:
        expected = loss(name, prediction, target, reduction=reduction, **common)
        actual = getattr(ragged.losses, name)(
            adapter.array(prediction), adapter.array(target), reduction=reduction,
            **native(adapter, common),
        )  # fmt: skip
        assert_close(adapter.to_numpy(actual), expected, adapter.dtype, LAYER, reduction)


@pytest.mark.operation("losses.mse")
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("valid", VALID)
def test_totals_and_counts_equal_the_oracle(adapter: Adapter, valid: str, weights: str) -> None:
    prediction, target = batch("mse")
    common = {**VALID[valid], "weights": WEIGHTS[weights]}
    total, count = ragged.losses.mse.total_and_count(
        adapter.array(prediction), adapter.array(target), **native(adapter, common)
    )
    expected = loss("mse", prediction, target, reduction="sum", **common)
    assert_close(adapter.to_numpy(total), expected, adapter.dtype, LAYER, "total")
    expected = loss("mse", prediction, target, **common) * float(count)
    assert_close(adapter.to_numpy(total), expected, adapter.dtype, LAYER, "mean * count")


@functools.cache
def make_evaluate(adapter: Adapter, name: str) -> Evaluate:
    """Evaluate each scalar reduction, and the gradients of their sum in the `shares` given."""

    def function(inputs: Any, constants: Any) -> tuple[Any, Any]:
        common = {"lengths": constants["lengths"], **OPTIONS.get(name, {})}
        values = {
            reduction: getattr(ragged.losses, name)(**inputs, reduction=reduction, **common)
            for reduction in SCALARS
        }
        shares = constants["shares"]
        return sum(shares[i] * value for i, value in enumerate(values.values())), values

    return evaluator(adapter, function)


def evaluate(
    adapter: Adapter, name: str, arrays: dict[str, np.ndarray], lengths: np.ndarray, reduction: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A reduction and its gradients; on JAX one program of a loss serves all tests."""
    constants = {"lengths": lengths, "shares": np.array([float(r == reduction) for r in SCALARS])}
    values, gradients = make_evaluate(adapter, name)(
        adapter.arrays(arrays), adapter.arrays(constants)
    )
    return values[reduction], gradients


@pytest.mark.parametrize("reduction", ["mean", "sequence_mean"])
@names
def test_gradients_equal_the_oracle(adapter: Adapter, name: str, reduction: str) -> None:
    prediction, target = batch(name)
    prediction[1, 1] = 0.25  # mae, quantile and smape have no derivative where both are 0
    arrays = {"prediction": prediction, "target": target, "weights": WEIGHTS["steps"]}
    common = {"lengths": LENGTHS, "reduction": reduction, **OPTIONS.get(name, {})}
    expected = oracle.gradient(
        lambda prediction: loss(name, **{**arrays, "prediction": prediction}, **common),
        {"prediction": prediction},
    )["prediction"]
    padding = ~oracle.padding_mask(LENGTHS, SHAPE[1])
    for value in PADDING_VALUES:
        padded = {what: fill_padding(x, LENGTHS, value) for what, x in arrays.items()}
        _, gradients = evaluate(adapter, name, padded, LENGTHS, reduction)
        assert_close(gradients["prediction"], expected, adapter.dtype, MODEL, name)
        for argument, gradient in gradients.items():
            assert (gradient[padding] == 0).all(), f"{name}: by {argument} at padding, {value}"


@names
def test_gradients_are_finite_where_both_sides_are_zero(adapter: Adapter, name: str) -> None:
    prediction, target = batch(name)
    arrays = {"prediction": prediction, "target": target, "weights": np.ones(SHAPE[:2])}
    _, gradients = evaluate(adapter, name, arrays, np.full(4, SHAPE[1]), "mean")
    assert np.isfinite(gradients["prediction"]).all()


@pytest.mark.parametrize("reduction", SCALARS)
@names
def test_nothing_valid_gives_zero_with_zero_gradient(
    adapter: Adapter, name: str, reduction: str
) -> None:
    prediction, target = (np.full_like(x, np.nan) for x in batch(name))
    arrays = {"prediction": prediction, "target": target}
    nan, options = adapter.arrays(arrays), OPTIONS.get(name, {})
    eager = getattr(ragged.losses, name)(**nan, lengths=[0] * 4, reduction=reduction, **options)
    assert float(eager) == 0.0
    weighted = {**arrays, "weights": np.full(SHAPE[:2], np.nan)}
    value, gradients = evaluate(adapter, name, weighted, 0 * LENGTHS, reduction)
    assert float(value) == 0.0
    assert (gradients["prediction"] == 0).all()


@names
def test_totals_and_counts_add_up_over_micro_batches(adapter: Adapter, name: str) -> None:
    arrays = dict(zip(("prediction", "target"), batch(name), strict=True))

    def measure(arrays: Any, lengths: Any) -> dict[str, Any]:
        both = getattr(ragged.losses, name).total_and_count(**arrays, lengths=lengths)
        return dict(zip(("total", "count"), both, strict=True))

    run = forward(adapter, measure)  # on JAX parts of one shape are of one program
    parts = [
        run(adapter.arrays({what: x[rows] for what, x in arrays.items()}), LENGTHS[rows])
        for rows in (slice(0, 2), slice(2, 4))
    ]
    total, count = (sum(float(part[what]) for part in parts) for what in ("total", "count"))
    for reduction, actual in (("sum", total), ("mean", total / count)):
        expected = loss(name, *arrays.values(), lengths=LENGTHS, reduction=reduction)
        assert_close(np.array(actual), np.array(expected), adapter.dtype, LAYER, reduction)


@names
def test_nan_in_a_valid_step_is_not_hidden(adapter: Adapter, name: str) -> None:
    for wrong in (0, 1):
        arrays = batch(name)
        arrays[wrong][0, 1] = np.nan
        if name == "cross_entropy" and wrong:
            continue  # no class is NaN: it is refused
        actual = getattr(ragged.losses, name)(
            *(adapter.array(array) for array in arrays), lengths=LENGTHS, **OPTIONS.get(name, {})
        )
        assert np.isnan(float(actual)), f"{('prediction', 'target')[wrong]}"


@pytest.mark.operation("losses.mse")
def test_sums_of_many_elements_are_exact_in_half_precision_too(
    adapter: Adapter, dtype: str
) -> None:
    width = 20_000  # float16 ends at 65504, bfloat16 counts to 256
    lengths = np.array([width, 301, 0, width])
    prediction, target = (256 * normal(4, width, seed=seed) for seed in (1, 2))
    valid = oracle.padding_mask(lengths, width)
    expected = np.where(valid, (prediction - target) ** 2, 0).sum()
    arrays = adapter.array(prediction), adapter.array(target)
    total, count = ragged.losses.mse.total_and_count(*arrays, lengths=lengths)
    mean = ragged.losses.mse(*arrays, lengths=lengths)
    assert float(count) == lengths.sum()
    single = dtype if dtype == "float64" else "float32"  # the inputs are exact in every dtype
    assert_close(adapter.to_numpy(total), expected, single, LAYER, "total")
    assert_close(adapter.to_numpy(mean), expected / lengths.sum(), single, LAYER, "mean")


@pytest.mark.operation("losses.mse")
def test_shapes_are_not_broadcast(adapter: Adapter) -> None:
    with pytest.raises(ragged.RaggedError, match=r"mse\(\): `prediction` is of shape .*reshape"):
        ragged.losses.mse(adapter.array(np.zeros((3, 3))), adapter.array(np.zeros((3, 3, 1))))
    with pytest.raises(ragged.RaggedError, match=r"`reduction` is 'avg'; expected one of"):
        ragged.losses.mse([[1.0]], [[1.0]], reduction="avg")


BAD_OPTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "alignment": ("mse", {"alignment": "top"}, "`alignment` is 'top'; expected 'left'"),
    "mask of numbers": ("mse", {"mask": np.ones((4, 5))}, "`mask` is of dtype .*; expected bool"),
    "mask of rows": ("mse", {"mask": np.ones(4, bool)}, r"`mask` is of shape \(4,\); expected"),
    "other mask": ("mse", {"mask": np.ones((5, 2), bool)}, r"`mask` is of shape \(5, 2\); exp"),
    "both": ("mse", {"mask": np.ones((4, 5), bool), "lengths": LENGTHS}, "`mask` is given beside"),
    "other weights": ("mse", {"weights": np.ones((5, 2))}, r"`weights` is of shape \(5, 2\); exp"),
    "delta": ("huber", {"delta": 0.0}, "`delta` is 0.0; expected above 0"),
    "epsilon": ("mape", {"epsilon": 0.0}, "`epsilon` is 0.0; expected above 0"),
    "one quantile": ("quantile", {"quantiles": (0.5,)}, "`quantiles` is .*; expected one level"),
    "level 1": (
        "quantile",
        {"quantiles": (0.1, 0.5, 1.0)},
        "`quantiles` is .*; expected one level",
    ),
}


@pytest.mark.operation("losses.mse", "losses.huber", "losses.mape", "losses.quantile")
@pytest.mark.parametrize("bad", BAD_OPTIONS)
def test_bad_options_are_refused(adapter: Adapter, bad: str) -> None:
    name, options, message = BAD_OPTIONS[bad]
    prediction, target = (adapter.array(array) for array in batch(name))
    with pytest.raises(ragged.RaggedError, match=rf"^{name}\(\): {message}.*\. \w.*"):
        getattr(ragged.losses, name)(prediction, target, **native(adapter, options))


@pytest.mark.operation("losses.gaussian_nll")
def test_a_variance_is_not_guessed(adapter: Adapter) -> None:
    with pytest.raises(ragged.RaggedError, match="a last axis of 2, mean and log variance"):
        ragged.losses.gaussian_nll(adapter.array(normal(2, 3, 3)), adapter.array(normal(2, 3)))
