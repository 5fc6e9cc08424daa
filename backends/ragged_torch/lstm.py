"""The LSTM layer on torch: dense kernels that hold at padding, or packed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ragged import initial
from ragged.alignment import flip, select_valid
from ragged.backend import Backend, load_backend
from ragged.lengths import Lengths
from ragged.lstm import LSTMShape, run, stack_layers
from ragged.masks import padding_mask
from ragged.packing import PackingOrder, packs
from ragged_torch.arrays import asarray, name
from ragged_torch.blocks import Dropout
from ragged_torch.parameters import draw_seed

State = tuple[Tensor, Tensor]
Weights = dict[str, Tensor]

HOLD = 1e4  # sigmoid(-HOLD) is exactly 0 and sigmoid(HOLD) exactly 1, in every float dtype


class LSTM(nn.Module):
    """An LSTM over rows of different lengths; see `ragged.LSTM`.

    Arguments, parameter names and `state_dict` are those of `torch.nn.LSTM`, which it cannot
    subclass because Dynamo refuses every instance of it (pytorch, variables/builder.py).

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
    ) -> None:
        super().__init__()
        self.shape = LSTMShape(input_size, hidden_size, num_layers, bias, bidirectional, proj_size)
        self.batch_first = batch_first
        self.dropout = Dropout(dropout)
        rng = initial.generator(draw_seed(seed))
        for parameter, value in initial.lstm_values(rng, self.shape).items():
            self.register_parameter(parameter, nn.Parameter(asarray(value)))

    @torch.compiler.disable
    def forward(
        self, x: Tensor, lengths: object = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Return the outputs and the state after each row's last valid step."""
        return run(
            "LSTM",
            load_backend(name),
            dict(self.named_parameters()),
            x,
            lengths,
            state,
            self.batch_first,
            self.dropout,
        )

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
    """Run a checked, batch-first LSTM by the path that the policy chooses."""
    shapes = LSTMShape.of(parameters).state_shapes(len(x))
    state = state or (x.new_zeros(shapes[0]), x.new_zeros(shapes[1]))
    path = packed if packs(lengths, packing_is_fast=x.is_cuda) else dense
    return path(parameters, x, lengths, state, between_layers)


def packed(
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: State,
    between_layers: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, State]:
    """Run torch's packed kernels over the rows that have steps."""
    backend = load_backend(name)
    order = PackingOrder(lengths)
    batch_sizes = torch.from_numpy(order.batch_sizes)
    rows = asarray(order.rows[order.sorted_indices], like=x)

    def run_layer(weights: list[Weights], data: Tensor, state: State) -> tuple[Tensor, State]:
        flat = [tensor for direction in weights for tensor in direction.values()]
        y, h, c = torch.lstm(
            data,
            batch_sizes,
            state,
            flat,
            has_biases="bias_ih" in weights[0],
            num_layers=1,
            dropout=0.0,
            train=torch.is_grad_enabled(),
            bidirectional=len(weights) > 1,
        )
        return y, (h, c)

    alive = (state[0].index_select(1, rows), state[1].index_select(1, rows))
    data = order.pack(backend, x)
    data, (h, c) = stack_layers(run_layer, parameters, data, alive, torch.cat, between_layers)
    y = order.unpack(backend, data)
    return y, (state[0].index_copy(1, rows, h), state[1].index_copy(1, rows, c))


def dense(
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: State,
    between_layers: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, State]:
    """Run torch's dense kernels over the whole width, each row's state held at padding."""
    batch, width = x.shape[:2]
    if not batch or not width:  # the kernels refuse both; a step of padding changes nothing
        x = nn.functional.pad(x, (0, 0, 0, 1, 0, 1))
        state = (
            nn.functional.pad(state[0], (0, 0, 0, 1)),
            nn.functional.pad(state[1], (0, 0, 0, 1)),
        )
        lengths = Lengths([*lengths.host, 0], width + 1)
    backend = load_backend(name)

    def run_layer(weights: list[Weights], x: Tensor, state: State) -> tuple[Tensor, State]:
        ys, hs, cs = [], [], []
        for direction, own in enumerate(weights):
            steps = flip(backend, x, lengths) if direction else x
            y, h, c = _layer(backend, own, steps, lengths, state[0][direction], state[1][direction])
            ys.append(flip(backend, y, lengths) if direction else y)
            hs.append(h)
            cs.append(c)
        return torch.cat(ys, -1), (torch.stack(hs), torch.stack(cs))

    y, (h, c) = stack_layers(run_layer, parameters, x, state, torch.cat, between_layers)
    return y[:batch, :width], (h[:, :batch], c[:, :batch])


def _layer(
    backend: Backend, weights: Weights, x: Tensor, lengths: Lengths, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer in one direction: y, and h and c after each row's last valid step."""
    if not lengths.is_full:
        x, weights = _hold_at_padding(backend, weights, x, lengths)
    y, h, c = torch.lstm(
        x,
        (h0[None], c0[None]),
        list(weights.values()),
        has_biases="bias_ih" in weights,
        num_layers=1,
        dropout=0.0,
        train=torch.is_grad_enabled(),
        bidirectional=False,
        batch_first=True,
    )
    if lengths.is_full:
        return y, h[0], c[0]
    count = asarray(lengths.host, like=x)[:, None]
    last = (count - 1).clamp(min=0)[..., None].expand(-1, 1, y.shape[2])
    h = torch.where(count > 0, y.gather(1, last)[:, 0], h0)
    return select_valid(backend, y, lengths), h, c[0]


def _hold_at_padding(
    backend: Backend, weights: Weights, x: Tensor, lengths: Lengths
) -> tuple[Tensor, Weights]:
    """Append an input that is 1 at padding and there shuts gate i and opens gate f for good.

    Then c passes padding unchanged, forwards and backwards, in any dense kernel.
    """
    x = select_valid(backend, x, lengths)
    padding = (~padding_mask(backend, lengths, like=x)).to(x.dtype)
    hidden_size = weights["weight_hh"].shape[0] // 4
    hold = x.new_tensor([-HOLD, HOLD, 0.0, 0.0]).repeat_interleave(hidden_size)
    weight_ih = torch.cat([weights["weight_ih"], hold[:, None]], 1)
    return torch.cat([x, padding[..., None]], -1), {**weights, "weight_ih": weight_ih}
