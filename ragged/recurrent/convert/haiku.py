"""haiku: linear layers of x and h; its LSTM adds 1 to f at run time, its GRU is not torch's.

The layout is that of haiku's published source.
"""

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

CELLS = ("LSTM", "VanillaRNN")
GATES = (0, 2, 1, 3)  # positions of torch's gates: haiku has i, g, f, o


def from_haiku(
    parameters: Parameters, cell: str, *, layer: int = 0, reverse: bool = False
) -> Arrays:
    """Convert the parameters of a haiku core to torch's names.

    Args:
        parameters: by the names below the core's own. Of an LSTM `{"linear": {"w": (features +
            hidden, 4 * hidden), "b": (4 * hidden,)}}`; of a VanillaRNN `linear` of x and
            `linear_1` of h, the latter with "b" or without.
        cell: "LSTM" or "VanillaRNN".
        layer: the layer that they become in a stack.
        reverse: whether they become its backward direction.

    Returns:
        `weight_ih_l0 (gates * hidden, features)`, `weight_hh_l0`, `bias_ih_l0` and `bias_hh_l0`,
        in the dtype given, bfloat16 as float32. An LSTM's `bias_hh_l0` is 0, and 1 for f.

    Raises:
        ConversionError: names or shapes that the core has not; or a GRU, where haiku multiplies h
            by `r` before the product with the weights and torch after it.
        OptionError: an unknown cell.
        ArgumentError: parameters that are no mapping.

    Example:
        >>> linear = {"w": np.zeros((3, 4)), "b": np.zeros(4)}
        >>> from_haiku({"linear": linear}, "LSTM")["bias_hh_l0"]
        array([0., 1., 0., 0.])

    Source: haiku._src.recurrent of dm-haiku.
    """
    _check_cell("from_haiku", cell)
    check_mapping("from_haiku", parameters)
    if cell == "VanillaRNN":
        biased = "b" in parameters.get("linear_1", ())
        names = {"linear": ("w", "b"), "linear_1": ("w", "b") if biased else ("w",)}
        x, h = open_arrays("from_haiku", parameters, names).values()
        result = Layer(x["w"].T, h["w"].T, x["b"], h.get("b", np.zeros_like(x["b"])))
        return result.to_torch("from_haiku", 1, layer, reverse)
    linear = open_arrays("from_haiku", parameters, {"linear": ("w", "b")})["linear"]
    weight, bias = (reorder_gates(linear[name].T, GATES) for name in ("w", "b"))
    features = max(weight.shape[-1] - len(weight) // 4, 0)
    result = Layer(weight[..., :features], weight[..., features:], bias, _one_for_f(bias))
    return result.to_torch("from_haiku", 4, layer, reverse)


def to_haiku(
    parameters: Parameters, cell: str, *, layer: int = 0, reverse: bool = False
) -> dict[str, Arrays]:
    """Convert a layer to the parameters of a haiku core; see `from_haiku`.

    Args:
        parameters: of a stack, by torch's names.
        cell: as in `from_haiku`.
        layer: which layer of the stack.
        reverse: whether its backward direction.

    Returns:
        Weights and biases by the names below the core's own.

    Raises:
        ConversionError: there is no such layer, or it has not the core's number of gates; a
            projection; or a GRU.
        OptionError: an unknown cell.
        ArgumentError: parameters that are no mapping.

    Example:
        >>> stack = {"weight_ih_l0": np.ones((4, 2)), "weight_hh_l0": np.ones((4, 1))}
        >>> to_haiku(stack, "LSTM")["linear"]["b"]  # i, g, f, o; haiku adds 1 to f
        array([ 0.,  0., -1.,  0.])
    """
    _check_cell("to_haiku", cell)
    gates = 4 if cell == "LSTM" else 1
    source, _ = Layer.from_torch("to_haiku", parameters, gates, layer, reverse)
    if cell == "VanillaRNN":
        x, h = (np.ascontiguousarray(weight.T) for weight in source[:2])
        return {
            "linear": {"w": x, "b": source.bias_ih.copy()},
            "linear_1": {"w": h, "b": source.bias_hh.copy()},
        }
    weight = reorder_gates(np.concatenate([source.weight_ih, source.weight_hh], axis=1), GATES)
    bias = source.bias_ih + (source.bias_hh - _one_for_f(source.bias_hh))  # 1 - 1 is exact
    return {"linear": {"w": np.ascontiguousarray(weight.T), "b": reorder_gates(bias, GATES)}}


def _check_cell(function: str, cell: str) -> None:
    if cell == "GRU":
        got, expected = "'GRU', which is not torch's", f"one of {CELLS}"
        raise ConversionError.of(function, "cell", got, expected, RESET_BEFORE)
    as_choice(function, "cell", cell, CELLS)


def _one_for_f(bias: np.ndarray) -> np.ndarray:
    """Return the bias that haiku adds at run time, in torch's order."""
    return np.repeat(np.array([0, 1, 0, 0], bias.dtype), len(bias) // 4)
