"""What the report says of padding: counted in random batches, in buckets and as it is run."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged import Lengths
from ragged.backend import load_backend, use_backend
from ragged.data import Event, Row
from ragged.report.padding import LayerSize, computed_steps, layer_sizes, padding_work


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_padding_is_counted_three_ways(name, need):
    need(name)
    generator = np.random.default_rng(1)
    pairs = generator.integers(1, 40, (30, 2))
    event = Event("0", np.arange(2.0), {})
    rows = [Row(np.ones((a, 1)), np.ones((b, 1)), np.ones((b, 1)), event, 1) for a, b in pairs]
    dataset, sizes = (
        ragged.data.RaggedDataset(rows),
        dict.fromkeys(("encoder", "decoder"), LayerSize(3, 8)),
    )
    with use_backend(name) as backend:
        random, buckets, scheduled = padding_work(dataset, 8, 0, backend, "cpu", sizes)
        found = list(ragged.data.batches(dataset, 8, shuffle_seed=0))
    for each in (random, buckets, scheduled):
        assert each.tokens.sum() == pairs.sum()
        filler = each.computed.sum() - pairs.sum()
        assert each.total_waste == pytest.approx(filler / each.computed.sum())
    order = np.random.default_rng(0).permutation(30)
    for place in range(4):
        batch = pairs[order[8 * place : 8 * place + 8]]
        padded = len(batch) * (batch[:, 0].max() + batch[:, 1].max())
        assert random.computed[place] == padded
        assert random.waste[place] == pytest.approx(1 - batch.sum() / padded)
    for place, batch in enumerate(found):
        assert buckets.computed[place] == batch.past[..., 0].size + batch.future[..., 0].size
    assert (scheduled.tokens <= scheduled.computed).all()
    assert (scheduled.computed <= buckets.computed).all()


@pytest.mark.parametrize("policy", ["auto", "rule", "always", "never", "segments"])
def test_jax_computes_the_tokens_by_kernels_and_the_whole_width_without(need, monkeypatch, policy):
    need("jax")
    lengths, size = Lengths([90] * 2 + [10] * 30, width=96, policy=policy), LayerSize(8, 8)
    with use_backend("jax") as backend:
        costs, made = backend.lstm_costs("cpu"), ragged.schedule(lengths)
    native = policy == "auto" and costs.native is not None
    assert made.kind == ("native" if native else "padded")
    expected = lengths.tokens if native else 32 * 96
    assert computed_steps(lengths, costs, size) == made.computed == expected
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    costs = load_backend("jax").lstm_costs("cpu")
    assert computed_steps(Lengths(lengths, 96, policy), costs, size) == 32 * 96


def test_an_eager_schedule_is_the_one_that_is_explained(need):
    need("torch")
    lengths = [90] * 2 + [10] * 30
    with use_backend("torch") as backend:
        made = ragged.schedule(lengths, hidden_size=8, input_size=3)
        costs = backend.lstm_costs("cpu")
    found = computed_steps(Lengths(lengths), costs, LayerSize(input_size=3, hidden_size=8))
    assert found == sum(rows * (stop - start) for rows, start, stop in made.pieces)


def test_a_shared_layer_counts_for_both_sides():
    sizes = layer_sizes({"lstm.weight_ih_l0": np.zeros((32, 3)), "lstm.weight_hh_l0": np.zeros(1)})
    assert sizes == dict.fromkeys(("encoder", "decoder"), LayerSize(3, 8))
