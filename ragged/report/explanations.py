"""Explanations of a model's forecasts, cut at the lengths of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragged.data import Batch, RaggedDataset, Roles, Sample, batches

SELECTIONS = {
    "past_selection": "context",
    "future_selection": "horizon",
    "static_selection": "whole row",
}


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of each step of a row's horizon, the mean over the heads.

    Args:
        weights: `(horizon, context + horizon)`; a step with keys to attend to sums to 1.
        context: how many of the keys are context.
    """

    weights: np.ndarray
    context: int


def attention_of(
    module: Any, rows: Sequence[Sample], batch_size: int, dtype: str
) -> list[Attention]:
    """Return the attention of a model in some rows; empty if it has none.

    Args:
        module: the model.
        rows: unpadded.
        batch_size: rows of a batch.
        dtype: of the model's arrays.
    """
    return [
        cut_attention(explanations, row)
        for batch, explanations in _interpret_batches(module, rows, batch_size, dtype)
        if "attention" in explanations
        for row in np.flatnonzero(batch.rows >= 0).tolist()
    ]


def mean_selection(
    module: Any, rows: Sequence[Sample], roles: Roles, batch_size: int, dtype: str
) -> dict[str, dict[str, float]]:
    """Return the mean selection weight of each variable over all valid steps of rows.

    Arguments are those of `attention_of`, and the roles of the columns.

    Returns:
        For each input the weight of each variable by name, 1 together; empty if the model selects
        nothing.
    """
    sums: dict[str, np.ndarray] = {}
    for _, explanations in _interpret_batches(module, rows, batch_size, dtype):
        selected = {name: weights for name, weights in explanations.items() if name in SELECTIONS}
        if not selected:
            return {}
        for name, weights in selected.items():  # 0 at padding
            sums[name] = sums.get(name, 0.0) + weights.reshape(-1, weights.shape[-1]).sum(axis=0)
    variables = {
        "past_selection": roles.encoder,
        "future_selection": roles.decoder,
        "static_selection": ("length", *roles.static),
    }
    return {
        SELECTIONS[name]: dict(zip(variables[name], (total / total.sum()).tolist(), strict=True))
        for name, total in sums.items()
    }


def cut_attention(explanations: dict[str, np.ndarray], row: int) -> Attention:
    """Extract one row's attention from the explanations of a batch.

    Keys are the encoder's steps and then the decoder's, each left aligned in its own width.

    Example:
        >>> weights = np.arange(12.0).reshape(1, 1, 2, 6)  # encoder 4 steps wide, decoder 2
        >>> lengths = {"encoder_lengths": np.array([3]), "decoder_lengths": np.array([1])}
        >>> cut_attention({"attention": weights, **lengths}, 0).weights.tolist()
        [[0.0, 1.0, 2.0, 4.0]]
    """
    weights = explanations["attention"][row].mean(axis=0)
    width = weights.shape[1] - weights.shape[0]  # of the encoder
    context, horizon = (
        int(explanations[f"{side}_lengths"][row]) for side in ("encoder", "decoder")
    )
    valid = np.r_[0:context, width : width + horizon]
    return Attention(weights[:horizon, valid], context)


def coarsen(attention: Attention, max_size: int) -> tuple[np.ndarray, int]:
    """Join neighbouring steps until no side has more than `max_size`.

    Returns:
        The weights and how many steps were joined; the weight of joined keys is their sum, of
        joined horizon steps the mean.

    Example:
        >>> values, factor = coarsen(Attention(np.full((2, 4), 0.25), 2), 2)
        >>> values.tolist(), factor
        ([[0.5, 0.5]], 2)
    """
    weights = attention.weights
    factor = max(1, -(-max(weights.shape) // max_size))
    queries, keys = (np.arange(0, size, factor) for size in weights.shape)
    joined = np.add.reduceat(np.add.reduceat(weights, queries, axis=0), keys, axis=1)
    sizes = np.diff([*queries, len(weights)])
    return joined / sizes[:, None], factor


def _interpret_batches(
    module: Any, rows: Sequence[Sample], batch_size: int, dtype: str
) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
    """Yield each batch of the rows with its explanations; nothing if the model has none."""
    if rows and hasattr(module, "interpret"):
        dataset = RaggedDataset(rows, module.config.encoder_alignment)
        for batch in batches(dataset, batch_size, dtype=dtype):
            yield batch, module.interpret(batch)
