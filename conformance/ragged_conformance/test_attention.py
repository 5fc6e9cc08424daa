"""Attention over rows of different lengths: its numbers, its promises, what it refuses."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle_attention
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import PADDING_VALUES, fill_padding, normal
from ragged_conformance.evaluation import Evaluate, evaluator
from ragged_conformance.oracle import gradient
from ragged_conformance.tolerances import LAYER, assert_all_close, assert_close

pytestmark = pytest.mark.operation("attention")
Q_TIME, K_TIME, HEADS, SIZE, VALUE_SIZE = 4, 6, 2, 3, 5

# Four rows wherever a case allows it: JAX then compiles one program for many cases.
LENGTHS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mixed": ((3, 4, 0, 1), (5, 1, 3, 6)),
    "length 0": ((2, 0, 4, 0), (0, 0, 6, 2)),
    "ties": ((3, 3, 1, 1), (3, 3, 6, 6)),
    "all full": ((4,) * 4, (6,) * 4),
    "all rows empty": ((0,) * 4, (0,) * 4),
    "one long among many short": ((1, 1, 4, 1, 1), (1, 1, 6, 1, 2)),
    "no rows": ((), ()),
}
DROPPED = {"dropout": 0.3, "seed": 2**40 + 7}
FORMS: dict[str, dict[str, Any]] = {
    "heads": {},
    "heads, causal": {"causal": True},
    "heads, dropped": DROPPED,
    "shared, strictly causal": {"is_shared": True, "causal": True, "diagonal": -1},
    "shared, causal, dropped": {"is_shared": True, "causal": True, **DROPPED},
    "shared, scaled": {"is_shared": True, "scale": 0.9},
}
forms = pytest.mark.parametrize("form", FORMS)
Values = dict[str, np.ndarray]
Arrays = dict[str, Any]


def values_of(form: str, batch: int, width: tuple[int, int] = (Q_TIME, K_TIME)) -> Values:
    """Draw q, k and v."""
    is_shared = FORMS[form].get("is_shared", False)
    heads = () if is_shared else (HEADS,)
    return {
        "q": normal(batch, width[0], HEADS, SIZE, seed=1),
        "k": normal(batch, width[1], HEADS, SIZE, seed=2),
        "v": normal(batch, width[1], *heads, VALUE_SIZE, seed=3),
    }


def options_of(form: str) -> dict[str, Any]:
    return {key: value for key, value in FORMS[form].items() if key != "is_shared"}


def filled(values: Mapping[str, np.ndarray], lengths: Any, value: float = np.nan) -> Values:
    """Fill the padding."""
    of_q, of_k = lengths
    return {n: fill_padding(x, of_q if n == "q" else of_k, value) for n, x in values.items()}


def evaluate(
    adapter: Adapter, values: Values, ends: Arrays, form: str, weights: np.ndarray | None = None
) -> tuple[np.ndarray, Values]:
    """The result, and the gradients of a weighted sum of it, of the arrays as they are."""
    if weights is None:
        weights = weights_of(values)
    constants = {"ends": ends, "weights": adapter.array(weights)}
    run = make_evaluate(adapter, form, os.environ.get("RAGGED_KERNELS"))
    outputs, gradients = run(adapter.arrays(values), constants)
    return outputs["out"], gradients


@functools.cache
def make_evaluate(adapter: Adapter, form: str, _kernels: str | None) -> Evaluate:
    """Evaluate a form, with kernels or without; on JAX one program of a layout serves all tests."""
    return evaluator(adapter, functools.partial(total_and_result, options_of(form)))


def total_and_result(options: Arrays, arrays: Any, constants: Any) -> tuple[Any, Arrays]:
    out = ragged.attention(**arrays, **constants["ends"], **options)
    return (out * constants["weights"]).sum(), {"out": out}


def weights_of(values: Values) -> np.ndarray:
    """Draw the weights of a result of padded rows."""
    v = values["v"]
    return normal(*values["q"].shape[:2], *v.shape[2:], seed=4)


def native_lengths(adapter: Adapter, lengths: Any) -> Arrays:
    return {name: adapter.array(np.array(each)) for name, each in named(lengths).items()}


def named(lengths: Any) -> dict[str, Any]:
    return dict(zip(("q_lengths", "k_lengths"), map(list, lengths), strict=True))


@pytest.fixture(params=["kernels", "no kernels"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with kernels, where there are any, and without."""
    if request.param == "no kernels":
        monkeypatch.setenv("RAGGED_KERNELS", "0")


@forms
@pytest.mark.parametrize("case", LENGTHS)
def test_result_and_weights_equal_the_oracle(adapter: Adapter, form: str, case: str) -> None:
    lengths = LENGTHS[case]
    values: Arrays = values_of(form, len(lengths[0]))
    options = options_of(form)
    arrays = adapter.arrays(filled(values, lengths))
    out = adapter.to_numpy(ragged.attention(**arrays, **named(lengths), **options))
    expected, expected_weights = oracle_attention.attention(**values, **named(lengths), **options)
    assert_close(out, expected, adapter.dtype, LAYER)
    for row, length in enumerate(lengths[0]):
        assert (out[row, length:] == 0).all(), "padding"
    if case not in ("mixed", "length 0"):
        return
    again, weights = ragged.attention(**arrays, **named(lengths), **options, need_weights=True)
    assert_close(adapter.to_numpy(again), expected, adapter.dtype, LAYER, "with weights")
    assert_close(adapter.to_numpy(weights), expected_weights, adapter.dtype, LAYER, "weights")
    assert (adapter.to_numpy(weights)[expected_weights == 0] == 0).all(), "weights at padding"


@functools.cache
def oracle_gradients(form: str) -> Values:
    """The gradient of the weighted sum by every element, one evaluation each."""

    def total(**arrays: Any) -> Any:
        options = {**named(LENGTHS["mixed"]), **options_of(form)}
        out, _ = oracle_attention.attention(**arrays, **options)
        return (out * normal(*out.shape, seed=4)).sum()

    return gradient(total, values_of(form, 4))


@forms
@pytest.mark.usefixtures("kernels")
def test_gradients_equal_the_oracle(adapter: Adapter, form: str) -> None:
    lengths = LENGTHS["mixed"]
    padded = filled(values_of(form, 4), lengths)
    _, actual = evaluate(adapter, padded, native_lengths(adapter, lengths), form)
    assert_all_close(actual, oracle_gradients(form), adapter.dtype)
    for name, array in actual.items():
        for row, length in enumerate(lengths[0 if name == "q" else 1]):
            assert (array[row, length:] == 0).all(), f"gradient of {name} at padding"


@pytest.mark.parametrize("value", PADDING_VALUES)
@pytest.mark.usefixtures("kernels")
def test_padding_is_never_read(adapter: Adapter, value: float) -> None:
    form, lengths = "shared, causal, dropped", LENGTHS["mixed"]
    values, ends = values_of(form, 4), native_lengths(adapter, lengths)
    (out, of_inputs), (clean, of_clean) = (
        evaluate(adapter, filled(values, lengths, each), ends, form) for each in (value, 0.0)
    )
    np.testing.assert_array_equal(out, clean)
    for name, array in of_inputs.items():
        np.testing.assert_array_equal(array, of_clean[name], name)


@forms
def test_a_row_is_the_same_alone_in_any_order_and_at_any_width(adapter: Adapter, form: str) -> None:
    lengths = LENGTHS["mixed"]
    values = values_of(form, 4)
    options = {**options_of(form), "dropout": 0.0}
    out = adapter.to_numpy(ragged.attention(**adapter.arrays(values), **named(lengths), **options))
    for row, (queries, keys) in enumerate(zip(*lengths, strict=True)):
        cut = {"q": queries, "k": keys, "v": keys}
        alone = adapter.arrays({n: x[row : row + 1, : cut[n]] for n, x in values.items()})
        single = adapter.to_numpy(ragged.attention(**alone, **options))
        assert_close(single[0], out[row, :queries], adapter.dtype, LAYER, f"row {row} alone")
    turned = adapter.arrays({name: x[::-1].copy() for name, x in values.items()})
    backwards = [each[::-1] for each in lengths]
    reordered = adapter.to_numpy(ragged.attention(**turned, **named(backwards), **options))
    np.testing.assert_array_equal(reordered[::-1], out)


@pytest.mark.parametrize("width", [(4, 6), (9, 14)])
def test_what_is_dropped_depends_on_places_in_rows_alone(
    adapter: Adapter, width: tuple[int, int]
) -> None:
    """Values that tell their key make the result the weights that are kept."""
    lengths, rate, seed = LENGTHS["mixed"], 0.4, 2**33 + 1
    q, k = (adapter.array(np.zeros((4, time, HEADS, SIZE))) for time in width)
    own = np.broadcast_to(np.eye(width[1])[:, None], (4, width[1], HEADS, width[1]))
    v = adapter.array(own)
    out = ragged.attention(q, k, v, **named(lengths), dropout=rate, seed=seed)
    kept = adapter.to_numpy(out)
    for row, query, head, key in np.ndindex(kept.shape):
        if query < lengths[0][row] and key < lengths[1][row]:
            dropped = oracle_attention.is_dropped(seed, rate, row, head, query, key)
            assert (kept[row, query, head, key] == 0) == dropped
    out = ragged.attention(q, k, v, **named(lengths), dropout=1.0, seed=seed)
    assert not adapter.to_numpy(out).any()


def test_the_share_that_is_dropped_is_the_rate(adapter: Adapter) -> None:
    q = k = adapter.array(np.zeros((8, 64, 2, 1)))
    v = adapter.array(np.ones((8, 64, 2, 1)))
    kept = adapter.to_numpy(ragged.attention(q, k, v, dropout=0.25, seed=3))
    assert abs(kept.mean() - 1) < 0.01  # its deviation is 0.0023
    other = adapter.to_numpy(ragged.attention(q, k, v, dropout=0.25, seed=4))
    assert np.abs(kept - other).max() > 0.01


@forms
@pytest.mark.usefixtures("kernels")
def test_jagged_rows_give_what_padded_rows_give(adapter: Adapter, form: str) -> None:
    lengths, room = LENGTHS["mixed"], 2
    values = values_of(form, 4)

    def flat(x: np.ndarray, counts: Any, beyond: float) -> np.ndarray:
        rows = [x[row, :count] for row, count in enumerate(counts)]
        return np.concatenate([*rows, np.full((room, *x.shape[2:]), beyond)])

    ends = {
        f"{side}_offsets": adapter.array(np.append(0, np.cumsum(each)))
        for side, each in zip("qk", lengths, strict=True)
    }
    padded = filled(values, lengths)
    tokens = {name: flat(x, lengths[0 if name == "q" else 1], np.nan) for name, x in values.items()}
    weights = weights_of(padded)
    out, of_padded = evaluate(adapter, padded, native_lengths(adapter, lengths), form)
    jagged, of_tokens = evaluate(adapter, tokens, ends, form, flat(weights, lengths[0], 1.0))
    assert_close(jagged, flat(out, lengths[0], 0.0), adapter.dtype, LAYER)
    assert (jagged[-room:] == 0).all(), "beyond the rows"
    for name, array in of_padded.items():
        expected = flat(array, lengths[0 if name == "q" else 1], 0.0)
        assert_close(of_tokens[name], expected, adapter.dtype, LAYER, name)


@pytest.mark.parametrize("is_shared", [False, True])
def test_long_rows_give_what_plain_operations_give(
    adapter: Adapter, is_shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows past every tile, part and vector of the kernels, in one program each way."""
    lengths = (530, 1, 25, 0), (75, 130, 2, 9)
    heads = () if is_shared else (2,)
    values = {
        "q": normal(4, 530, 2, 5, seed=1),
        "k": normal(4, 130, 2, 5, seed=2),
        "v": normal(4, 130, *heads, 17, seed=3),
    }
    options: dict[str, Any] = {"causal": True, "diagonal": 430, **DROPPED}

    arrays = adapter.arrays(filled(values, lengths))
    constants = {
        "ends": native_lengths(adapter, lengths),
        "weights": adapter.array(weights_of(values)),
    }

    def run() -> tuple[np.ndarray, Values]:
        outputs, gradients = evaluator(adapter, lambda *given: total_and_result(options, *given))(
            arrays, constants
        )
        return outputs["out"], gradients

    out, of_inputs = run()
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    plain, of_plain = run()
    assert_close(out, plain, adapter.dtype, LAYER)
    assert_all_close(of_inputs, of_plain, adapter.dtype)


FLAT: Arrays = {name: np.ones((3, 2, 4)) for name in "qkv"}
OFFSETS = {"q_offsets": [0, 1, 3], "k_offsets": [0, 1, 3]}
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "q of three axes": ({"q": np.ones((2, 3, 4))}, ragged.errors.ShapeError, "`q` is of shape"),
    "no heads": ({"q": np.ones((2, 3, 0, 4))}, ragged.errors.ShapeError, "`q` is of shape"),
    "k of other heads": ({"k": np.ones((2, 5, 3, 4))}, ragged.errors.ShapeError, "`k` is of shape"),
    "v of other keys": ({"v": np.ones((2, 4, 1, 4))}, ragged.errors.ShapeError, "`v` is of shape"),
    "v of one axis": ({"v": np.ones(2)}, ragged.errors.ShapeError, "`v` is of shape"),
    "too long": ({"k_lengths": [6, 1]}, ragged.errors.LengthsError, "is 6 at row 0"),
    "too few lengths": ({"q_lengths": [1]}, ragged.errors.LengthsError, "is 1 lengths"),
    "no seed": ({"dropout": 0.1}, ragged.errors.OptionError, "`seed` is None beside dropout"),
    "negative seed": ({"dropout": 0.1, "seed": -1}, ragged.errors.OptionError, "`seed` is -1"),
    "seed of floats": (
        {"dropout": 0.1, "seed": np.ones(2)},
        ragged.errors.OptionError,
        "`seed` is .*float.. of shape .2,.; expected .*int.. of shape",
    ),
    "rate": ({"dropout": 1.5, "seed": 1}, ragged.errors.OptionError, "`dropout` is 1.5"),
    "diagonal": ({"diagonal": 0.5}, ragged.errors.OptionError, "`diagonal` is 0.5"),
    "scale": ({"scale": "one"}, ragged.errors.OptionError, "`scale` is 'one'"),
    "offsets of one side": (
        {"q_offsets": [0, 2]},
        ragged.errors.ArgumentError,
        "`k_offsets` is None; expected offsets",
    ),
    "offsets of padded rows": (OFFSETS, ragged.errors.ShapeError, "expected .tokens, heads, size"),
    "a longest row without offsets": (
        {"k_max_length": 3},
        ragged.errors.ArgumentError,
        "`k_max_length` is 3; expected None without offsets",
    ),
    "offsets beside lengths": (
        {**FLAT, **OFFSETS, "k_lengths": [1, 2]},
        ragged.errors.ArgumentError,
        "`k_lengths` is",
    ),
    "offsets that fall": (
        {**FLAT, "q_offsets": [0, 2, 1], "k_offsets": [0, 1, 2]},
        ragged.errors.LengthsError,
        "`q_offsets` is",
    ),
    "offsets of other rows": (
        {**FLAT, "q_offsets": [0, 3], "k_offsets": [0, 1, 3]},
        ragged.errors.LengthsError,
        "`k_offsets` is of 2 rows",
    ),
    "flat keys of other heads": (
        {**FLAT, **OFFSETS, "k": np.ones((3, 1, 4))},
        ragged.errors.ShapeError,
        "`k` is of shape",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(adapter: Adapter, case: str) -> None:
    changed, error, text = REFUSED[case]
    given: dict[str, Any] = {"q": np.ones((2, 3, 2, 4)), "k": np.ones((2, 5, 2, 4))}
    given |= {"v": np.ones((2, 5, 2, 4)), **changed}
    given = {
        key: adapter.array(value) if isinstance(value, np.ndarray) else value
        for key, value in given.items()
    }
    with pytest.raises(error, match=text):
        ragged.attention(**given)


def test_a_scale_that_weights_cannot_be_computed_with_is_refused(adapter: Adapter) -> None:
    given = adapter.arrays({name: np.zeros((1, 2, 1, 4)) for name in "qkv"})
    if adapter.dtype == "float64":
        assert not adapter.to_numpy(ragged.attention(**given, scale=1e39)).any()
        return
    with pytest.raises(ragged.errors.OptionError, match=r"`scale` is 1e\+39; expected within"):
        ragged.attention(**given, scale=1e39)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_a_list_takes_the_dtype_of_the_arrays_beside_it(adapter: Adapter, name: str) -> None:
    values = values_of("heads", 4)
    given = adapter.arrays(values)
    expected = adapter.to_numpy(ragged.attention(**given))
    found = ragged.attention(**{**given, name: values[name].tolist()})
    assert_close(adapter.to_numpy(found), expected, adapter.dtype)
