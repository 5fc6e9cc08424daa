"""The oracle: `ragged`'s equations in NumPy float64, one row and one step at a time.

It shares no code with `ragged` and never pads: a row is cut to its length first. Everything in it
is analytic in its inputs, so that `gradient` can take derivatives by the complex step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]
State = tuple[np.ndarray, np.ndarray]
Ints = Sequence[int] | np.ndarray


def gradient(function: Callable[..., Any], arrays: Arrays) -> dict[str, np.ndarray]:
    """Differentiate `function(**arrays)`, a scalar, by every element of every array.

    The complex step f'(a) = Im f(a + ih) / h subtracts nothing, so it is exact to rounding, where
    a central difference would stop at 1e-6 or so.
    """
    step = 1e-30
    result = {}
    for name, array in arrays.items():
        result[name] = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            moved = array.astype(complex)
            moved[index] += 1j * step
            result[name][index] = np.imag(function(**{**arrays, name: moved})) / step
    return result


def slopes(
    function: Callable[..., Any], arrays: Arrays, directions: Arrays
) -> dict[str, np.ndarray]:
    """Differentiate `function(**arrays)` along one direction of each array, by the complex step.

    Where arrays are too many for `gradient`, this is what their gradients' products with a
    direction each have to be.
    """
    step = 1e-30
    return {
        name: np.imag(function(**{**arrays, name: array + 1j * step * directions[name]})) / step
        for name, array in arrays.items()
    }


def curvature(function: Callable[..., Any], arrays: Arrays, directions: Arrays) -> float:
    """Differentiate `function(**arrays)`, a scalar, twice along one direction of all arrays.

    A difference of sixth order of the complex step's slope: over unit directions it is right to
    about 1e-13.
    """
    reach = 1e-2

    def slope(place: int) -> float:
        moved = {n: a + (place * reach + 1e-30j) * directions[n] for n, a in arrays.items()}
        return float(np.imag(function(**moved)) / 1e-30)

    weights = {1: 45, 2: -9, 3: 1}
    return sum(w * (slope(k) - slope(-k)) for k, w in weights.items()) / (60 * reach)


def padding_mask(lengths: Ints, width: int, alignment: str = "left") -> np.ndarray:
    """Mark the valid steps, True = valid."""
    mask = np.zeros((len(lengths), width), bool)
    for row, length in enumerate(lengths):
        for step in range(length):
            mask[row, step if alignment == "left" else width - length + step] = True
    return mask


def valid_part(row: np.ndarray, length: int, alignment: str) -> np.ndarray:
    """Cut a row to its valid steps."""
    return row[:length] if alignment == "left" else row[len(row) - length :]


def pad(row: np.ndarray, width: int, alignment: str) -> np.ndarray:
    """Pad a row with zeros to a width."""
    filler = np.zeros((width - len(row), *row.shape[1:]), row.dtype)
    return np.concatenate([row, filler] if alignment == "left" else [filler, row])


def align(
    x: np.ndarray, lengths: Ints, source: str, target: str, width: int | None = None
) -> np.ndarray:
    """Move every row's valid part from one side to the other."""
    width = x.shape[1] if width is None else width
    out = np.zeros((len(x), width, *x.shape[2:]), x.dtype)
    for row, length in enumerate(lengths):
        out[row] = pad(valid_part(x[row], length, source), width, target)
    return out


def flip(x: np.ndarray, lengths: Ints, alignment: str = "left") -> np.ndarray:
    """Reverse every row's valid part in its place."""
    out = np.zeros_like(x)
    for row, length in enumerate(lengths):
        out[row] = pad(valid_part(x[row], length, alignment)[::-1], x.shape[1], alignment)
    return out


def should_use_packing(lengths: Ints) -> bool:
    """Apply the stated rule in exact fractions."""
    if len(set(lengths)) <= 1:
        return False
    spread = Fraction(max(lengths) - min(lengths), max(lengths))
    return spread > Fraction(1, 10) or len(lengths) >= 8


class Packed(NamedTuple):
    """The fields of torch's PackedSequence."""

    data: np.ndarray
    batch_sizes: np.ndarray
    sorted_indices: np.ndarray
    unsorted_indices: np.ndarray


def pack(x: np.ndarray, lengths: Ints) -> Packed:
    """Lay the steps of the rows that have any end to end, step by step, longest row first."""
    rows = [(row, length) for row, length in zip(x, lengths, strict=True) if length]
    order = sorted(range(len(rows)), key=lambda i: -rows[i][1])  # stable: ties keep their order
    data, sizes = [], []
    for step in range(max([length for _, length in rows], default=0)):
        alive = [rows[i][0][step] for i in order if rows[i][1] > step]
        data += alive
        sizes.append(len(alive))
    return Packed(
        np.array(data, x.dtype).reshape(-1, *x.shape[2:]),
        np.array(sizes, int),
        np.array(order, int),
        np.array([order.index(i) for i in range(len(order))], int),
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def lstm_direction(
    parameters: Arrays, suffix: str, x: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run one layer in one direction over one unpadded row."""
    w_ih, w_hh = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
    b_ih, b_hh = parameters.get("bias_ih" + suffix, 0.0), parameters.get("bias_hh" + suffix, 0.0)
    w_hr = parameters.get("weight_hr" + suffix)
    y = [np.zeros((0, len(h)), np.result_type(w_ih, x))]
    for step in x:
        i, f, g, o = np.split(w_ih @ step + b_ih + w_hh @ h + b_hh, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        h = h if w_hr is None else w_hr @ h
        y.append(h[None])
    return np.concatenate(y), h, c


def lstm_row(
    parameters: Arrays, x: np.ndarray, h0: np.ndarray, c0: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Run all layers and directions over one unpadded row; h0 and c0 have a row for each."""
    directions = ["", "_reverse"] if "weight_ih_l0_reverse" in parameters else [""]
    hs: list[np.ndarray] = []
    cs: list[np.ndarray] = []
    for layer in range(len(h0) // len(directions)):
        ys = []
        for direction in directions:
            back = slice(None, None, -1 if direction else 1)
            k = len(hs)
            y, h, c = lstm_direction(parameters, f"_l{layer}{direction}", x[back], h0[k], c0[k])
            ys.append(y[back])
            hs.append(h)
            cs.append(c)
        x = np.concatenate(ys, axis=-1)
    return x, hs, cs


def lstm(
    parameters: Arrays, x: np.ndarray, lengths: Ints, state: State | None = None
) -> tuple[np.ndarray, State]:
    """Run an LSTM over a left-aligned batch, each row alone."""
    count = sum(name.startswith("weight_ih") for name in parameters)
    hidden, output = len(parameters["weight_ih_l0"]) // 4, parameters["weight_hh_l0"].shape[1]
    zeros = np.zeros((count, len(x), output)), np.zeros((count, len(x), hidden))
    h0, c0 = zeros if state is None else state
    width = output * (2 if "weight_ih_l0_reverse" in parameters else 1)
    dtype = np.result_type(x, h0, c0, *parameters.values())
    y = np.zeros((len(x), x.shape[1], width), dtype)
    h, c = h0.astype(dtype), c0.astype(dtype)
    for row, length in enumerate(lengths):
        out, hs, cs = lstm_row(parameters, x[row, :length], h0[:, row], c0[:, row])
        y[row, :length], h[:, row], c[:, row] = out, hs, cs
    return y, (h, c)


def linear(parameters: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """Apply the named weight and bias to the last axis."""
    return x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]


def inside(parameters: Arrays, module: str) -> dict[str, np.ndarray]:
    """The parameters of a submodule under its own names."""
    prefix = module + "."
    return {n.removeprefix(prefix): v for n, v in parameters.items() if n.startswith(prefix)}


def encoder_decoder_lstm(
    parameters: Arrays,
    past: np.ndarray,
    future: np.ndarray,
    encoder_lengths: Ints,
    decoder_lengths: Ints,
) -> np.ndarray:
    """Run the EncoderDecoderLSTM: encoder, bridge where there is one, decoder, head."""
    _, (h, c) = lstm(inside(parameters, "encoder"), past, encoder_lengths)
    if "bridge_h.weight" in parameters:
        h, c = linear(parameters, "bridge_h", h), linear(parameters, "bridge_c", c)
    d, _ = lstm(inside(parameters, "decoder"), future, decoder_lengths, (h, c))
    if "head.weight" in parameters:
        out = linear(parameters, "head", d)
    else:
        hidden = linear(parameters, "head.hidden", d)
        out = linear(parameters, "head.output", np.where(hidden.real > 0, hidden, 0))
    for row, length in enumerate(decoder_lengths):
        out[row, length:] = 0
    return out
