"""Swapping `torch.nn`'s recurrent layers of a model for ours, in place."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from ragged.checks import shown
from ragged.errors import ArgumentError
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.recurrent.rnn import GRU, LSTM, RNN, RNNBase

TYPES: dict[type, type[RNNBase]] = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}
# What torch's layers hold for cuDNN, which ours compute from the parameters.
BUFFERS = ("_flat_weights", "_flat_weights_names", "_flat_weight_refs", "_all_weights")


class Report(NamedTuple):
    """What `replace_recurrent` did.

    Args:
        replaced: names of the layers that were replaced; "" names the model itself.
        left: the reason for each layer that was not, by name.
    """

    replaced: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{name or 'the model'}: replaced" for name in self.replaced]
        lines += [f"{name or 'the model'}: left, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or "no recurrent layer"


def replace_recurrent(model: nn.Module) -> Report:
    """Swap every `torch.nn.LSTM`, `GRU` and `RNN` of a module for ours, in place.

    Each layer becomes one of ours, as the object that it is: its parameters, hooks, training flags
    and all other attributes stay, so an optimiser remains valid, and so does everything else that
    refers to the layer, a list beside the registered modules for one. Calls need no change, packed
    ones included.

    Args:
        model: any module, or a layer itself.

    Returns:
        The layers replaced, and those left with the reason; printed, one line each.

    Raises:
        ArgumentError: it is no `torch.nn.Module`.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.LSTM(3, 8))
        >>> print(replace_recurrent(model))
        0: replaced
        >>> type(model[0]).__module__
        'ragged_torch.recurrent.rnn'
    """
    if not isinstance(model, nn.Module):
        expected, remedy = "a torch.nn.Module", "Give the model that holds the layers."
        raise ArgumentError.of("replace_recurrent", "model", shown(model), expected, remedy)
    modules = model.named_modules(remove_duplicate=False)
    found = {name: module for name, module in modules if isinstance(module, nn.RNNBase)}
    reasons = {layer: _reason_to_leave(layer) for layer in found.values()}
    for layer, reason in reasons.items():
        if reason is None:
            _swap(layer)
    replaced = tuple(name for name, layer in found.items() if reasons[layer] is None)
    left = {name: reason for name, layer in found.items() if (reason := reasons[layer])}
    return Report(replaced, left)


def _reason_to_leave(layer: nn.RNNBase) -> str | None:
    """Return why a layer is not swapped; None = it is."""
    kind = _torch_type(layer)
    if kind is None:
        return f"{type(layer).__name__} is none of torch.nn.LSTM, GRU and RNN"
    if nn.utils.parametrize.is_parametrized(layer):
        return "its parameters are parametrized, by torch.nn.utils.parametrize"
    changed = [
        member
        for base in type(layer).__mro__[: type(layer).__mro__.index(kind)]
        for member, value in vars(base).items()
        if callable(value) or isinstance(value, (property, classmethod, staticmethod))
    ]
    changed += [member for member, value in vars(layer).items() if member == "forward"]
    return f"{type(layer).__name__} overrides {', '.join(changed)}" if changed else None


def _torch_type(layer: nn.RNNBase) -> type | None:
    return next((kind for kind in TYPES if isinstance(layer, kind)), None)


def _swap(layer: Any) -> None:
    """Make a torch layer one of ours."""
    for buffer in BUFFERS:
        vars(layer).pop(buffer, None)
    layer.__class__ = TYPES[_torch_type(layer)]  # type: ignore[index]
    sizes = layer.input_size, layer.hidden_size, layer.num_layers
    flags = layer.bias, bool(layer.bidirectional), layer.proj_size
    layer.shape = RecurrentShape(*sizes, *flags, layer.mode)
    layer._names = tuple(layer.shape.parameter_shapes())
