"""All layers and directions of a recurrent layer, by what runs one direction of one layer.

Here every state is a pair (h, c): a cell without c has one of no features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ragged.lengths import Lengths
from ragged.recurrent.call import stack_layers
from ragged.recurrent.shape import RecurrentShape

State = tuple[Tensor, Tensor]
Weights = dict[str, Tensor]
Result = tuple[Tensor, Tensor, Tensor]
LayerRun = Callable[[list[Weights], Tensor, State], tuple[Tensor, State]]  # all its directions


class Resets(NamedTuple):
    """Where the state of rows starts anew.

    Args:
        at: boolean, in the shape of the tokens of x, True before such a step; not read at padding.
        start: from what: "zeros", or the row's "initial" state.
    """

    at: Tensor
    start: str = "zeros"

    @classmethod
    def of(cls, at: Tensor | None, start: str) -> Resets | None:
        """Give the resets of a call; None without."""
        return None if at is None else cls(at, start)


def take_apart(resets: Resets | None) -> tuple[Tensor | None, str]:
    """Undo `Resets.of`."""
    return resets or (None, "zeros")


class LayerInputs(NamedTuple):
    """What every implementation is given: a checked, batch-first call.

    Args:
        shape: the layer's sizes and cell.
        parameters: `torch.nn`'s.
        x: `(batch, time, features)`, left aligned; padding may hold anything.
        lengths: of the rows.
        state: h and c, `(layers * directions, batch, size)`.
        between_layers: applied to every layer's output but the last one's.
        layout: how the tokens of x lie; kernels alone run another than "padded".
        resets: None = nowhere; `dispatch` says who runs them.
    """

    shape: RecurrentShape
    parameters: Mapping[str, Tensor]
    x: Tensor
    lengths: Lengths
    state: State
    between_layers: Callable[[Tensor], Tensor] | None = None
    layout: str = "padded"
    resets: Resets | None = None

    @property
    def mode(self) -> str:
        """The cell, by torch's name."""
        return self.shape.mode


def with_biases(weights: Weights, like: Tensor) -> Weights:
    """Return the weights of a direction with both biases, zeros where there are none."""
    if "bias_ih" in weights:
        return weights
    zeros = like.new_zeros(weights["weight_ih"].shape[0])
    return {**weights, "bias_ih": zeros, "bias_hh": zeros}


def run_directions(run_layer: Callable[..., Result], inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run all layers, each in its directions.

    Args:
        run_layer: `(mode, weights, x, lengths, h0, c0, *, reverse) -> (y, h, c)`.
        inputs: of the call.
    """

    def run_both(weights: list[Weights], x: Tensor, state: State) -> tuple[Tensor, State]:
        run = partial(run_layer, inputs.mode)
        results = [
            run(direction, x, inputs.lengths, state[0][k], state[1][k], reverse=k == 1)
            for k, direction in enumerate(weights)
        ]
        ys, hs, cs = zip(*results, strict=True)
        y = ys[0] if len(ys) == 1 else torch.cat(ys, -1)
        return y, (torch.stack(hs), torch.stack(cs))  # no views, which detach_() refuses

    return stack(run_both, inputs, inputs.x, inputs.state)


def stack(
    run_layer: LayerRun, inputs: LayerInputs, x: Tensor, state: State
) -> tuple[Tensor, State]:
    """Run the layers of a call, one on the output of the other, on an x and a state of any form."""
    run, shape, parameters = partial(_at_least_float32, run_layer), inputs.shape, inputs.parameters
    y, (h, c) = stack_layers(run, shape, parameters, x, state, torch.cat, inputs.between_layers)
    return y, (h, c)


def _at_least_float32(
    run_layer: LayerRun, weights: list[Weights], x: Tensor, state: State
) -> tuple[Tensor, State]:
    """Run a layer; half precision in float32 on a CPU: a relu's slope jumps where a sum rounds."""
    dtype = x.dtype
    if dtype.itemsize >= 4 or x.device.type != "cpu":
        return run_layer(weights, x, state)
    single = [{name: weight.float() for name, weight in each.items()} for each in weights]
    y, (h, c) = run_layer(single, x.float(), (state[0].float(), state[1].float()))
    return y.to(dtype), (h.to(dtype), c.to(dtype))
