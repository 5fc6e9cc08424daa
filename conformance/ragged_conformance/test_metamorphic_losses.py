"""The losses on random batches: what may change about a batch without changing a mean."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import ragged
from ragged.losses import REDUCTIONS, MaskedLoss
from ragged_conformance import strategies
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import LAST_AXIS, fill_padding, normal, parametrize, target_of
from ragged_conformance.evaluation import Evaluate, evaluator, forward, native, one_thread
from ragged_conformance.oracle import align, padding_mask
from ragged_conformance.tolerances import LAYER, assert_all_close, assert_close

LOSSES = {name: loss for name, loss in vars(ragged.losses).items() if isinstance(loss, MaskedLoss)}
SCALARS = tuple(reduction for reduction in REDUCTIONS if reduction != "none")
ROWS, WIDTH, FEATURES = 4, 5, 2
Batch = dict[str, np.ndarray]

every_loss = parametrize(LOSSES, "losses.")
row_lengths = strategies.lengths(ROWS, WIDTH)
reductions = st.sampled_from(REDUCTIONS)
sides = st.sampled_from(strategies.SIDES)
weight_forms = st.sampled_from(("rows", "steps", "elements"))


def make_batch(name: str, seed: int, weights: str = "elements") -> Batch:
    """A prediction, a target without 0, by which some losses divide, and weights, some 0."""
    shape = (ROWS, WIDTH, FEATURES)
    rank = ("rows", "steps", "elements").index(weights) + 1
    target = normal(*shape, seed=seed + 2)
    drawn = np.maximum(normal(*shape[:rank], seed=seed) + 0.5, 0.0)
    return {
        "prediction": normal(*shape, *LAST_AXIS.get(name, ()), seed=seed + 1),
        "target": target_of(name, target + np.copysign(0.25, target)),
        "weights": drawn,
    }


def spread(batch: Batch) -> Batch:
    """Give every element its own weight."""
    weights, shape = batch["weights"], batch["target"].shape
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return {**batch, "weights": np.broadcast_to(weights, shape).copy()}


def filled(batch: Batch, lengths: np.ndarray, value: float) -> Batch:
    """Write a value into all padding."""
    return {name: fill_padding(x, lengths, value) for name, x in batch.items()}


@functools.cache
def make_evaluate(adapter: Adapter, name: str) -> Evaluate:
    """Evaluate all reductions, and the gradients of their sum in the `shares` given."""
    loss = LOSSES[name]

    def function(inputs: Any, constants: Any) -> tuple[Any, Any]:
        values = {
            reduction: loss(**inputs, lengths=constants["lengths"], reduction=reduction)
            for reduction in REDUCTIONS
        }
        total = (values["none"] * constants["like"]).sum()
        for i, reduction in enumerate(SCALARS):
            total = total + constants["shares"][i] * values[reduction]
        return total, values

    return evaluator(adapter, function)


def evaluate(
    adapter: Adapter, name: str, batch: Batch, lengths: np.ndarray, rows: Any = slice(None)
) -> Any:
    """All reductions and gradients; `rows` are those that the weights of "none" belong to."""
    like = np.zeros(batch["target"].shape)
    like[rows, :WIDTH] = normal(ROWS, WIDTH, FEATURES, seed=3)
    constants = {"lengths": lengths, "like": like, "shares": normal(len(SCALARS), seed=4)}
    return make_evaluate(adapter, name)(adapter.arrays(batch), adapter.arrays(constants))


def call(adapter: Adapter, name: str, batch: Batch, **options: Any) -> np.ndarray:
    """Call a loss without compiling it."""
    with one_thread(adapter):
        return adapter.to_numpy(LOSSES[name](**adapter.arrays(batch), **native(adapter, options)))


@functools.cache
def make_sums(adapter: Adapter, name: str) -> Any:
    """Evaluate what is additive over the parts of a batch, beside the means."""

    def function(batch: Any, lengths: Any) -> dict[str, Any]:
        total, count = LOSSES[name].total_and_count(**batch, lengths=lengths)
        return {"total": total, "count": count} | {
            reduction: LOSSES[name](**batch, lengths=lengths, reduction=reduction)
            for reduction in REDUCTIONS
        }

    return forward(adapter, function)


def sums(adapter: Adapter, name: str, batch: Batch, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """All reductions, the sum of the weighted losses and the sum of the weights."""
    return make_sums(adapter, name)(adapter.arrays(batch), adapter.array(lengths))


def assert_results_close(adapter: Adapter, actual: Any, expected: Any) -> None:
    """Compare values and gradients."""
    assert_all_close(actual[0], expected[0], adapter.dtype, LAYER)
    assert_all_close(actual[1], expected[1], adapter.dtype)


def moved(results: Any, move: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Move the elements of all results that have some."""
    return [{name: move(x) if x.ndim else x for name, x in part.items()} for part in results]


@every_loss
@given(
    lengths=row_lengths, seed=strategies.seeds(), weights=weight_forms, value=strategies.garbage()
)
def test_garbage_in_padding_changes_nothing(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int, weights: str, value: float
) -> None:
    batch = spread(make_batch(name, seed, weights))
    actual = evaluate(adapter, name, filled(batch, lengths, value), lengths)
    expected = evaluate(adapter, name, filled(batch, lengths, 0.0), lengths)
    padding = ~padding_mask(lengths, WIDTH)
    for part, same in zip(actual, expected, strict=True):
        for what, result in part.items():
            np.testing.assert_array_equal(result, same[what], what)
            assert result.ndim == 0 or (result[padding] == 0).all(), f"{what} at padding"


@every_loss
@given(lengths=row_lengths, seed=strategies.seeds(), order=strategies.orders(ROWS))
def test_rows_may_come_in_any_order(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int, order: np.ndarray
) -> None:
    batch = make_batch(name, seed)
    expected = moved(evaluate(adapter, name, batch, lengths), lambda x: x[order])
    permuted = {what: x[order] for what, x in batch.items()}
    actual = evaluate(adapter, name, permuted, lengths[order], np.argsort(order))
    assert_results_close(adapter, actual, expected)


@every_loss
@given(
    lengths=row_lengths,
    seed=strategies.seeds(),
    positions=strategies.orders(ROWS + 2),
    value=strategies.garbage(),
)
def test_more_padding_and_empty_rows_change_nothing(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int, positions: np.ndarray, value: float
) -> None:
    batch, rows = make_batch(name, seed), positions[:ROWS]
    more = np.zeros(ROWS + 2, np.int64)
    more[rows] = lengths

    def embed(x: np.ndarray, value: float) -> np.ndarray:
        larger = np.full((ROWS + 2, WIDTH + 3, *x.shape[2:]), value)
        larger[rows, :WIDTH] = x
        return larger

    larger = {what: embed(x, value) for what, x in batch.items()}
    actual = evaluate(adapter, name, filled(larger, more, value), more, rows)
    expected = evaluate(adapter, name, batch, lengths)
    assert_results_close(adapter, actual, moved(expected, lambda x: embed(x, 0.0)))


@every_loss
@given(
    lengths=row_lengths,
    seed=strategies.seeds(),
    factor=st.sampled_from((0.25, 3.0, 8.0)),
    weights=weight_forms,
)
def test_means_know_no_scale_of_the_weights(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int, factor: float, weights: str
) -> None:
    batch = spread(make_batch(name, seed, weights))
    scaled = {**batch, "weights": factor * batch["weights"]}
    actual, _ = evaluate(adapter, name, scaled, lengths)
    expected, _ = evaluate(adapter, name, batch, lengths)
    scale = {reduction: 1.0 if "mean" in reduction else factor for reduction in REDUCTIONS}
    expected = {reduction: scale[reduction] * value for reduction, value in expected.items()}
    assert_all_close(actual, expected, adapter.dtype, LAYER)


@every_loss
@given(lengths=row_lengths, seed=strategies.seeds(), cut=st.sampled_from((0, ROWS // 2)))
def test_parts_add_up_to_the_batch(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int, cut: int
) -> None:
    batch = filled(make_batch(name, seed), lengths, np.nan)
    whole = sums(adapter, name, batch, lengths)
    parts = [
        sums(adapter, name, {what: x[rows] for what, x in batch.items()}, lengths[rows])
        for rows in (slice(0, cut), slice(cut, ROWS))
    ]
    total, count = (np.asarray(sum(part[key] for part in parts)) for key in ("total", "count"))
    actual = {
        "total": total,
        "count": count,
        "sum": total,
        "mean": np.asarray(total / count if count else 0.0),
        "none": np.concatenate([part["none"] for part in parts]),
    }
    expected = {key: whole[key] for key in actual}
    assert_all_close(actual, expected, adapter.dtype, LAYER)


@every_loss
@given(lengths=row_lengths, seed=strategies.seeds())
def test_rows_laid_end_to_end_have_the_same_mean(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int
) -> None:
    batch, valid = make_batch(name, seed), padding_mask(lengths, WIDTH)
    tokens = int(lengths.sum())
    joined = {what: np.full((1, ROWS * WIDTH, *x.shape[2:]), np.nan) for what, x in batch.items()}
    for what, x in batch.items():
        joined[what][0, :tokens] = x[valid]
    actual = sums(adapter, name, joined, np.array([tokens]))
    expected = sums(adapter, name, batch, lengths)
    same = ("mean", "sum", "total", "count")
    assert_all_close(
        {key: actual[key] for key in same},
        {key: expected[key] for key in same},
        adapter.dtype,
        LAYER,
    )


@every_loss
@given(lengths=row_lengths, seed=strategies.seeds(), form=strategies.forms(), reduction=reductions)
def test_alignment_and_form_of_lengths_change_nothing(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int, form: str, reduction: str
) -> None:
    batch = make_batch(name, seed)
    right = {what: align(x, lengths, "left", "right") for what, x in batch.items()}
    right = {what: fill_padding(x, lengths, np.nan, "right") for what, x in right.items()}
    same = {"lengths": strategies.FORMS[form](adapter, lengths, WIDTH), "reduction": reduction}
    expected = call(adapter, name, batch, **same)
    actual = call(adapter, name, right, alignment="right", **same)
    actual = align(actual, lengths, "right", "left") if reduction == "none" else actual
    assert_close(actual, expected, adapter.dtype, LAYER, reduction)


@every_loss
@given(lengths=row_lengths, seed=strategies.seeds(), side=sides, reduction=reductions)
def test_masks_and_lengths_say_the_same(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int, side: str, reduction: str
) -> None:
    batch = make_batch(name, seed)
    expected = call(adapter, name, batch, lengths=lengths, alignment=side, reduction=reduction)
    steps = padding_mask(lengths, WIDTH, side)
    elements = np.repeat(steps[..., None], FEATURES, axis=2)
    for mask in (steps, elements):
        actual = call(adapter, name, batch, mask=mask, reduction=reduction)
        np.testing.assert_array_equal(actual, expected)


@every_loss
@given(lengths=row_lengths, seed=strategies.seeds(), weights=weight_forms, reduction=reductions)
def test_weights_of_rows_and_steps_are_weights_of_their_elements(
    adapter: Adapter, name: str, lengths: np.ndarray, seed: int, weights: str, reduction: str
) -> None:
    batch, same = make_batch(name, seed, weights), {"lengths": lengths, "reduction": reduction}
    actual = call(adapter, name, batch, **same)
    assert_close(actual, call(adapter, name, spread(batch), **same), adapter.dtype, LAYER)
    ones = {**batch, "weights": np.ones(batch["weights"].shape)}
    without = {what: x for what, x in batch.items() if what != "weights"}
    actual = call(adapter, name, ones, **same)
    assert_close(actual, call(adapter, name, without, **same), adapter.dtype, LAYER)
