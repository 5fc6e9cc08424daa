"""A checked call of a recurrent layer: by the first implementation that runs it, or recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.lengths import Lengths, check_lengths
from ragged.recurrent.dispatch import choose
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.arrays import is_compiling, name
from ragged_torch.recurrent.custom_op import recurrent_op
from ragged_torch.recurrent.dispatch import IMPLEMENTATIONS, RECORDED, describe, find_surrounding
from ragged_torch.recurrent.layouts import from_padded, to_padded
from ragged_torch.recurrent.stack import LayerInputs, Result, State, Weights, run_directions
from ragged_torch.transforms import FakeTensor, is_transformed, unwrap


def run_layers(
    shape: RecurrentShape,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: tuple[Tensor, ...] | None,
    between_layers: Callable[[Tensor], Tensor] | None,
    *,
    layout: str = "padded",
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run a checked layer by what torch does around it and the policy of its lengths.

    Under `torch.autocast` all of it computes in autocast's dtype, as `torch.nn.LSTM` does on a GPU
    and in oneDNN; float64 stays what it is.

    Args:
        shape: the layer's sizes and cell.
        parameters: `torch.nn`'s.
        x: `(batch, time, features)`, or as the layout says.
        lengths: of the rows.
        state: (h, c) or (h,), each `(layers * directions, batch, size)`; None = zeros.
        between_layers: applied to every layer's output but the last one's.
        layout: one of `LAYOUTS`; outputs lie as x does.
    """
    device = x.device.type
    if state is None:
        batch = x.shape[0] if layout == "padded" else lengths.batch
        state = tuple(x.new_zeros(each) for each in shape.state_shapes(batch))
    if device != "meta" and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        parameters = {name: value.to(dtype) for name, value in parameters.items()}
        x, state = x.to(dtype), tuple(part.to(dtype) for part in state)
        with torch.autocast(device, enabled=False):
            return run_layers(shape, parameters, x, lengths, state, between_layers, layout=layout)
    if lengths.is_traced and not is_compiling() and is_transformed():
        _check_mapped(shape.cell.name, lengths)
    h0, c0 = state if len(state) > 1 else (state[0], state[0][..., :0])
    inputs = LayerInputs(shape, parameters, x, lengths, (h0, c0), between_layers, layout)
    surrounding = find_surrounding(lengths, (x, *state, *parameters.values()))
    chosen = None
    if surrounding != RECORDED:
        chosen = choose(IMPLEMENTATIONS, describe(x, shape, lengths, surrounding))
    if chosen is None or chosen.name != "kernels":
        inputs = inputs._replace(x=to_padded(x, layout, lengths), layout="padded")
    y, final = recorded(inputs) if chosen is None else chosen.run(inputs)
    if inputs.layout != layout:
        y = from_padded(y, layout, lengths, len(x))
    return y, final[: len(state)]


def _check_mapped(function: str, lengths: Lengths) -> None:
    """Refuse lengths that `vmap` maps, all those of its axis at once, as others are at the door."""
    values = unwrap(lengths.to(load_backend(name)))
    with torch._C._DisableFuncTorch():  # or whatever is computed here is wrapped again
        check_lengths(values.flatten(), lengths.width, function=function)


def recorded(inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run one operator a layer and direction, which a compiler leaves as it is."""
    x, lengths = inputs.x, inputs.lengths
    count = lengths.to(load_backend(name)).to("cpu", torch.int64)
    if isinstance(x, FakeTensor) and not isinstance(count, FakeTensor):
        count = x.fake_mode.from_tensor(count)

    def run_layer(
        mode: str, weights: Weights, x: Tensor, lengths: Lengths, *state: Tensor, reverse: bool
    ) -> Result:
        return recurrent_op(mode, weights, x, count, *state, reverse=reverse)

    return run_directions(run_layer, inputs)
