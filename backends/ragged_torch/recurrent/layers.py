"""The recurrent layer as a module of torch."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from ragged.backend import load_backend
from ragged.checks import as_rate
from ragged.recurrent import init
from ragged.recurrent.call import validate_and_call
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.arrays import name
from ragged_torch.layers import Dropout
from ragged_torch.parameters import Device, create_parameter, draw_seed
from ragged_torch.recurrent import cudnn, direct
from ragged_torch.recurrent.direct import read_parameters


class Recurrent(nn.Module):
    """A recurrent layer over rows of different lengths; see `ragged.LSTM`, `GRU` and `RNN`.

    Parameter names and `state_dict` are those of `torch.nn`'s layers, which it cannot subclass
    because Dynamo refuses every instance of them (pytorch, variables/builder.py). A call reads its
    parameters as attributes, so that what replaces them there (tied weights, weight norms, pruning,
    sharding) is what runs. Initial values follow from the seed, whatever the dtype.

    Example:
        >>> import torch
        >>> layer = Recurrent("LSTM", 3, 8, bidirectional=True, seed=0)
        >>> y, (h, c) = layer(torch.ones(2, 5, 3), lengths=[5, 0])
        >>> y.shape, h.shape, y[1].abs().max().item()
        (torch.Size([2, 5, 16]), torch.Size([2, 2, 8]), 0.0)
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        seed: init.Seed = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = input_size, hidden_size, num_layers, bias, bidirectional, proj_size
        self.shape = RecurrentShape(*sizes, mode)
        self.shape.check_extent()
        self.batch_first = batch_first
        self.dropout = Dropout(as_rate(self.shape.cell.name, "dropout", dropout))
        rng = init.generator(draw_seed(seed))
        self._names = tuple(self.shape.parameter_shapes())
        for parameter, value in init.recurrent_values(rng, self.shape).items():
            self.register_parameter(parameter, create_parameter(value, device, dtype))
        cudnn.flatten_parameters(self, self.shape)

    def forward(
        self,
        x: Tensor,
        lengths: object = None,
        state: object = None,
        *,
        resets: object = None,
        start: str = "zeros",
        offsets: object = None,
        max_length: int | None = None,
    ) -> tuple[Tensor, Any]:
        """Return the outputs and the state after each row's last valid step.

        With `offsets (batch + 1,)` the rows lie end to end in x `(tokens, features)`, with room for
        more perhaps: what is beyond the last row is never read, and 0 in the outputs.
        """
        weights, between_layers = read_parameters(self, self._names), self.dropout
        if resets is None and start == "zeros":
            call = self.shape, weights, x, lengths, state, between_layers
            ends: dict[str, Any] = {"offsets": offsets, "max_length": max_length}
            result = direct.run_if_plain(*call, batch_first=self.batch_first, **ends)
            if result is not None:
                return result
        parameters = dict(zip(self._names, weights, strict=True))
        self.shape.check_parameters(self.shape.cell.name, parameters)
        y, final = validate_and_call(
            self.shape.cell.name,
            load_backend(name),
            self.shape,
            parameters,
            x,
            lengths,
            state,
            self.batch_first,
            between_layers,
            resets,
            start,
            offsets,
            max_length,
        )
        if isinstance(final, tuple):
            return _dense(y, self.batch_first), tuple(part.contiguous() for part in final)
        return _dense(y, self.batch_first), final.contiguous()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        cudnn.flatten_parameters(self, self.shape)
        return self

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.shape}"

    def _get_name(self) -> str:
        return self.shape.cell.name


def _dense(y: Tensor, batch_first: bool) -> Tensor:
    return y if batch_first else y.contiguous()
