"""What benchmarks compare with is what it is called."""

from __future__ import annotations

import pytest


def test_padded_epochs_compute_whole_rows() -> None:
    torch = pytest.importorskip("torch")
    tokens = pytest.importorskip("ragged_torch.tokens")
    from benchmarks.epochs import padded_rows
    from ragged import Lengths

    x, lengths = torch.ones(2, 3, 1), Lengths([1, 3])
    with padded_rows("torch"):
        assert tokens.BothSides.of(x, x, lengths, lengths).decoder.take(x).shape == (2, 3, 1)
    assert tokens.BothSides.of(x, x, lengths, lengths).decoder.take(x).shape == (4, 1)
