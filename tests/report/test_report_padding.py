"""What the report says of padding: counted in random batches, in buckets and as it is run."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged import Lengths
from ragged.backend import use_backend
from ragged.data import Sample, Series
from ragged.kernels import find_compiler
from ragged.recurrent.dispatch import computed_steps
from ragged.recurrent.explain import recurrent_implementation
from ragged.report.padding import find_hidden_sizes, padding_costs


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_padding_is_counted_three_ways(name, need):
    need(name)
    generator = np.random.default_rng(1)
    pairs = generator.integers(1, 40, (30, 2))
    event = Series("0", np.arange(2.0), {})
    rows = [Sample(np.ones((a, 1)), np.ones((b, 1)), np.ones((b, 1)), event, 1) for a, b in pairs]
    dataset, sizes = (
        ragged.data.RaggedDataset(rows),
        {"encoder": 8, "decoder": 8},
    )
    with use_backend(name) as backend:
        random, buckets, as_run = padding_costs(dataset, 8, 0, backend, "cpu", sizes)
        found = list(ragged.data.batches(dataset, 8, shuffle_seed=0))
    for each in (random, buckets, as_run):
        assert each.tokens.sum() == pairs.sum()
        filler = each.computed.sum() - pairs.sum()
        assert each.total_fraction == pytest.approx(filler / each.computed.sum())
    order = np.random.default_rng(0).permutation(30)
    for place in range(4):
        batch = pairs[order[8 * place : 8 * place + 8]]
        padded = len(batch) * (batch[:, 0].max() + batch[:, 1].max())
        assert random.computed[place] == padded
        assert random.padding_fraction[place] == pytest.approx(1 - batch.sum() / padded)
    for place, batch in enumerate(found):
        assert buckets.computed[place] == batch.past[..., 0].size + batch.future[..., 0].size
    assert (as_run.tokens <= as_run.computed).all()
    assert (as_run.computed <= buckets.computed).all()


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_kernels_compute_the_tokens_and_the_whole_width_is_run_without(name, need, monkeypatch):
    need(name)
    lengths = Lengths([90] * 2 + [10] * 30, width=96)
    with use_backend(name) as backend:
        found = recurrent_implementation(backend, lengths, "cpu", 8)
        assert (found == "kernels") == (find_compiler() is not None)
        assert computed_steps("kernels", lengths) == lengths.tokens == 480
        monkeypatch.setenv("RAGGED_KERNELS", "0")
        found = recurrent_implementation(backend, lengths, "cpu", 8)
        assert found == {"torch": "padded", "jax": "scan"}[name]
        assert computed_steps(found, lengths) == 32 * 96


def test_a_shared_layer_counts_for_both_sides():
    arrays = {"lstm.weight_ih_l0": np.zeros((32, 3)), "lstm.weight_hh_l0": np.zeros(1)}
    assert find_hidden_sizes(arrays) == {"encoder": 8, "decoder": 8}
