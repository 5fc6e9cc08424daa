"""Packing: torch's layout value by value on every backend, and back."""

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import LENGTHS, WIDTH, fill_padding, normal


@pytest.mark.operation("pack_sequences", "unpack_to_fixed_length")
@pytest.mark.parametrize("case", LENGTHS)
def test_pack_equals_the_oracle_and_unpacks(adapter: Adapter, case: str) -> None:
    lengths = np.array(LENGTHS[case], int)
    x = fill_padding(normal(len(lengths), WIDTH, 2), lengths)
    packed = ragged.pack_sequences(adapter.array(x), lengths)
    for field, expected in oracle.pack(x, lengths)._asdict().items():
        actual = adapter.to_numpy(getattr(packed, field))
        np.testing.assert_array_equal(actual, expected, err_msg=field)
        assert actual.shape == expected.shape, field
    back = ragged.unpack_to_fixed_length(packed, lengths, WIDTH + 1)
    expected = oracle.align(x, lengths, "left", "left", WIDTH + 1)
    np.testing.assert_array_equal(adapter.to_numpy(back), expected, strict=True)


@pytest.mark.operation("pack_encoder_sequences", "pack_decoder_sequences")
def test_encoder_rows_are_moved_left_first(adapter: Adapter) -> None:
    lengths = [2, 5, 1]
    x = fill_padding(normal(3, WIDTH, 2), lengths, alignment="right")
    packed = ragged.pack_encoder_sequences(adapter.array(x), lengths, alignment="right")
    expected = oracle.pack(oracle.align(x, lengths, "right", "left"), lengths)
    np.testing.assert_array_equal(adapter.to_numpy(packed.data), expected.data)
    left = ragged.pack_decoder_sequences(
        ragged.align_encoder_sequences(adapter.array(x), lengths), lengths
    )
    np.testing.assert_array_equal(adapter.to_numpy(left.data), expected.data)
    default = ragged.pack_encoder_sequences(
        ragged.align_encoder_sequences(adapter.array(x), lengths), lengths
    )
    np.testing.assert_array_equal(adapter.to_numpy(default.data), expected.data)


@pytest.mark.operation("unpack_to_fixed_length")
def test_other_lengths_than_the_packed_ones_are_refused(adapter: Adapter) -> None:
    packed = ragged.pack_sequences(adapter.array(normal(2, WIDTH, 1)), [2, 4])
    for other in ([3, 3], [2, 3], [4, 2], [2, 4, 1]):
        with pytest.raises(ragged.RaggedError, match=r"`lengths` is .* expected those of `packed`"):
            ragged.unpack_to_fixed_length(packed, other, WIDTH)


@pytest.mark.operation("pack_sequences", "unpack_to_fixed_length")
def test_packed_sequence_is_a_pytree_on_jax() -> None:
    jax = pytest.importorskip("jax")
    pytest.importorskip("flax")
    lengths = ragged.Lengths([3, 0, 5], width=WIDTH)
    x = jax.numpy.asarray(normal(3, WIDTH, 2).astype(np.float32))
    packed = ragged.pack_sequences(x, lengths)
    assert len(jax.tree.leaves(packed)) == 4
    twice = jax.jit(lambda packed: packed._replace(data=2 * packed.data))(packed)
    back = ragged.unpack_to_fixed_length(twice, lengths, WIDTH)
    np.testing.assert_array_equal(back[0, :3], 2 * x[0, :3])
    inside = jax.jit(lambda packed: ragged.unpack_to_fixed_length(packed, lengths, WIDTH))(packed)
    np.testing.assert_array_equal(2 * inside, back)


@pytest.mark.operation("should_use_packing")
@pytest.mark.parametrize(
    "lengths",
    [
        [], [0], [0, 0], [0, 1], [10, 10], [10, 9], [9, 8], [100, 90], [100, 89], [11, 10],
        [100] * 7 + [99], [100] * 6 + [99], [7] * 9, [1, 5], [30, 27], [30, 26],
    ],
)  # fmt: skip
def test_stated_packing_rule(lengths: list[int]) -> None:
    assert ragged.should_use_packing(lengths) is oracle.should_use_packing(lengths)


@pytest.mark.operation("should_use_packing")
def test_no_lengths_need_no_packing() -> None:
    assert ragged.should_use_packing(None) is False
