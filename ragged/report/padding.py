"""What padding costs: the steps that each way of batching computes, and how many are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ragged.data import RaggedDataset, batches
from ragged.lengths import Lengths
from ragged.protocol import Backend
from ragged.schedule import Costs, plan


@dataclass(frozen=True, eq=False)
class Work:
    """The work of an epoch under one way of batching.

    Args:
        name: the way.
        tokens: `(batches,)`, the valid steps of each batch, encoder and decoder together.
        computed: `(batches,)`, the steps computed for it, filler included.

    Example:
        >>> work = Work("padded", np.array([6, 4]), np.array([8, 8]))
        >>> work.waste.tolist(), work.total_waste
        ([0.25, 0.5], 0.375)
    """

    name: str
    tokens: np.ndarray
    computed: np.ndarray

    @property
    def waste(self) -> np.ndarray:
        """The share of each batch's computed steps that is filler, `(batches,)`."""
        return 1 - self.tokens / self.computed

    @property
    def total_waste(self) -> float:
        """The share of all computed steps that is filler."""
        return float(1 - self.tokens.sum() / self.computed.sum())


class LayerSize(NamedTuple):
    """What the cost of an LSTM layer depends on."""

    input_size: int
    hidden_size: int


def padding_work(
    dataset: RaggedDataset,
    batch_size: int,
    seed: int,
    backend: Backend,
    device: str,
    layers: Mapping[str, LayerSize],
) -> list[Work]:
    """Count the work of one epoch three ways, the same rows in each.

    Args:
        dataset: the training rows.
        batch_size: rows of a batch.
        seed: of the order.
        backend: whose schedule is counted.
        device: where it runs.
        layers: the first LSTM layer of "encoder" and "decoder".
    """
    random = _in_random_order(dataset.lengths, batch_size, seed)
    found = [
        (batch.encoder_lengths, batch.decoder_lengths)
        for batch in batches(dataset, batch_size, shuffle_seed=seed)
    ]
    tokens = np.array([encoder.tokens + decoder.tokens for encoder, decoder in found])
    padded = [sum(len(side) * side.width for side in sides) for sides in found]
    costs = backend.lstm_costs(device)
    sizes = (layers["encoder"], layers["decoder"])
    scheduled = [
        sum(computed_steps(side, costs, size) for side, size in zip(sides, sizes, strict=True))
        for sides in found
    ]
    return [
        random,
        Work("in buckets of similar length", tokens, np.array(padded)),
        Work("scheduled, as the LSTMs compute them", tokens, np.array(scheduled)),
    ]


def computed_steps(lengths: Lengths, costs: Costs, size: LayerSize) -> int:
    """How many steps of rows one LSTM layer computes for a batch."""
    return plan(lengths, costs, **size._asdict()).computed


def layer_sizes(parameters: Mapping[str, np.ndarray]) -> dict[str, LayerSize]:
    """Find the first LSTM layer of each side among a model's parameters.

    A layer that is named after neither side is shared by both.

    Example:
        >>> layer_sizes({"encoder.weight_ih_l0": np.zeros((32, 3)), "head.bias": np.zeros(1)})
        {'encoder': LayerSize(input_size=3, hidden_size=8), 'decoder': LayerSize(input_size=3, \
hidden_size=8)}
    """
    shapes = {
        name: LayerSize(value.shape[1], value.shape[0] // 4)
        for name, value in parameters.items()
        if name.endswith("weight_ih_l0")
    }
    return {
        side: next((s for name, s in shapes.items() if side in name), next(iter(shapes.values())))
        for side in ("encoder", "decoder")
    }


def _in_random_order(lengths: np.ndarray, batch_size: int, seed: int) -> Work:
    """Batches as they are made elsewhere: shuffled rows, padded to the longest among them."""
    order = np.random.default_rng(seed).permutation(len(lengths))
    found: Sequence[np.ndarray] = [
        lengths[order[start : start + batch_size]] for start in range(0, len(order), batch_size)
    ]
    tokens = np.array([batch.sum() for batch in found])
    computed = np.array([len(batch) * batch.max(axis=0).sum() for batch in found])
    return Work("in random order, padded to the longest", tokens, computed)
