"""Cross entropies: labels and probabilities, weights of classes, smoothing, and large logits.

What they share with all losses is in `test_losses`.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ragged
from ragged.errors import TargetError
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import fill_padding, normal, parametrize
from ragged_conformance.evaluation import Results, compiled, evaluator, native
from ragged_conformance.oracle_losses import loss
from ragged_conformance.tolerances import LAYER, MODEL, assert_close

CLASSES = 3
LENGTHS = np.array([3, 5, 0, 1])
VALID = oracle.padding_mask(LENGTHS, 5)
WEIGHTS = np.array([0.5, 2.0, 1.25])
REDUCTIONS = ("mean", "sum", "sequence_mean", "none")
LABELS = np.random.default_rng(0).integers(0, CLASSES, (4, 5))
LOGITS = normal(4, 5, CLASSES, seed=1)
SHARES = np.abs(normal(4, 5, CLASSES, seed=2)) / 8  # inside 0..1
NAMES = ("cross_entropy", "binary_cross_entropy")

Evaluate = Callable[..., tuple[Results, np.ndarray]]

cross_entropy_only = pytest.mark.operation("losses.cross_entropy")
binary_only = pytest.mark.operation("losses.binary_cross_entropy")
both = parametrize(NAMES, "losses.")
CROSS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "labels": (LABELS, {}),
    "weighted labels": (LABELS, {"class_weights": WEIGHTS}),
    "smoothed labels": (LABELS, {"label_smoothing": 0.25}),
    "smoothed to nothing": (LABELS, {"label_smoothing": 1.0}),
    "weighted, smoothed labels": (LABELS, {"class_weights": WEIGHTS, "label_smoothing": 0.25}),
    "a class without weight": (LABELS, {"class_weights": np.array([0.0, 1.0, 2.0])}),
    "probabilities": (SHARES, {}),
    "weighted, smoothed probabilities": (
        SHARES,
        {"class_weights": WEIGHTS, "label_smoothing": 0.25},
    ),
}
BINARY: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "yes or no": (np.eye(CLASSES)[LABELS], {}),
    "booleans": (np.eye(CLASSES)[LABELS] > 0, {"pos_weight": 3.0}),
    "integers": (np.eye(CLASSES)[LABELS].astype(np.int32), {"label_smoothing": 0.25}),
    "probabilities": (SHARES, {"pos_weight": 3.0, "label_smoothing": 0.25}),
}


def assert_equals_the_oracle(
    adapter: Adapter, name: str, target: np.ndarray, options: dict[str, Any]
) -> None:
    """Compare values and gradients over the valid steps, NaN and -100 at padding."""
    padded_target = target
    if target.dtype.kind == "i":
        padded_target = fill_padding(target, LENGTHS, -100)
    elif target.dtype.kind == "f":
        padded_target = fill_padding(target, LENGTHS)
    logits = fill_padding(LOGITS, LENGTHS)
    common: dict[str, Any] = {"lengths": LENGTHS, "weights": np.array([0.5, 2.0, 1.0, 3.0])}
    evaluate = make_evaluate(adapter, name, **native(adapter, options))
    values, gradient = evaluate(logits, target=padded_target, **common)
    for reduction, actual in values.items():
        expected = loss(name, LOGITS, target, reduction=reduction, **common, **options)
        assert_close(actual, expected, adapter.dtype, LAYER, reduction)
    expected = oracle.gradient(
        lambda logits: loss(name, logits, target, **common, **options), {"logits": LOGITS}
    )["logits"]
    assert_close(gradient, expected, adapter.dtype, MODEL, "gradient")
    assert (gradient[~VALID] == 0).all()


def make_evaluate(adapter: Adapter, name: str, **options: Any) -> Evaluate:
    """Evaluate all reductions, and the gradient of the mean by the logits; on JAX compiled."""

    def function(inputs: Any, constants: Any) -> tuple[Any, Any]:
        values = {
            reduction: getattr(ragged.losses, name)(
                inputs["logits"], **constants, reduction=reduction, **options
            )
            for reduction in REDUCTIONS
        }
        return values["mean"], values

    run = evaluator(adapter, function)

    def evaluate(logits: np.ndarray, **arrays: np.ndarray) -> tuple[Results, np.ndarray]:
        values, gradients = run({"logits": adapter.array(logits)}, adapter.arrays(arrays))
        return values, gradients["logits"]

    return evaluate


without_options = functools.cache(make_evaluate)


@cross_entropy_only
@pytest.mark.parametrize("case", CROSS)
def test_cross_entropy_equals_the_oracle(adapter: Adapter, case: str) -> None:
    assert_equals_the_oracle(adapter, "cross_entropy", *CROSS[case])


@binary_only
@pytest.mark.parametrize("case", BINARY)
def test_binary_cross_entropy_equals_the_oracle(adapter: Adapter, case: str) -> None:
    assert_equals_the_oracle(adapter, "binary_cross_entropy", *BINARY[case])


@binary_only
def test_each_feature_may_have_a_pos_weight(adapter: Adapter) -> None:
    columns = [
        loss("binary_cross_entropy", LOGITS, SHARES, pos_weight=w, reduction="none")[..., k]
        for k, w in enumerate(WEIGHTS)
    ]
    actual = ragged.losses.binary_cross_entropy(
        adapter.array(LOGITS), adapter.array(SHARES), pos_weight=adapter.array(WEIGHTS),
        reduction="none",
    )  # fmt: skip
    assert_close(adapter.to_numpy(actual), np.stack(columns, axis=-1), adapter.dtype, LAYER)


@cross_entropy_only
@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, np.float32])
def test_labels_may_be_of_any_dtype(adapter: Adapter, kind: type) -> None:
    expected = loss("cross_entropy", LOGITS, LABELS, lengths=LENGTHS)
    labels = adapter.array(LABELS.astype(kind))
    forms: tuple[Any, ...] = (labels, LABELS.astype(kind), LABELS.tolist())
    for form in forms:
        actual = ragged.losses.cross_entropy(adapter.array(LOGITS), form, lengths=LENGTHS)
        assert_close(adapter.to_numpy(actual), expected, adapter.dtype, LAYER)
        assert str(actual.dtype).endswith("64" if adapter.dtype == "float64" else "32")


@cross_entropy_only
def test_one_hot_probabilities_are_labels(adapter: Adapter) -> None:
    logits = LOGITS.copy()
    logits[LABELS != 2, 2] = -np.inf  # a class of probability 0
    losses = [
        ragged.losses.cross_entropy(adapter.array(logits), adapter.array(target))
        for target in (LABELS, np.eye(CLASSES)[LABELS])
    ]
    finite = np.where(np.isinf(logits), -1e9, logits)
    expected = loss("cross_entropy", finite, LABELS)
    for value in losses:
        assert_close(adapter.to_numpy(value), expected, adapter.dtype, LAYER)


@both
def test_rows_may_have_one_element(adapter: Adapter, name: str) -> None:
    """Classifiers of whole rows: logits `(batch, classes)`, labels `(batch,)`."""
    logits, labels = (LOGITS[:, 0], LABELS[:, 0]) if name == "cross_entropy" else (
        LOGITS[:, 0, 0], LABELS[:, 0] % 2,
    )  # fmt: skip
    mask, weights = np.array([True, False, True, True]), np.array([1.0, np.nan, 2.0, 0.5])
    masking: dict[str, Any] = {"mask": mask, "weights": weights}
    values, _ = without_options(adapter, name)(logits, target=labels, **masking)
    for reduction, actual in values.items():
        expected = loss(name, logits, labels, **masking, reduction=reduction)
        assert_close(actual, expected, adapter.dtype, LAYER, reduction)


@both
@pytest.mark.parametrize("size", [1e4, 100.0])
def test_large_logits_neither_overflow_nor_lose_the_loss(
    adapter: Adapter, name: str, size: float
) -> None:
    logits = size * np.array([[[1.0, -1.0, 0.0], [-1.0, 1.0, 1.0]]])
    target = np.array([[1, 1]]) if name == "cross_entropy" else np.eye(3)[np.array([[1, 1]])]
    values, gradient = without_options(adapter, name)(logits, target=target)
    assert_close(values["mean"], loss(name, logits, target), adapter.dtype, LAYER)
    expected = oracle.gradient(lambda logits: loss(name, logits, target), {"logits": logits})
    assert_close(gradient, expected["logits"], adapter.dtype, MODEL)


@both
def test_what_is_certain_keeps_its_small_loss(adapter: Adapter, name: str) -> None:
    """log(1 + exp(-12)) is 6e-6, which a log of a rounded probability does not hold."""
    logits = np.array([[[12.0, 0.0]]]) if name == "cross_entropy" else np.array([[-12.0]])
    actual = without_options(adapter, name)(logits, target=np.array([[0]]))[0]["mean"]
    single = "float64" if adapter.dtype == "float64" else "float32"
    rtol = 1e-10 if single == "float64" else 0.02 if name == "cross_entropy" else 1e-5
    np.testing.assert_allclose(actual, np.log1p(np.exp(-12)), rtol=rtol)


def functions(adapter: Adapter) -> Any:
    """Where a framework has `vmap` and `hessian`."""
    modules = {"torch": "torch.func", "jax": "jax"}
    if adapter.name not in modules:
        pytest.skip("vmap and hessian are torch's and JAX's")
    return pytest.importorskip(modules[adapter.name])


functorch = pytest.mark.filterwarnings(  # a warning of torch's own code at its first import
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)


@functorch
@binary_only
def test_second_derivatives_at_zero_and_far_from_it(adapter: Adapter) -> None:
    """Untrained logits are near zero, where |x| has no derivative."""

    def run(logit: Any) -> Any:
        return ragged.losses.binary_cross_entropy(logit[None, None], np.array([[1]]))

    curvature = compiled(adapter, functions(adapter).hessian(run))
    for logit, expected in ((0.0, 0.25), (200.0, 0.0), (-200.0, 0.0)):
        actual = curvature(adapter.array(np.array(logit)))
        assert_close(adapter.to_numpy(actual), np.array(expected), adapter.dtype)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "label too large": (
        "cross_entropy",
        {"target": np.where(np.arange(20).reshape(4, 5) == 6, 3, LABELS)},
        r"`target` is 3 at \[1, 1\]; expected an integer of 0..2, as there are 3 classes",
    ),
    "label below 0": (
        "cross_entropy",
        {"target": np.where(LABELS == LABELS, -100, 0)},
        r"`target` is -100 at \[0, 0\]; expected an integer of 0..2",
    ),
    "label between classes": (
        "cross_entropy",
        {"target": LABELS + 0.5},
        r"`target` is .*\.5 at \[0, 0\]; expected an integer",
    ),
    "label NaN": (
        "cross_entropy",
        {"target": LABELS + np.nan},
        r"`target` is nan at \[0, 0\]; expected an integer",
    ),
    "one-hot integers": (
        "cross_entropy",
        {"target": np.eye(CLASSES, dtype=np.int32)[LABELS]},
        r"`target` is of dtype .*int32 in the prediction's shape \(4, 5, 3\); expected labels of "
        r"shape \(4, 5\)",
    ),
    "probability above 1": (
        "cross_entropy",
        {"target": 4 * SHARES + 1.5},
        r"`target` is .* at \[0, 0, 0\]; expected inside 0..1",
    ),
    "other shape": (
        "cross_entropy",
        {"target": LABELS[:, :4]},
        r"`prediction` is of shape \(4, 5, 3\) beside .* and a last axis of classes",
    ),
    "no class": (
        "cross_entropy",
        {"prediction": np.zeros((4, 5, 0))},
        r"`prediction` is of shape \(4, 5, 0\) beside .* and a last axis of classes",
    ),
    "weights of other classes": (
        "cross_entropy",
        {"class_weights": np.ones(2)},
        r"`class_weights` is of shape \(2,\); expected \(3,\), one for each class",
    ),
    "one weight for all classes": (
        "cross_entropy",
        {"class_weights": np.ones(1)},
        r"`class_weights` is of shape \(1,\); expected \(3,\), one for each class",
    ),
    "smoothing above 1": (
        "cross_entropy",
        {"label_smoothing": 1.5},
        "`label_smoothing` is 1.5; expected inside 0..1",
    ),
    "smoothing below 0": (
        "binary_cross_entropy",
        {"target": SHARES, "label_smoothing": -0.5},
        "`label_smoothing` is -0.5; expected inside 0..1",
    ),
    "target above 1": (
        "binary_cross_entropy",
        {"target": SHARES + 2},
        r"`target` is .* at \[0, 0, 0\]; expected inside 0..1",
    ),
    "target below 0": (
        "binary_cross_entropy",
        {"target": -1 - SHARES},
        r"`target` is .* at \[0, 0, 0\]; expected inside 0..1",
    ),
    "weight of other features": (
        "binary_cross_entropy",
        {"target": SHARES, "pos_weight": np.ones(2)},
        r"`pos_weight` is of shape \(2,\); expected a number, or the last axes of \(4, 5, 3\)",
    ),
    "weight of every element": (
        "binary_cross_entropy",
        {"target": SHARES, "pos_weight": np.ones((4, 5, 3))},
        r"`pos_weight` is of shape \(4, 5, 3\); expected a number, or the last axes",
    ),
    "lengths of one step": (
        "cross_entropy",
        {"prediction": LOGITS[:, 0], "target": LABELS[:, 0]},
        r"`lengths` is given for elements of shape \(4,\); expected a time axis",
    ),
}


@pytest.mark.operation("losses.cross_entropy", "losses.binary_cross_entropy")
@pytest.mark.parametrize("refused", REFUSED)
def test_what_has_no_cross_entropy_is_refused(adapter: Adapter, refused: str) -> None:
    name, arguments, message = REFUSED[refused]
    all_arguments = {"prediction": LOGITS, "target": LABELS, "lengths": LENGTHS, **arguments}
    with pytest.raises(ragged.RaggedError, match=rf"^{name}\(\): {message}.*\. \w.*"):
        getattr(ragged.losses, name)(**native(adapter, all_arguments))


@functorch
@cross_entropy_only
def test_a_traced_label_that_is_no_class_makes_the_loss_nan(adapter: Adapter) -> None:
    """A target under `vmap` represents all traced ones, whose values cannot be read."""
    logits = adapter.array(LOGITS)
    wrong = LABELS.copy()
    wrong[0, 2], wrong[0, 4] = 3, 99  # the second one at padding

    def run(target: Any) -> Any:
        return ragged.losses.cross_entropy(logits, target, lengths=LENGTHS, reduction="none")

    batched = compiled(adapter, functions(adapter).vmap(run))
    actual = adapter.to_numpy(batched(adapter.array(wrong[None])))[0]
    assert np.argwhere(np.isnan(actual)).tolist() == [[0, 2]]
    with pytest.raises(TargetError):
        run(adapter.array(wrong))


@both
def test_torch_says_the_same_of_rows_without_padding(torch_adapter: Adapter, name: str) -> None:
    from torch.nn import functional

    a = torch_adapter.array
    valid = torch_adapter.array(VALID)
    logits, weights = a(LOGITS), a(WEIGHTS)
    if name == "cross_entropy":
        targets, option, keyword = [a(LABELS), a(SHARES)], "class_weights", "weight"
        reference: Any = functional.cross_entropy
        smoothed = {"label_smoothing": 0.25}
    else:
        targets, option, keyword = [a(SHARES)], "pos_weight", "pos_weight"
        reference, smoothed = functional.binary_cross_entropy_with_logits, {}
    for target in targets:
        for reduction in ("mean", "sum"):
            expected = reference(
                logits[valid], target[valid], reduction=reduction, **{keyword: weights}, **smoothed
            )
            actual = getattr(ragged.losses, name)(
                logits, target, lengths=LENGTHS, reduction=reduction, **{option: weights},
                **smoothed,
            )  # fmt: skip
            assert_close(
                torch_adapter.to_numpy(actual), torch_adapter.to_numpy(expected),
                torch_adapter.dtype, LAYER, reduction,
            )  # fmt: skip


@both
def test_optax_says_the_same_of_rows_without_padding(jax_adapter: Adapter, name: str) -> None:
    jax, optax = map(pytest.importorskip, ("jax", "optax"))
    logits = jax_adapter.array(LOGITS)
    if name == "cross_entropy":
        target = jax_adapter.array(LABELS)
        reference = optax.softmax_cross_entropy_with_integer_labels
    else:
        target, reference = jax_adapter.array(SHARES), optax.sigmoid_binary_cross_entropy
    elements = jax_adapter.to_numpy(jax.jit(reference)(logits, target))
    actual = getattr(ragged.losses, name)(logits, target, lengths=LENGTHS)
    assert_close(jax_adapter.to_numpy(actual), elements[VALID].mean(), jax_adapter.dtype, LAYER)
