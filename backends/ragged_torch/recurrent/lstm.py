"""The LSTM layer on torch: by the first implementation that runs a call, or as an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ragged.backend import load_backend
from ragged.checks import as_rate
from ragged.lengths import Lengths, check_lengths
from ragged.recurrent import init as initial
from ragged.recurrent.dispatch import choose
from ragged.recurrent.lstm import LSTMShape, run
from ragged_torch.arrays import is_compiling, name
from ragged_torch.layers import Dropout
from ragged_torch.parameters import Device, create_parameter, draw_seed
from ragged_torch.recurrent.custom_op import lstm_op
from ragged_torch.recurrent.dispatch import IMPLEMENTATIONS, RECORDED, describe, find_surrounding
from ragged_torch.recurrent.stack import LayerInputs, Result, State, Weights, run_directions
from ragged_torch.transforms import FakeTensor, is_transformed, unwrap


class LSTM(nn.Module):
    """An LSTM over rows of different lengths; see `ragged.LSTM`.

    Arguments, parameter names and `state_dict` are those of `torch.nn.LSTM`, which it cannot
    subclass because Dynamo refuses every instance of it (pytorch, variables/builder.py). A call
    reads its parameters as attributes, so that what replaces them there (tied weights, weight
    norms, pruning, sharding) is what runs. Initial values follow from the seed, whatever the dtype.

    Example:
        >>> import torch
        >>> layer = LSTM(3, 8, bidirectional=True, seed=0)
        >>> y, (h, c) = layer(torch.ones(2, 5, 3), lengths=[5, 0])
        >>> y.shape, h.shape, y[1].abs().max().item()
        (torch.Size([2, 5, 16]), torch.Size([2, 2, 8]), 0.0)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        seed: initial.Seed = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.shape = LSTMShape(input_size, hidden_size, num_layers, bias, bidirectional, proj_size)
        self.batch_first = batch_first
        self.dropout = Dropout(as_rate("LSTM", "dropout", dropout))
        rng = initial.generator(draw_seed(seed))
        self._names = tuple(self.shape.parameter_shapes())
        for parameter, value in initial.lstm_values(rng, self.shape).items():
            self.register_parameter(parameter, create_parameter(value, device, dtype))

    def forward(
        self, x: Tensor, lengths: object = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Return the outputs and the state after each row's last valid step."""
        y, (h, c) = run(
            "LSTM",
            load_backend(name),
            {parameter: getattr(self, parameter) for parameter in self._names},
            x,
            lengths,
            state,
            self.batch_first,
            self.dropout,
        )
        return y if self.batch_first else y.contiguous(), (h.contiguous(), c.contiguous())

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.shape}"


def lstm(
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: State | None,
    between_layers: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, State]:
    """Run a checked, batch-first LSTM by what torch does around it and the policy of its lengths.

    Under `torch.autocast` all of it computes in autocast's dtype, as `torch.nn.LSTM` does on a GPU
    and in oneDNN; float64 stays what it is.
    """
    shape, device = LSTMShape.read(parameters), x.device.type
    shapes = shape.state_shapes(x.shape[0])
    state = state or (x.new_zeros(shapes[0]), x.new_zeros(shapes[1]))
    if device != "meta" and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        parameters = {name: value.to(dtype) for name, value in parameters.items()}
        x, state = x.to(dtype), (state[0].to(dtype), state[1].to(dtype))
        with torch.autocast(device, enabled=False):
            return lstm(parameters, x, lengths, state, between_layers)
    if lengths.is_traced and not is_compiling() and is_transformed():
        _check_mapped(lengths)
    inputs = LayerInputs(parameters, x, lengths, state, between_layers)
    surrounding = find_surrounding(lengths, (x, *state, *parameters.values()))
    if surrounding == RECORDED:
        return recorded(inputs)
    call = describe(x, shape.hidden_size, shape.proj_size, lengths, surrounding)
    return choose(IMPLEMENTATIONS, call).run(inputs)


def _check_mapped(lengths: Lengths) -> None:
    """Refuse lengths that `vmap` maps, all those of its axis at once, as others are at the door."""
    values = unwrap(lengths.to(load_backend(name)))
    with torch._C._DisableFuncTorch():  # or whatever is computed here is wrapped again
        check_lengths(values.flatten(), lengths.width, function="LSTM")


def recorded(inputs: LayerInputs) -> tuple[Tensor, State]:
    """Run one operator a layer and direction, which a compiler leaves as it is."""
    x, lengths = inputs.x, inputs.lengths
    count = lengths.to(load_backend(name)).to("cpu", torch.int64)
    if isinstance(x, FakeTensor) and not isinstance(count, FakeTensor):
        count = x.fake_mode.from_tensor(count)

    def run_layer(
        weights: Weights, x: Tensor, lengths: Lengths, *state: Tensor, reverse: bool
    ) -> Result:
        return lstm_op(weights, x, count, *state, reverse=reverse)

    return run_directions(run_layer, inputs)
