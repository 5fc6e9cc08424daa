"""`torch.nn`'s LSTM, GRU and RNN by changing a name: their interface over our implementations.

They cannot be subclasses of torch's, because Dynamo refuses every instance of `torch.nn.RNNBase`
(pytorch, variables/builder.py), so `isinstance(layer, torch.nn.LSTM)` is False.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Number
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from ragged.backend import load_backend
from ragged.checks import as_choice, shown
from ragged.errors import ArgumentError, DeviceError, OptionError
from ragged.recurrent.call import check_resets, parameter_name
from ragged.recurrent.cells import NONLINEARITIES
from ragged.recurrent.init import Seed, generator, recurrent_values
from ragged.recurrent.resets import START_STATES
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.arrays import FLOATING, name, promote_arrays
from ragged_torch.parameters import Device
from ragged_torch.recurrent import cudnn, direct
from ragged_torch.recurrent.direct import read_parameters
from ragged_torch.recurrent.run import run_recurrent
from ragged_torch.recurrent.sequences import (
    InputDeviceError,
    InputDtypeError,
    InputShapeError,
    Sequences,
    read_sequences,
)


class RNNBase(nn.Module):
    """What `LSTM`, `GRU` and `RNN` have in common, as `torch.nn.RNNBase`.

    `layer(input, hx=None, *, lengths=None, offsets=None, resets=None, start="zeros")`; input is
    `(time, batch, features)`, with `batch_first` `(batch, time, features)`, one sequence
    `(time, features)`, a `PackedSequence`, a nested tensor of jagged layout
    `(batch, time, features)`, or, with `offsets (batch + 1,)`, `(tokens, features)` whose rows lie
    end to end. The output has the input's form. With `lengths (batch,)` padding is never read,
    outputs there are exactly 0 and the states are those after each row's last step. With `resets`,
    boolean in the shape of the tokens, the state starts anew before each token that it marks, from
    zeros or, `start="initial"`, from the row's initial state: episodes, segments and bin-packed
    rows in one call.

    Args:
        mode: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        input_size: features of the input.
        hidden_size: features of h.
        num_layers: layers one above the other.
        bias: whether the gates have biases.
        batch_first: whether padded input and output are.
        dropout: rate between layers, in training.
        bidirectional: a second layer reads each row from its last step back.
        proj_size: features of h after a projection, of an LSTM alone; 0 = none.
        device: of the parameters.
        dtype: of the parameters.
        seed: of the initial values, as in `ragged.LSTM`; None = torch's generator, which gives
            `torch.nn`'s own values.

    Raises:
        OptionError, ArgumentError: what `torch.nn` refuses, as ValueError or TypeError.
        ShapeError, DtypeError, LengthsError, DeviceError: at a call, before any work.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        seed: Seed = None,
    ) -> None:
        super().__init__()
        for option, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            _check_type(option, size, int)
        for option, flag in (("bias", bias), ("batch_first", batch_first)):
            _check_type(option, flag, bool)
        _check_dropout(dropout, num_layers)
        sizes = input_size, hidden_size, num_layers, bias, bool(bidirectional), proj_size
        self.shape = RecurrentShape(*sizes, mode)
        self.shape.check_extent()
        extents = self.shape.parameter_shapes()
        self._names = tuple(extents)
        self.mode, self.input_size, self.hidden_size = mode, input_size, hidden_size
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional = float(dropout), bidirectional
        self.proj_size = proj_size
        for parameter, extent in extents.items():
            value = torch.empty(extent, device=device, dtype=dtype)
            self.register_parameter(parameter, nn.Parameter(value))
        self.reset_parameters(seed)
        self.flatten_parameters()

    def reset_parameters(self, seed: Seed = None) -> None:
        """Draw all parameters from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size))."""
        if seed is None:
            bound = 1 / math.sqrt(self.hidden_size)
            for weight in self._flat_weights:
                nn.init.uniform_(weight, -bound, bound)
            return
        with torch.no_grad():
            for parameter, value in recurrent_values(generator(seed), self.shape).items():
                getattr(self, parameter).copy_(torch.from_numpy(value))

    @property
    def _flat_weights_names(self) -> list[str]:
        return list(self._names)

    @property
    def _flat_weights(self) -> list[Tensor]:
        return read_parameters(self, self._names)

    @property
    def _all_weights(self) -> list[list[str]]:  # read by many recipes for initial values
        return [
            [*self.shape.layer_names(layer, direction).values()]
            for layer in range(self.num_layers)
            for direction in self.shape.directions
        ]

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, parameter) for parameter in each] for each in self._all_weights]

    def flatten_parameters(self) -> None:
        """Move the parameters into one buffer for cuDNN, as a move to a GPU does by itself."""
        cudnn.flatten_parameters(self, self.shape)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.flatten_parameters()
        return self

    def extra_repr(self) -> str:
        """Show what differs from the defaults, as `torch.nn` does."""
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
        }
        shown = {option: getattr(self, option) for option in defaults}
        changed = [f"{o}={v}" for o, v in shown.items() if v != defaults[o]]
        return ", ".join([str(self.input_size), str(self.hidden_size), *changed])

    def forward(
        self,
        input: Any,
        hx: Any = None,
        *,
        lengths: object = None,
        offsets: Tensor | None = None,
        resets: object = None,
        start: str = "zeros",
    ) -> tuple[Any, Any]:
        """Return the output in the input's form, and the states after each row's last step."""
        weights, function = read_parameters(self, self._names), self.shape.cell.name
        drop = self._drop if self.dropout and self.training else None
        if resets is None and start == "zeros":
            call = self.shape, weights, input, lengths, hx, drop
            result = direct.run_if_plain(*call, batch_first=self.batch_first, offsets=offsets)
            if result is not None:
                return result
        if isinstance(input, Proxy):
            options = {"lengths": lengths, "offsets": offsets, "resets": resets}
            return self._record(input, hx, options | ({} if start == "zeros" else {"start": start}))
        rows = read_sequences(function, input, lengths, offsets, batch_first=self.batch_first)
        parameters = dict(zip(self._names, weights, strict=True))
        self.shape.check_parameters(function, parameters)
        self._check_input(rows.data)
        states = None if hx is None else self._read_states(hx, rows)
        _check_alike(function, rows.data, parameters, states or ())
        start = as_choice(function, "start", start, START_STATES)
        marks = self._read_resets(resets, rows)
        checked = parameters, rows.data, rows.lengths, states, drop, marks, start
        y, final = run_recurrent(self.shape, *checked, layout=rows.layout)
        final = tuple(self._give_state(state, rows) for state in final)
        return rows.wrap(y), final if len(final) > 1 else final[0]

    def _record(self, input: Proxy, hx: Any, options: dict[str, Any]) -> Any:
        """Have `torch.fx` record a call of this layer, as of `torch.nn`'s, not of its operators."""
        tracer: Any = input.tracer
        given = {key: value for key, value in options.items() if value is not None}
        return tracer.create_proxy("call_module", tracer.path_of_module(self), (input, hx), given)

    def _read_resets(self, resets: Any, rows: Sequences) -> Tensor | None:
        if resets is None:
            return None
        given, tokens = rows.read_marks(resets), tuple(rows.data.shape[:-1])
        backend, function = load_backend(name), self.shape.cell.name
        return check_resets(function, backend, given, tokens, rows.data, batch_first=True)

    def _drop(self, x: Tensor) -> Tensor:
        """Drop what `torch.nn` does of the same seed, which has time first in any case."""
        if not self.batch_first or x.dim() == 2:
            return nn.functional.dropout(x, self.dropout)
        ones = x.transpose(0, 1).new_ones((x.shape[1], x.shape[0], x.shape[2]))
        return x * nn.functional.dropout(ones, self.dropout).transpose(0, 1)

    def _check_input(self, data: Tensor) -> None:
        function, dtype = self.shape.cell.name, self.weight_ih_l0.dtype
        if data.shape[-1] != self.input_size:
            got, expected = f"of {data.shape[-1]} features", f"input_size, {self.input_size}"
            raise InputShapeError.of(function, "input", got, expected, "Build the layer for it.")
        if data.dtype != dtype and not torch.is_autocast_enabled(data.device.type):
            remedy = f"Convert the input by .to({dtype}), or the layer."
            raise InputDtypeError.of(function, "input", str(data.dtype), str(dtype), remedy)

    def _read_states(self, hx: Any, rows: Sequences) -> tuple[Tensor, ...]:
        """Give the states as `(layers * directions, batch, size)`, in the order of the rows."""
        function, cell = self.shape.cell.name, self.shape.cell
        states = hx if len(cell.states) > 1 else (hx,)
        is_pair = isinstance(states, (tuple, list)) and len(states) == len(cell.states)
        if not is_pair or not all(isinstance(state, Tensor) for state in states):
            expected = "the pair (h_0, c_0)" if len(cell.states) > 1 else "the tensor h_0"
            remedy = "Lengths go by keyword: lengths=..."
            raise ArgumentError.of(function, "hx", shown(hx), expected, remedy)
        read = []
        sizes = self.shape.state_shapes(len(rows.lengths))
        for label, state, extent in zip(cell.states, states, sizes, strict=True):
            expected_extent = extent if rows.is_batched else (extent[0], extent[2])
            if tuple(state.shape) != expected_extent:
                got, expected = f"of shape {tuple(state.shape)}", f"shape {expected_extent}"
                remedy = "Give the state of this layer and input, or None for zeros."
                raise InputShapeError.of(function, f"hx ({label})", got, expected, remedy)
            if state.dtype != rows.data.dtype and not torch.is_autocast_enabled(state.device.type):
                remedy = "Convert the state to the input's dtype."
                got, expected = str(state.dtype), str(rows.data.dtype)
                raise InputDtypeError.of(function, f"hx ({label})", got, expected, remedy)
            state = state if rows.is_batched else state.unsqueeze(1)
            order = rows.sorted_indices
            read.append(state if order is None else state.index_select(1, order))
        return tuple(read)

    @staticmethod
    def _give_state(state: Tensor, rows: Sequences) -> Tensor:
        order = rows.unsorted_indices
        state = state.contiguous() if order is None else state.index_select(1, order)
        return state if rows.is_batched else state.squeeze(1)


class LSTM(RNNBase):
    """`torch.nn.LSTM` over rows of any length, by changing its name; see `RNNBase`.

    Example:
        >>> import torch
        >>> from torch.nn.utils.rnn import pack_sequence
        >>> layer = LSTM(3, 8, seed=0)
        >>> packed, (h, c) = layer(pack_sequence([torch.ones(5, 3), torch.ones(2, 3)]))
        >>> packed.data.shape, h.shape
        (torch.Size([7, 8]), torch.Size([1, 2, 8]))

    Source: torch.nn.LSTM, whose arguments, attributes, parameters and equations these are.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(RNNBase):
    """`torch.nn.GRU` over rows of any length, by changing its name; see `RNNBase`.

    Example:
        >>> import torch
        >>> layer = GRU(3, 8, batch_first=True, seed=0)
        >>> rows = torch.nested.nested_tensor(
        ...     [torch.ones(5, 3), torch.ones(2, 3)], layout=torch.jagged)
        >>> y, h = layer(rows)
        >>> [tuple(row.shape) for row in y.unbind()]
        [(5, 8), (2, 8)]

    Source: torch.nn.GRU, whose arguments, attributes, parameters and equations these are.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)


class RNN(RNNBase):
    """`torch.nn.RNN` over rows of any length, by changing its name; see `RNNBase`.

    Example:
        >>> import torch
        >>> layer = RNN(3, 8, nonlinearity="relu", seed=0)
        >>> y, h = layer(torch.ones(5, 2, 3), lengths=[5, 2])
        >>> y.shape, y[2:, 1].abs().max().item()
        (torch.Size([5, 2, 8]), 0.0)

    Source: torch.nn.RNN, whose arguments, attributes, parameters and equations these are.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_projection(kwargs)
        if len(args) > 3:  # where torch.nn.RNN has it
            kwargs["nonlinearity"] = args[3]
            args = (*args[:3], *args[4:])
        self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in NONLINEARITIES:
            expected, remedy = "'tanh' or 'relu'", "Take one of them."
            got = shown(self.nonlinearity)
            raise OptionError.of("RNN", "nonlinearity", got, expected, remedy)
        super().__init__(NONLINEARITIES[self.nonlinearity], *args, **kwargs)


def _check_alike(
    function: str, data: Tensor, parameters: dict[str, Tensor], states: Sequence[Tensor]
) -> None:
    """Refuse tensors of several devices, or of dtypes that the layer does not compute in."""
    tensors = (*parameters.values(), *states)
    if data.dtype in FLOATING and all(
        tensor.dtype == data.dtype and tensor.device == data.device for tensor in tensors
    ):
        return
    named = {parameter_name(parameter): value for parameter, value in parameters.items()}
    named |= {f"hx[{k}]": state for k, state in enumerate(states)}
    try:
        promote_arrays(function, {**named, "input": data})
    except DeviceError as error:  # which torch.nn's users catch as a RuntimeError
        raise InputDeviceError(*error.args) from None


def _refuse_projection(options: dict[str, Any]) -> None:
    if "proj_size" in options:
        remedy = "Leave it out, or take an LSTM."
        got = shown(options["proj_size"])
        raise OptionError.of("RNNBase", "proj_size", got, "none: only LSTMs have one", remedy)


def _check_type(option: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        expected, remedy = f"of type {kind.__name__}", "Convert it."
        raise ArgumentError.of("RNNBase", option, shown(value), expected, remedy)


def _check_dropout(rate: Any, num_layers: Any) -> None:
    if not isinstance(rate, Number) or isinstance(rate, bool) or not 0 <= rate <= 1:  # type: ignore[operator]
        expected, remedy = "a number from 0 to 1", "Give the share that is dropped."
        raise OptionError.of("RNNBase", "dropout", shown(rate), expected, remedy)
    if rate > 0 and num_layers == 1:  # type: ignore[operator]
        warnings.warn(
            "dropout acts between layers, so a rate above 0 expects num_layers greater than 1, "
            f"but got dropout={rate} and num_layers=1",
            stacklevel=4,
        )
