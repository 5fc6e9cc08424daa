"""Masks, alignment and packing on random batches: rows moved there and back lose nothing."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ragged
from ragged_conformance import strategies
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import fill_padding, normal
from ragged_conformance.oracle import padding_mask

MORE = 3  # steps of padding
FOUR_ROWS = ((4, 5),)
FEW_TO_MANY = tuple((rows, 5) for rows in (0, 1, 4, 7, 8, 9))


def align(x: Any, lengths: Any, source: str, target: str, width: int | None = None) -> Any:
    """Move rows from one side to the other."""
    return ragged.align_sequences(x, lengths, source=source, target=target, max_length=width)


def to_right(x: Any, lengths: Any) -> Any:
    """Move left-aligned rows to the right."""
    return align(x, lengths, "left", "right")


def flip_right(x: Any, lengths: Any) -> Any:
    """Reverse right-aligned rows."""
    return ragged.flip_sequences(x, lengths, alignment="right")


def pack_and_unpack(x: Any, lengths: Any) -> Any:
    """Pack rows and unpack them again."""
    return ragged.unpack_to_fixed_length(ragged.pack_sequences(x, lengths), lengths, x.shape[1])


class Move(NamedTuple):
    """A function that moves rows from one side to another, and its inverse."""

    there: Callable[[Any, Any], Any]
    source: str
    target: str
    back: Callable[[Any, Any], Any]
    operations: tuple[str, ...]


PACKING = "pack_sequences", "unpack_to_fixed_length"
ALIGN = "align_sequences", "align_encoder_sequences"
MOVES = {
    "to the right": Move(to_right, "left", "right", ragged.align_encoder_sequences, ALIGN),
    "to the left": Move(ragged.align_encoder_sequences, "right", "left", to_right, ALIGN),
    "flip left": Move(
        ragged.flip_sequences, "left", "left", ragged.flip_sequences, ("flip_sequences",)
    ),
    "flip right": Move(flip_right, "right", "right", flip_right, ("flip_sequences",)),
    "pack": Move(pack_and_unpack, "left", "left", pack_and_unpack, PACKING),
}

every_move = pytest.mark.parametrize(
    "move",
    [
        pytest.param(move, id=name, marks=pytest.mark.operation(*move.operations))
        for name, move in MOVES.items()
    ],
)
sides = st.sampled_from(strategies.SIDES)
random_batch = given(batch=strategies.batches(FOUR_ROWS), seed=strategies.seeds())


def draw(batch: Any, seed: int, side: str, value: float = 0.0) -> np.ndarray:
    """Draw rows of two features, with a value at padding."""
    lengths, width = batch
    return fill_padding(normal(len(lengths), width, 2, seed=seed), lengths, value, side)


def run(adapter: Adapter, move: Callable[[Any, Any], Any], x: np.ndarray, lengths: Any) -> Any:
    """Move rows natively."""
    return adapter.to_numpy(move(adapter.array(x), lengths))


@every_move
@given(batch=strategies.batches(FOUR_ROWS), seed=strategies.seeds(), value=strategies.garbage())
def test_garbage_in_padding_changes_nothing(
    adapter: Adapter, move: Move, batch: Any, seed: int, value: float
) -> None:
    (lengths, width), padded = batch, draw(batch, seed, move.source, value)
    actual = run(adapter, move.there, padded, lengths)
    expected = run(adapter, move.there, draw(batch, seed, move.source), lengths)
    np.testing.assert_array_equal(actual, expected, strict=True)
    assert (actual[~padding_mask(lengths, width, move.target)] == 0).all()

    weights = normal(*padded.shape, seed=seed + 1)
    gradient = adapter.gradients(
        lambda x: (move.there(x, lengths) * adapter.array(weights)).sum(),
        {"x": adapter.array(padded)},
    )["x"]
    # A move permutes the valid steps: its transpose is its inverse.
    np.testing.assert_array_equal(gradient, run(adapter, move.back, weights, lengths))


@every_move
@random_batch
def test_there_and_back_is_a_selection(adapter: Adapter, move: Move, batch: Any, seed: int) -> None:
    lengths, _ = batch
    there = run(adapter, move.there, draw(batch, seed, move.source, np.nan), lengths)
    back = run(adapter, move.back, there, lengths)
    np.testing.assert_array_equal(back, draw(batch, seed, move.source), strict=True)


@every_move
@given(batch=strategies.batches(FOUR_ROWS), seed=strategies.seeds(), order=strategies.orders(4))
def test_rows_move_alone_and_in_any_order(
    adapter: Adapter, move: Move, batch: Any, seed: int, order: np.ndarray
) -> None:
    (lengths, _), x = batch, draw(batch, seed, move.source, np.nan)
    whole = run(adapter, move.there, x, lengths)
    permuted = run(adapter, move.there, x[order], lengths[order])
    np.testing.assert_array_equal(permuted, whole[order], strict=True)
    alone = [run(adapter, move.there, x[[row]], lengths[[row]]) for row in range(4)]
    np.testing.assert_array_equal(np.concatenate(alone), whole, strict=True)


@every_move
@random_batch
def test_more_padding_changes_nothing(adapter: Adapter, move: Move, batch: Any, seed: int) -> None:
    lengths, x = batch[0], draw(batch, seed, move.source)
    actual = run(adapter, move.there, pad(x, move.source, np.nan), lengths)
    expected = pad(run(adapter, move.there, x, lengths), move.target, 0.0)
    np.testing.assert_array_equal(actual, expected, strict=True)


def pad(x: np.ndarray, side: str, value: float) -> np.ndarray:
    """Add padding to rows that are aligned on a side."""
    widths = (0, MORE) if side == "left" else (MORE, 0)
    return np.pad(x, ((0, 0), widths, (0, 0)), constant_values=value)


@every_move
@given(batch=strategies.batches(), seed=strategies.seeds(), form=strategies.forms())
def test_form_of_lengths_changes_nothing(
    adapter: Adapter, move: Move, batch: Any, seed: int, form: str
) -> None:
    (lengths, width), x = batch, draw(batch, seed, move.source, np.inf)
    actual = run(adapter, move.there, x, strategies.FORMS[form](adapter, lengths, width))
    np.testing.assert_array_equal(actual, run(adapter, move.there, x, lengths.tolist()))


@pytest.mark.operation("align_sequences")
@given(batch=strategies.batches(FOUR_ROWS), seed=strategies.seeds(), source=sides, target=sides)
def test_align_through_another_width_is_a_selection(
    adapter: Adapter, batch: Any, seed: int, source: str, target: str
) -> None:
    (lengths, narrow), wide = batch, batch[1] + MORE
    for width, between in ((narrow, wide), (wide, narrow)):
        x = adapter.array(draw((lengths, width), seed, source, np.nan))
        there = align(x, lengths, source, target, between)
        back = adapter.to_numpy(align(there, lengths, target, source, width))
        np.testing.assert_array_equal(back, draw((lengths, width), seed, source), strict=True)


@pytest.mark.operation("align_sequences", "flip_sequences")
@random_batch
def test_flipping_and_aligning_commute(adapter: Adapter, batch: Any, seed: int) -> None:
    lengths, x = batch[0], draw(batch, seed, "left", np.nan)
    one = run(adapter, lambda x, n: flip_right(to_right(x, n), n), x, lengths)
    other = run(adapter, lambda x, n: to_right(ragged.flip_sequences(x, n), n), x, lengths)
    np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.operation("pack_encoder_sequences", "pack_decoder_sequences", "pack_sequences")
@random_batch
def test_packing_knows_no_side(adapter: Adapter, batch: Any, seed: int) -> None:
    lengths = batch[0]
    left = adapter.array(draw(batch, seed, "left", np.nan))
    packed = [
        ragged.pack_sequences(left, lengths),
        ragged.pack_decoder_sequences(left, lengths),
        ragged.pack_encoder_sequences(left, lengths),
        ragged.pack_encoder_sequences(to_right(left, lengths), lengths, alignment="right"),
    ]
    for other in packed[1:]:
        for actual, expected in zip(other, packed[0], strict=True):
            actual, expected = adapter.to_numpy(actual), adapter.to_numpy(expected)
            np.testing.assert_array_equal(actual, expected, strict=True)


@pytest.mark.operation("create_padding_mask", "lengths_from_mask")
@given(batch=strategies.batches(), side=sides, form=strategies.forms())
def test_masks_and_lengths_tell_each_other(
    adapter: Adapter, batch: Any, side: str, form: str
) -> None:
    lengths, width = batch
    given_form = strategies.FORMS[form](adapter, lengths, width)
    mask = ragged.create_padding_mask(given_form, width, alignment=side)
    actual = ragged.lengths_from_mask(mask, alignment=side)
    np.testing.assert_array_equal(adapter.to_numpy(actual), lengths)
    host = adapter.to_numpy(mask)
    assert host.shape == (len(lengths), width)
    mirrored = ragged.create_padding_mask(
        given_form, width, alignment="right" if side == "left" else "left"
    )
    np.testing.assert_array_equal(adapter.to_numpy(mirrored), host[:, ::-1])
    np.testing.assert_array_equal(ragged.lengths_from_mask(host, alignment=side), actual)


@pytest.mark.operation("create_padding_mask")
@given(batch=strategies.batches(FOUR_ROWS), side=sides, order=strategies.orders(4))
def test_masks_follow_their_rows_and_widen(
    adapter: Adapter, batch: Any, side: str, order: np.ndarray
) -> None:
    lengths, width = batch

    def mask(lengths: Any, width: int | None = None) -> np.ndarray:
        return adapter.to_numpy(ragged.create_padding_mask(lengths, width, alignment=side))

    whole = mask(lengths, width)
    np.testing.assert_array_equal(mask(lengths[order], width), whole[order])
    extra = ((0, 0), (0, MORE) if side == "left" else (MORE, 0))
    np.testing.assert_array_equal(mask(lengths, width + MORE), np.pad(whole, extra))
    longest = int(lengths.max())
    tight = whole[:, :longest] if side == "left" else whole[:, width - longest :]
    np.testing.assert_array_equal(mask(lengths), tight)


@pytest.mark.operation("should_use_packing")
@given(batch=strategies.batches(FEW_TO_MANY), seed=strategies.seeds())
def test_packing_rule_knows_neither_order_nor_form(adapter: Adapter, batch: Any, seed: int) -> None:
    lengths, width = batch
    expected = ragged.should_use_packing(lengths)
    shuffled = np.random.default_rng(seed).permutation(lengths)
    for form, given_form in strategies.FORMS.items():
        actual = ragged.should_use_packing(given_form(adapter, shuffled, width))
        assert actual is expected, form
    assert ragged.should_use_packing(3 * lengths) is expected  # the rule is one of ratios
