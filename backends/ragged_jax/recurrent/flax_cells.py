"""flax's cells as torch's layers: which are equivalent, and their parameters in torch's layout."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax import Array

from ragged.recurrent.cells import CELLS
from ragged_jax.recurrent.scan import Weights

Linear = tuple[list[Array], list[Array]]  # the kernels of the gates, and their biases if any
Linears = tuple[Linear, Linear]  # of the inputs, and of h


class Kind(NamedTuple):
    """Where a flax cell has its parameters, and which of torch's layers it is.

    Args:
        modes: torch's name for it, by its `activation_fn`.
        of_x: its linear layers of the inputs, in torch's order of gates.
        of_h: its linear layers of h, in torch's order of gates.
    """

    modes: dict[Any, str]
    of_x: tuple[str, ...] = ("dense_i",)
    of_h: tuple[str, ...] = ("dense_h",)


SIGMOIDS = (jax.nn.sigmoid, jax.lax.logistic)
TANHS = (jnp.tanh, jax.lax.tanh)
PLAIN = {  # the defaults of options that flax's cells do not set in their linear layers
    "precision": None,
    "dot_general": jax.lax.dot_general,
    "preferred_element_type": None,
    "promote_dtype": promote_dtype,
}
KINDS: dict[type, Kind] = {
    nnx.LSTMCell: Kind(
        dict.fromkeys(TANHS, "LSTM"), ("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho")
    ),
    nnx.OptimizedLSTMCell: Kind(dict.fromkeys(TANHS, "LSTM")),
    nnx.GRUCell: Kind(dict.fromkeys(TANHS, "GRU")),
    nnx.SimpleCell: Kind(dict.fromkeys(TANHS, "RNN_TANH") | {jax.nn.relu: "RNN_RELU"}),
}


def torch_weights(linears: Linears) -> Weights:
    """Return a cell's parameters in torch's layout, gates stacked."""
    weights = {}
    for suffix, (kernels, biases) in zip(("ih", "hh"), linears, strict=True):
        weights[f"weight_{suffix}"] = jnp.concatenate(kernels, 1).T
        if biases:
            weights[f"bias_{suffix}"] = jnp.concatenate(biases)
    return weights


def _kind(cell: Any) -> Any:
    return next((kind for kind in type(cell).__mro__ if kind in KINDS), None)


def mode_of(cell: Any) -> str:
    """Return torch's mode of a cell for which `reason_of` is None."""
    return KINDS[_kind(cell)].modes[cell.activation_fn]


def reason_of(cell: Any) -> str | None:
    """Return why our operator cannot run a flax cell; None = it can."""
    kind, label = _kind(cell), type(cell).__name__
    if kind is None:
        return f"{label} is none of {', '.join(kind.__name__ for kind in KINDS)}"
    if type(cell).__call__ is not kind.__call__:
        return f"{label} has an equation of its own, its __call__"
    if getattr(cell, "residual", False):
        return f"{label} is residual"
    if getattr(cell, "gate_fn", jax.nn.sigmoid) not in SIGMOIDS:
        return f"{label}'s gate_fn is not sigmoid"
    if cell.activation_fn not in KINDS[kind].modes:
        return f"{label}'s activation_fn is none of ours"
    if cell.dtype is not None and jnp.dtype(cell.dtype) != jnp.dtype(cell.param_dtype):
        computed, stored = jnp.dtype(cell.dtype), jnp.dtype(cell.param_dtype)
        return f"{label} computes in {computed}, its parameters and carry are {stored}"
    return _linear_reason(cell, KINDS[kind])


def _linear_reason(cell: Any, kind: Kind) -> str | None:
    """Return which of a cell's linear layers is not as flax made it."""
    for names, features in ((kind.of_x, cell.in_features), (kind.of_h, cell.hidden_features)):
        layers = [getattr(cell, name) for name in names]
        size = CELLS[kind.modes[jnp.tanh]].gates * cell.hidden_features // len(names)
        for name, layer in zip(names, layers, strict=True):
            is_plain = type(layer) is nnx.Linear and all(
                getattr(layer, option, default) == default for option, default in PLAIN.items()
            )
            if not is_plain or layer.dtype != cell.dtype:
                return f"its {name} is not the nnx.Linear that flax makes"
            shapes = [tuple(part.shape) for part in (layer.kernel, layer.bias) if part is not None]
            if shapes not in ([(features, size)], [(features, size), (size,)]):
                return f"its {name} has parameters of shapes {shapes}"
            if (layer.bias is None) != (layers[0].bias is None):
                return f"its {name} differs from {names[0]} in having a bias or none"
    return None


def read_linears(cell: Any) -> Linears:
    """Read the parameters of a cell for which `reason_of` is None, gate by gate."""

    def read(names: tuple[str, ...]) -> Linear:
        layers = [getattr(cell, name) for name in names]
        kernels = [layer.kernel[...] for layer in layers]
        return kernels, [layer.bias[...] for layer in layers if layer.bias is not None]

    kind = KINDS[_kind(cell)]
    return read(kind.of_x), read(kind.of_h)


def named_parameters(linears: Linears) -> dict[str, Array]:
    """Name the parameters for an error."""
    return {f"cell's parameter {k}": value for k, value in enumerate(jax.tree.leaves(linears))}
