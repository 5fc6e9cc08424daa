"""Masks: True is valid, on the side that is named."""

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import LENGTHS, WIDTH


@pytest.mark.operation("create_padding_mask", "lengths_from_mask")
@pytest.mark.parametrize("alignment", ["left", "right"])
@pytest.mark.parametrize("case", LENGTHS)
def test_mask_equals_the_oracle_and_gives_its_lengths_back(
    adapter: Adapter, case: str, alignment: str
) -> None:
    lengths = np.array(LENGTHS[case], int)
    mask = ragged.create_padding_mask(adapter.array(lengths), WIDTH, alignment=alignment)
    assert adapter.backend.owns(mask)
    expected = oracle.padding_mask(lengths, WIDTH, alignment)
    np.testing.assert_array_equal(adapter.to_numpy(mask), expected, strict=True)
    back = ragged.lengths_from_mask(mask, alignment=alignment)
    np.testing.assert_array_equal(adapter.to_numpy(back), lengths)


@pytest.mark.operation("create_padding_mask")
def test_width_is_the_longest_row_if_not_given(adapter: Adapter) -> None:
    assert tuple(ragged.create_padding_mask([1, 3, 0]).shape) == (3, 3)
    assert tuple(ragged.create_padding_mask(ragged.Lengths([1, 3], width=6)).shape) == (2, 6)


@pytest.mark.operation("lengths_from_mask")
def test_mask_with_a_hole_is_refused(adapter: Adapter) -> None:
    mask = adapter.array(np.array([[True, True], [False, True]]))
    with pytest.raises(ragged.RaggedError, match=r"lengths_from_mask.*row 1.*without holes"):
        ragged.lengths_from_mask(mask)


@pytest.mark.operation("lengths_from_mask")
def test_mask_of_numbers_is_refused(adapter: Adapter) -> None:
    with pytest.raises(ragged.RaggedError, match=r"`mask` is .* of shape \(2, 2\); expected bool"):
        ragged.lengths_from_mask(adapter.array(np.ones((2, 2))))


@pytest.mark.operation("create_padding_mask")
def test_unknown_alignment_is_refused(adapter: Adapter) -> None:
    with pytest.raises(ragged.RaggedError, match="`alignment` is 'top'; expected 'left'"):
        ragged.create_padding_mask([1], alignment="top")
