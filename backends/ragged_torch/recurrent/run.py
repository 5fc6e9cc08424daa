"""A checked call of a recurrent layer: by the first implementation that runs it, or recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.lengths import Lengths, check_lengths
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.arrays import is_compiling, name
from ragged_torch.operators import as_recorded, recorded_lengths
from ragged_torch.recurrent.custom_op import recurrent_op
from ragged_torch.recurrent.dispatch import RECORDED, find_surrounding, run_by_choice, run_padded
from ragged_torch.recurrent.stack import (
    LayerInputs,
    Resets,
    Result,
    State,
    Weights,
    run_directions,
)
from ragged_torch.transforms import is_transformed, unwrap


def run_recurrent(
    shape: RecurrentShape,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: tuple[Tensor, ...] | None,
    between_layers: Callable[[Tensor], Tensor] | None,
    resets: Tensor | None = None,
    start: str = "zeros",
    *,
    layout: str = "padded",
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run a checked layer by what torch does around it and the policy of its lengths.

    See `ragged.protocol.Backend.run_recurrent`; the layout is one of `LAYOUTS`. Under
    `torch.autocast` all of it computes in autocast's dtype, as `torch.nn.LSTM` does on a GPU and in
    oneDNN; float64 stays what it is.
    """
    device = x.device.type
    if state is None:
        batch = x.shape[0] if layout == "padded" else lengths.batch
        state = tuple(x.new_zeros(each) for each in shape.state_shapes(batch))
    if device != "meta" and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        parameters = {name: value.to(dtype) for name, value in parameters.items()}
        x, state = x.to(dtype), tuple(part.to(dtype) for part in state)
        call = parameters, x, lengths, state, between_layers, resets, start
        with torch.autocast(device, enabled=False):
            return run_recurrent(shape, *call, layout=layout)
    if lengths.is_traced and not is_compiling() and is_transformed():
        _check_mapped(shape.cell.name, lengths)
    h0, c0 = state if len(state) > 1 else (state[0], state[0][..., :0])
    rows = x, lengths, (h0, c0), between_layers, layout, Resets.of(resets, start)
    inputs = LayerInputs(shape, parameters, *rows)
    surrounding = find_surrounding(lengths, (x, *state, *parameters.values()))
    if surrounding == RECORDED:
        y, final = run_padded(recorded, inputs)
    else:
        y, final = run_by_choice(inputs, surrounding)
    return y, final[: len(state)]


def _check_mapped(function: str, lengths: Lengths) -> None:
    """Refuse lengths that `vmap` maps, all those of its axis at once, as others are at the door."""
    values = unwrap(lengths.to(load_backend(name)))
    with torch._C._DisableFuncTorch():  # or whatever is computed here is wrapped again
        check_lengths(values.flatten(), lengths.width, function=function)


def recorded(inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run one operator a layer and direction, which a compiler leaves as it is."""
    count, resets = recorded_lengths(inputs.lengths, inputs.x), inputs.resets
    if resets is not None:
        resets = resets._replace(at=as_recorded(resets.at, inputs.x))

    def run_layer(
        mode: str, weights: Weights, x: Tensor, lengths: Lengths, *state: Tensor, reverse: bool
    ) -> Result:
        h0, c0 = state
        told = mode, weights, x, count, h0, c0
        return recurrent_op(*told, reverse=reverse, resets=resets)

    return run_directions(run_layer, inputs)
