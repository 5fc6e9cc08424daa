"""flax: the cells of nnx and of linen, with different layouts of the same parameters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragged.checks import as_choice
from ragged.errors import ConversionError
from ragged.recurrent.convert.layer import (
    Arrays,
    Layer,
    Parameters,
    check_mapping,
    open_arrays,
    stack_gates,
)


class Form(NamedTuple):
    """The dense layers of a cell, each of one gate, in torch's order, or of all gates.

    Args:
        gates: how many the cell has.
        inputs: the dense layers of x.
        hidden: the dense layers of h.
        biased: those with a bias.
    """

    gates: int
    inputs: tuple[str, ...]
    hidden: tuple[str, ...]
    biased: tuple[str, ...]


X, H = ("dense_i",), ("dense_h",)
LSTM_H, GRU_X = ("hi", "hf", "hg", "ho"), ("ir", "iz", "in")
LINEN_LSTM = Form(4, ("ii", "if", "ig", "io"), LSTM_H, LSTM_H)
FORMS = {
    "nnx.LSTMCell": Form(4, ("ii", "if_", "ig", "io"), LSTM_H, LSTM_H),
    "nnx.OptimizedLSTMCell": Form(4, X, H, H),
    "nnx.GRUCell": Form(3, X, H, X),
    "nnx.SimpleCell": Form(1, X, H, X),
    "linen.LSTMCell": LINEN_LSTM,
    "linen.OptimizedLSTMCell": LINEN_LSTM,
    "linen.GRUCell": Form(3, GRU_X, ("hr", "hz", "hn"), (*GRU_X, "hn")),
    "linen.SimpleCell": Form(1, ("i",), ("h",), ("i",)),
}


def from_flax(
    parameters: Parameters, cell: str, *, layer: int = 0, reverse: bool = False
) -> Arrays:
    """Convert the parameters of a flax cell to torch's names.

    Args:
        parameters: by name, as `nnx.to_pure_dict(nnx.state(cell, nnx.Param))` or linen's `init`
            gives them: kernels `(features, hidden)`, or `(features, gates * hidden)`, and biases.
        cell: "nnx." or "linen." and LSTMCell, OptimizedLSTMCell, GRUCell or SimpleCell.
        layer: the layer that they become in a stack.
        reverse: whether they become its backward direction.

    Returns:
        `weight_ih_l0 (gates * hidden, features)`, `weight_hh_l0`, `bias_ih_l0` and `bias_hh_l0`,
        in the dtype given, bfloat16 as float32.

    Raises:
        ConversionError: names or shapes that the cell has not.
        OptionError: an unknown cell.
        ArgumentError: parameters that are no mapping.

    Example:
        >>> dense = {"kernel": np.ones((2, 3)), "bias": np.ones(3)}
        >>> layer = from_flax({"i": dense, "h": {"kernel": np.eye(3)}}, "linen.SimpleCell")
        >>> {name: value.shape for name, value in layer.items()}
        {'weight_ih_l0': (3, 2), 'weight_hh_l0': (3, 3), 'bias_ih_l0': (3,), 'bias_hh_l0': (3,)}

    Source: flax.nnx.nn.recurrent and flax.linen.recurrent of flax 0.12.
    """
    form = FORMS[as_choice("from_flax", "cell", cell, tuple(FORMS))]
    check_mapping("from_flax", parameters)
    arrays = parameters["params"] if set(parameters) == {"params"} else parameters
    names = (*form.inputs, *form.hidden)
    array_names = {n: ("kernel", "bias") if n in form.biased else ("kernel",) for n in names}
    dense = open_arrays("from_flax", arrays, array_names)

    def weight(layers: tuple[str, ...]) -> np.ndarray:
        return stack_gates("from_flax", [dense[name]["kernel"].T for name in layers])

    def bias(layers: tuple[str, ...]) -> np.ndarray:
        return stack_gates("from_flax", [_bias(dense[name]) for name in layers])

    result = Layer(weight(form.inputs), weight(form.hidden), bias(form.inputs), bias(form.hidden))
    return result.to_torch("from_flax", form.gates, layer, reverse)


def to_flax(
    parameters: Parameters, cell: str, *, layer: int = 0, reverse: bool = False
) -> dict[str, Arrays]:
    """Convert a layer to the parameters of a flax cell; see `from_flax`.

    Args:
        parameters: of a stack, by torch's names.
        cell: as in `from_flax`.
        layer: which layer of the stack.
        reverse: whether its backward direction.

    Returns:
        Kernels and biases by name: what `nnx.update` takes for a cell of nnx, and linen's "params".

    Raises:
        ConversionError: there is no such layer, or it has not the cell's number of gates; a
            projection; or an n part of a GRU's `bias_hh` that is not 0, which nnx.GRUCell lacks.
        OptionError: an unknown cell.
        ArgumentError: parameters that are no mapping.

    Example:
        >>> stack = {"weight_ih_l0": np.ones((3, 2)), "weight_hh_l0": np.eye(3)}
        >>> to_flax(stack, "nnx.SimpleCell")["dense_i"]["bias"]
        array([0., 0., 0.])
    """
    form = FORMS[as_choice("to_flax", "cell", cell, tuple(FORMS))]
    source, _ = Layer.from_torch("to_flax", parameters, form.gates, layer, reverse)
    inputs = hidden = source.bias_ih + source.bias_hh
    if form.gates == 3:  # r multiplies the n part of bias_hh
        n = np.arange(len(hidden)) >= len(hidden) // 3 * 2
        if form.hidden[-1] not in form.biased and source.bias_hh[n].any():
            got, expected = "with a bias_hh that is not 0 in its n part", f"0 there, for {cell}"
            remedy = "It has no such bias; linen.GRUCell and Keras have."
            raise ConversionError.of("to_flax", "parameters", got, expected, remedy)
        inputs, hidden = np.where(n, source.bias_ih, inputs), source.bias_hh
    result: dict[str, Arrays] = {}
    for names, weight, bias in (
        (form.inputs, source.weight_ih, inputs),
        (form.hidden, source.weight_hh, hidden),
    ):
        parts = np.split(weight, len(names)), np.split(bias, len(names))
        for name, rows, bias_rows in zip(names, *parts, strict=True):
            result[name] = {"kernel": np.ascontiguousarray(rows.T)}
            if name in form.biased:
                result[name]["bias"] = bias_rows.copy()
    return result


def _bias(dense: Arrays) -> np.ndarray:
    """A dense layer's bias, 0 if it has none."""
    kernel = dense["kernel"]
    return dense.get("bias", np.zeros(kernel.shape[-1:], kernel.dtype))
