"""The cost of padding: the steps that ways of batching compute, and the valid ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ragged.data import RaggedDataset, batches
from ragged.lengths import Lengths
from ragged.protocol import Backend
from ragged.recurrent.dispatch import computed_steps
from ragged.recurrent.explain import recurrent_implementation


@dataclass(frozen=True, eq=False)
class PaddingCost:
    """The steps of an epoch with one way of batching.

    Args:
        name: of the way.
        tokens: `(batches,)`, the valid steps of each batch, encoder and decoder together.
        computed: `(batches,)`, the steps computed for it, filler included.

    Example:
        >>> work = PaddingCost("padded", np.array([6, 4]), np.array([8, 8]))
        >>> work.padding_fraction.tolist(), work.total_fraction
        ([0.25, 0.5], 0.375)
    """

    name: str
    tokens: np.ndarray
    computed: np.ndarray

    @property
    def padding_fraction(self) -> np.ndarray:
        """The share of each batch's computed steps that is filler, `(batches,)`."""
        return 1 - self.tokens / self.computed

    @property
    def total_fraction(self) -> float:
        """The share of all computed steps that is filler."""
        return float(1 - self.tokens.sum() / self.computed.sum())


def padding_costs(
    dataset: RaggedDataset,
    batch_size: int,
    seed: int,
    backend: Backend,
    device: str,
    hidden_sizes: Mapping[str, int],
) -> list[PaddingCost]:
    """Count the steps of one epoch with three ways of batching the same rows.

    Args:
        dataset: the training rows.
        batch_size: rows of a batch.
        seed: of the order.
        backend: whose LSTMs are counted.
        device: where it runs.
        hidden_sizes: of the first LSTM layer of "encoder" and "decoder".
    """
    random = _in_random_order(dataset.lengths, batch_size, seed)
    batch_sides = [
        (batch.encoder_lengths, batch.decoder_lengths)
        for batch in batches(dataset, batch_size, shuffle_seed=seed)
    ]
    tokens = np.array([encoder.tokens + decoder.tokens for encoder, decoder in batch_sides])
    padded = [sum(len(side) * side.width for side in sides) for sides in batch_sides]
    sizes = (hidden_sizes["encoder"], hidden_sizes["decoder"])

    def computed(side: Lengths, hidden_size: int) -> int:
        return computed_steps(recurrent_implementation(backend, side, device, hidden_size), side)

    as_run = [sum(map(computed, sides, sizes)) for sides in batch_sides]
    return [
        random,
        PaddingCost("in buckets of similar length", tokens, np.array(padded)),
        PaddingCost("as the LSTMs compute them", tokens, np.array(as_run)),
    ]


def find_hidden_sizes(parameters: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Find the size of the first LSTM layer of each side among a model's parameters.

    A layer that is named after neither side is shared by both.

    Example:
        >>> find_hidden_sizes({"encoder.weight_ih_l0": np.zeros((32, 3)), "bias": np.zeros(1)})
        {'encoder': 8, 'decoder': 8}
    """
    sizes = {
        name: value.shape[0] // 4
        for name, value in parameters.items()
        if name.endswith("weight_ih_l0")
    }
    first = next(iter(sizes.values()))
    return {
        side: next((size for name, size in sizes.items() if side in name), first)
        for side in ("encoder", "decoder")
    }


def _in_random_order(lengths: np.ndarray, batch_size: int, seed: int) -> PaddingCost:
    """Count the usual batches: shuffled rows, padded to the longest of the batch."""
    order = np.random.default_rng(seed).permutation(len(lengths))
    row_lengths: Sequence[np.ndarray] = [
        lengths[order[start : start + batch_size]] for start in range(0, len(order), batch_size)
    ]
    tokens = np.array([batch.sum() for batch in row_lengths])
    computed = np.array([len(batch) * batch.max(axis=0).sum() for batch in row_lengths])
    return PaddingCost("in random order, padded to the longest", tokens, computed)
