"""The LSTM layer on torch: our kernels, torch's dense or packed ones, or an operator of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ragged.backend import load_backend
from ragged.checks import as_rate
from ragged.lengths import Lengths, check_lengths
from ragged.ops.packing import PackingOrder
from ragged.recurrent import init as initial
from ragged.recurrent.lstm import LSTMShape, run, stack_layers
from ragged.schedule import Piece, is_native, plan
from ragged_torch.arrays import asarray, is_recording, lstm_costs, name
from ragged_torch.layers import Dropout
from ragged_torch.parameters import Device, create_parameter, draw_seed
from ragged_torch.recurrent import cpp as kernels
from ragged_torch.recurrent import scan as scans
from ragged_torch.recurrent import segments
from ragged_torch.recurrent.custom_op import record_layer
from ragged_torch.transforms import (
    FakeTensor,
    has_subclass,
    has_tangents,
    is_functionalized,
    is_recorded,
    is_transformed,
    unwrap,
)

State = tuple[Tensor, Tensor]
Result = tuple[Tensor, Tensor, Tensor]

Weights = dict[str, Tensor]
Implementation = Callable[
    [Mapping[str, Tensor], Tensor, Lengths, State, Callable[[Tensor], Tensor] | None],
    tuple[Tensor, State],
]


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
    if lengths.is_traced and not is_recording() and is_transformed():
        _check_mapped(lengths)
    run = _choose(shape, lengths, (x, *state, *parameters.values()))
    return run(parameters, x, lengths, state, between_layers)


def _choose(shape: LSTMShape, lengths: Lengths, tensors: Sequence[Tensor]) -> Implementation:
    """Choose who runs: what torch does around the call decides first, then the policy."""
    x, device = tensors[0], tensors[0].device.type
    if is_recording():  # an operator of our own would lose tangents there
        return scanned if has_tangents() or is_transformed() else recorded
    if has_tangents() or has_subclass(tensors):
        return scanned
    own = is_native(lengths) and not shape.proj_size and kernels.has_kernels(x)
    if is_transformed():
        return native if own and not (is_recorded() or is_functionalized()) else scanned
    if lengths.is_traced or is_recorded() or isinstance(x, FakeTensor) or device == "meta":
        return recorded
    if own:
        return native
    costs = replace(lstm_costs(device), native=None)
    made = plan(lengths, costs, hidden_size=shape.hidden_size, input_size=shape.input_size)
    if made.kind == "packed" and made.pieces:
        return packed
    return partial(dense, pieces=made.pieces)


def _check_mapped(lengths: Lengths) -> None:
    """Refuse lengths that `vmap` maps, all those of its axis at once, as others are at the door."""
    values = unwrap(lengths.to(load_backend(name)))
    with torch._C._DisableFuncTorch():  # or whatever is computed here is wrapped again
        check_lengths(values.flatten(), lengths.width, function="LSTM")


def native(
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: State,
    between_layers: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, State]:
    """Run kernels of our own over exactly the valid steps."""

    def run_one(weights: Weights, x: Tensor, state: State, reverse: bool) -> Result:
        return kernels.run_layer(weights, x, lengths, *state, reverse=reverse)

    return _run_layers(run_one, parameters, x, state, between_layers)


def scanned(
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: State,
    between_layers: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, State]:
    """Run plain operations, which any transformation and any kind of tensor goes through."""

    def run_one(weights: Weights, x: Tensor, state: State, reverse: bool) -> Result:
        return scans.run_layer(weights, x, lengths, *state, reverse=reverse)

    return _run_layers(run_one, parameters, x, state, between_layers)


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
    pieces: Sequence[Piece],
) -> tuple[Tensor, State]:
    """Run torch's dense kernels over the pieces of a schedule."""
    if not pieces:  # the kernels refuse no steps; a row and a step of padding change nothing
        batch, width = x.shape[:2]
        x = nn.functional.pad(x, (0, 0, 0, 1, 0, 1))
        state = (
            nn.functional.pad(state[0], (0, 0, 0, 1)),
            nn.functional.pad(state[1], (0, 0, 0, 1)),
        )
        lengths, pieces = Lengths([*lengths.host, 0], width + 1), [Piece(batch + 1, 0, 1)]
        y, (h, c) = dense(parameters, x, lengths, state, between_layers, pieces)
        return y[:batch, :width], (h[:, :batch], c[:, :batch])

    def run_one(weights: Weights, x: Tensor, state: State, reverse: bool) -> Result:
        return segments.run_layer(weights, x, lengths, pieces, *state, reverse=reverse)

    return _run_layers(run_one, parameters, x, state, between_layers)


def recorded(
    parameters: Mapping[str, Tensor],
    x: Tensor,
    lengths: Lengths,
    state: State,
    between_layers: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, State]:
    """Run one operator a layer and direction, which a compiler leaves as it is."""
    count = lengths.to(load_backend(name)).to("cpu", torch.int64)
    if isinstance(x, FakeTensor) and not isinstance(count, FakeTensor):
        count = x.fake_mode.from_tensor(count)

    def run_one(weights: Weights, x: Tensor, state: State, reverse: bool) -> Result:
        return record_layer(weights, x, count, *state, reverse=reverse)

    return _run_layers(run_one, parameters, x, state, between_layers)


def _run_layers(
    run_one: Callable[[Weights, Tensor, State, bool], Result],
    parameters: Mapping[str, Tensor],
    x: Tensor,
    state: State,
    between_layers: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, State]:
    """Run all layers, each in its directions, by what runs one direction of one."""
    run = partial(_run_directions, run_one)
    return stack_layers(run, parameters, x, state, torch.cat, between_layers)


def _run_directions(
    run_one: Callable[[Weights, Tensor, State, bool], Result],
    weights: list[Weights],
    x: Tensor,
    state: State,
) -> tuple[Tensor, State]:
    """Run a layer in each of its directions."""
    found = [
        run_one(own, x, (state[0][direction], state[1][direction]), direction == 1)
        for direction, own in enumerate(weights)
    ]
    ys, hs, cs = zip(*found, strict=True)
    y = torch.cat(ys, -1) if len(ys) > 1 else ys[0]
    return y, (torch.stack(hs), torch.stack(cs))
