"""All layers and directions of an LSTM, by what runs one direction of one layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ragged.lengths import Lengths
from ragged.recurrent.lstm import stack_layers

State = tuple[Tensor, Tensor]
Weights = dict[str, Tensor]
Result = tuple[Tensor, Tensor, Tensor]


class LayerInputs(NamedTuple):
    """What every implementation is given: a checked, batch-first call.

    Args:
        parameters: `torch.nn.LSTM`'s.
        x: `(batch, time, features)`, left aligned; padding may hold anything.
        lengths: of the rows.
        state: h and c, `(layers * directions, batch, size)`.
        between_layers: applied to every layer's output but the last one's.
    """

    parameters: Mapping[str, Tensor]
    x: Tensor
    lengths: Lengths
    state: State
    between_layers: Callable[[Tensor], Tensor] | None = None


def run_directions(run_layer: Callable[..., Result], inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run all layers, each in its directions.

    Args:
        run_layer: `(weights, x, lengths, h0, c0, *, reverse) -> (y, h, c)`.
        inputs: of the call.
    """
    parameters, x, lengths, state, between_layers = inputs
    run = partial(_run_layer, run_layer, lengths)
    return stack_layers(run, parameters, x, state, torch.cat, between_layers)


def _run_layer(
    run_layer: Callable[..., Result],
    lengths: Lengths,
    weights: list[Weights],
    x: Tensor,
    state: State,
) -> tuple[Tensor, State]:
    found = [
        run_layer(own, x, lengths, state[0][place], state[1][place], reverse=place == 1)
        for place, own in enumerate(weights)
    ]
    ys, hs, cs = zip(*found, strict=True)
    y = torch.cat(ys, -1) if len(ys) > 1 else ys[0]
    return y, (torch.stack(hs), torch.stack(cs))
