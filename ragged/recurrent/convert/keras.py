"""Keras 3: one kernel for all gates, in an order of its own for a GRU."""

from __future__ import annotations

import numpy as np

from ragged.checks import as_choice
from ragged.errors import ConversionError
from ragged.recurrent.convert.layer import (
    RESET_BEFORE,
    Arrays,
    Layer,
    Parameters,
    check_mapping,
    open_arrays,
    reorder_gates,
)

# Positions of torch's gates: Keras has i, f, c, o and z, r, h.
GATES = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "SimpleRNN": (0,)}


def from_keras(
    parameters: Parameters, cell: str, *, layer: int = 0, reverse: bool = False
) -> Arrays:
    """Convert the parameters of a Keras 3 layer or cell to torch's names.

    Args:
        parameters: `{w.name: w.numpy() for w in layer.weights}`: `kernel (features, gates *
            hidden)`, `recurrent_kernel (hidden, gates * hidden)` and, where the layer has one,
            `bias (gates * hidden,)`, of a GRU `(2, 3 * hidden)`.
        cell: "LSTM", "GRU" or "SimpleRNN"; a GRU with `reset_after=True`, the default.
        layer: the layer that they become in a stack.
        reverse: whether they become its backward direction.

    Returns:
        `weight_ih_l0 (gates * hidden, features)`, `weight_hh_l0` and, where the layer has a bias,
        `bias_ih_l0` and `bias_hh_l0`, in the dtype given, bfloat16 as float32.

    Raises:
        ConversionError: names or shapes that the layer has not; or the bias of a GRU with
            `reset_after=False`, which torch has not. Without a bias it looks like any other.
        OptionError: an unknown cell.
        ArgumentError: parameters that are no mapping.

    Example:
        >>> gru = {"kernel": np.array([[1.0, 2.0, 3.0]]), "recurrent_kernel": np.ones((1, 3))}
        >>> from_keras(gru, "GRU")["weight_ih_l0"].ravel()  # z, r, h became r, z, n
        array([2., 1., 3.])

    Source: keras.src.layers.rnn of Keras 3.
    """
    order = GATES[as_choice("from_keras", "cell", cell, tuple(GATES))]
    check_mapping("from_keras", parameters)
    biased = "bias" in parameters
    names = ("kernel", "recurrent_kernel", *(("bias",) if biased else ()))
    arrays = open_arrays("from_keras", {"": parameters}, {"": names})[""]
    weight_ih, weight_hh = (reorder_gates(arrays[name].T, order) for name in names[:2])
    zeros = np.zeros(len(weight_ih), weight_ih.dtype)
    bias = arrays.get("bias", zeros)
    if cell == "GRU" and biased:
        if bias.ndim == 1:
            got, expected = "of a GRU with reset_after=False", "one with reset_after=True"
            raise ConversionError.of("from_keras", "parameters", got, expected, RESET_BEFORE)
        if bias.shape[:1] != (2,):
            got, expected = f"with a bias of shape {bias.shape}", "(2, 3 * hidden), of x and of h"
            remedy = "Take it from the layer's weights."
            raise ConversionError.of("from_keras", "parameters", got, expected, remedy)
        bias_ih, bias_hh = (reorder_gates(row, order) for row in bias)
    else:
        bias_ih, bias_hh = bias, zeros
    result = Layer(weight_ih, weight_hh, bias_ih, bias_hh)
    return result.to_torch("from_keras", len(order), layer, reverse, biased=biased)


def to_keras(parameters: Parameters, cell: str, *, layer: int = 0, reverse: bool = False) -> Arrays:
    """Convert a layer to the parameters of a Keras 3 layer or cell; see `from_keras`.

    Args:
        parameters: of a stack, by torch's names.
        cell: as in `from_keras`.
        layer: which layer of the stack.
        reverse: whether its backward direction.

    Returns:
        `kernel`, `recurrent_kernel` and, if the layer has biases, `bias`, in the order that
        `keras_layer.set_weights(list(parameters.values()))` takes.

    Raises:
        ConversionError: there is no such layer, or it has not the cell's number of gates; or a
            projection.
        OptionError: an unknown cell.
        ArgumentError: parameters that are no mapping.

    Example:
        >>> stack = {"weight_ih_l0": np.ones((3, 2)), "weight_hh_l0": np.eye(3)}
        >>> list(to_keras(stack, "SimpleRNN"))
        ['kernel', 'recurrent_kernel']
    """
    order = GATES[as_choice("to_keras", "cell", cell, tuple(GATES))]
    source, biased = Layer.from_torch("to_keras", parameters, len(order), layer, reverse)
    source = Layer(*(reorder_gates(array, order) for array in source))
    result = {
        "kernel": np.ascontiguousarray(source.weight_ih.T),
        "recurrent_kernel": np.ascontiguousarray(source.weight_hh.T),
    }
    if biased:
        biases = source.bias_ih, source.bias_hh
        result["bias"] = np.stack(biases) if cell == "GRU" else source.bias_ih + source.bias_hh
    return result
