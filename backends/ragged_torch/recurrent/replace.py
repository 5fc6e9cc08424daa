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
        replaced: names of the layers that were replaced.
        left: the reason for each layer that was not, by name; "" names the model itself.
    """

    replaced: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{name}: replaced" for name in self.replaced]
        lines += [f"{name or 'the model'}: left, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or "no recurrent layer"


def replace_recurrent(model: nn.Module) -> Report:
    """Swap every `torch.nn.LSTM`, `GRU` and `RNN` below a module for ours, in place.

    Parameters are shared, not copied, so an optimiser remains valid; hooks, training flags and all
    other attributes of a layer stay. A layer that is used several times stays shared. Calls need no
    change, packed ones included.

    Args:
        model: any module.

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
    replaced: list[str] = []
    left: dict[str, str] = {}
    ours: dict[nn.RNNBase, RNNBase] = {}
    if isinstance(model, nn.RNNBase):
        left[""] = "it cannot be swapped in place: build ours and load its state_dict"
    for parent_name, parent in model.named_modules(remove_duplicate=False):
        for name, layer in parent._modules.items():
            if not isinstance(layer, nn.RNNBase):
                continue
            full = f"{parent_name}.{name}" if parent_name else name
            if layer not in ours and (reason := _reason_to_leave(layer)) is not None:
                left[full] = reason
                continue
            ours.setdefault(layer, _convert(layer))
            parent._modules[name] = ours[layer]
            replaced.append(full)
    return Report(tuple(dict.fromkeys(replaced)), left)


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


def _convert(layer: nn.RNNBase) -> RNNBase:
    """Convert a torch layer to ours, with the same parameters and attributes."""
    kind: Any = TYPES[_torch_type(layer)]  # type: ignore[index]
    ours: RNNBase = kind.__new__(kind)
    ours.__dict__.update({k: v for k, v in vars(layer).items() if k not in BUFFERS})
    sizes = layer.input_size, layer.hidden_size, layer.num_layers
    flags = layer.bias, bool(layer.bidirectional), layer.proj_size
    ours.shape = RecurrentShape(*sizes, *flags, layer.mode)
    ours._names = tuple(ours.shape.parameter_shapes())
    return ours
