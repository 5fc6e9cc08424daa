"""Alignment: valid steps move, real zeros stay what they are, padding is exactly 0."""

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import LENGTHS, WIDTH, fill_padding, lengths_on, normal

SIDES = ("left", "right")


def rows(backend: str, case: str, alignment: str) -> tuple[np.ndarray, np.ndarray]:
    """A batch with NaN at padding, and its lengths."""
    lengths = np.array(lengths_on(backend, case), int)
    x = normal(len(lengths), WIDTH, 2)
    return fill_padding(x, lengths, alignment=alignment), lengths


@pytest.mark.operation("align_sequences")
@pytest.mark.parametrize("source", SIDES)
@pytest.mark.parametrize("target", SIDES)
@pytest.mark.parametrize("case", LENGTHS)
def test_align_equals_the_oracle(adapter: Adapter, case: str, source: str, target: str) -> None:
    x, lengths = rows(adapter.name, case, source)
    for width in (None, WIDTH + 2, max(lengths, default=0)):
        y = ragged.align_sequences(
            adapter.array(x), lengths, source=source, target=target, max_length=width
        )
        expected = oracle.align(x, lengths, source, target, width)
        np.testing.assert_array_equal(adapter.to_numpy(y), expected, strict=True)


@pytest.mark.operation("flip_sequences")
@pytest.mark.parametrize("alignment", SIDES)
@pytest.mark.parametrize("case", LENGTHS)
def test_flip_equals_the_oracle(adapter: Adapter, case: str, alignment: str) -> None:
    x, lengths = rows(adapter.name, case, alignment)
    y = ragged.flip_sequences(adapter.array(x), lengths, alignment=alignment)
    expected = oracle.flip(x, lengths, alignment)
    np.testing.assert_array_equal(adapter.to_numpy(y), expected, strict=True)


@pytest.mark.operation("align_sequences", "align_encoder_sequences")
def test_left_to_right_to_left_keeps_real_zeros(adapter: Adapter) -> None:
    x = np.array([[0.0, 0.0, 7.0, 0.0], [0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])[..., None]
    lengths = [4, 2, 3]  # data that starts, ends and consists of zeros
    right = ragged.align_sequences(adapter.array(x), lengths, source="left", target="right")
    assert adapter.to_numpy(right)[1, :, 0].tolist() == [0.0, 0.0, 0.0, 5.0]
    back = ragged.align_encoder_sequences(right, lengths)
    np.testing.assert_array_equal(adapter.to_numpy(back), x)


@pytest.mark.operation("align_encoder_sequences")
def test_gradient_at_padding_is_exactly_zero(adapter: Adapter) -> None:
    x, lengths = rows(adapter.name, "mixed", "right")

    def total(x: object) -> object:
        return adapter.backend.xp.sum(ragged.align_encoder_sequences(x, lengths) ** 2)

    gradient = adapter.gradients(total, {"x": adapter.array(x)})["x"]
    np.testing.assert_array_equal(gradient, 2 * fill_padding(x, lengths, 0.0, "right"))


@pytest.mark.operation("align_sequences")
def test_nothing_is_truncated_or_guessed(adapter: Adapter) -> None:
    x = adapter.array(np.zeros((2, 4)))
    with pytest.raises(ragged.RaggedError, match="`max_length` is 2; expected at least the long"):
        ragged.align_sequences(x, [1, 3], source="left", target="left", max_length=2)
    with pytest.raises(ragged.RaggedError, match="`source` is 'auto'; expected 'left'"):
        ragged.align_sequences(x, [1, 3], source="auto", target="left")
