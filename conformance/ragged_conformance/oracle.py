"""The oracle: `ragged`'s equations in NumPy float64, one row and one step at a time.

It shares no code with `ragged` and never pads: a row is cut to its length first. Everything in it
is analytic in its inputs, so that `gradient` can take derivatives by the complex step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]
State = tuple[np.ndarray, np.ndarray]
Step = tuple[np.ndarray, ...]  # the state of one row after a step: h, and c of an LSTM
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
            shifted = array.astype(complex)
            shifted[index] += 1j * step
            result[name][index] = np.imag(function(**{**arrays, name: shifted})) / step
    return result


def slopes(
    function: Callable[..., Any], arrays: Arrays, directions: Arrays
) -> dict[str, np.ndarray]:
    """Differentiate `function(**arrays)` along one direction of each array, by the complex step.

    It replaces `gradient` where there are too many elements: each gradient's product with its
    direction must equal this.
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
    spacing = 1e-2

    def slope(offset: int) -> float:
        shifted = {n: a + (offset * spacing + 1e-30j) * directions[n] for n, a in arrays.items()}
        return float(np.imag(function(**shifted)) / 1e-30)

    weights = {1: 45, 2: -9, 3: 1}
    return sum(w * (slope(k) - slope(-k)) for k, w in weights.items()) / (60 * spacing)


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
    """Reverse every row's valid part where it stands."""
    out = np.zeros_like(x)
    for row, length in enumerate(lengths):
        out[row] = pad(valid_part(x[row], length, alignment)[::-1], x.shape[1], alignment)
    return out


def should_use_packing(lengths: Ints) -> bool:
    """Apply the documented rule in exact fractions."""
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
    """Concatenate the steps of all rows with any, step by step, longest row first."""
    rows = [(row, length) for row, length in zip(x, lengths, strict=True) if length]
    order = sorted(range(len(rows)), key=lambda i: -rows[i][1])  # stable: ties keep their order
    data, sizes = [], []
    for step in range(max([length for _, length in rows], default=0)):
        active = [rows[i][0][step] for i in order if rows[i][1] > step]
        data += active
        sizes.append(len(active))
    return Packed(
        np.array(data, x.dtype).reshape(-1, *x.shape[2:]),
        np.array(sizes, int),
        np.array(order, int),
        np.array([order.index(i) for i in range(len(order))], int),
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def lstm_step(w: Arrays, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> Step:
    """Advance an LSTM by one step."""
    of_x = w["weight_ih"] @ x + w.get("bias_ih", 0.0)
    of_h = w["weight_hh"] @ h + w.get("bias_hh", 0.0)
    i, f, g, o = (of_x + of_h).reshape(4, -1)  # np.split takes ten times as long
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (w["weight_hr"] @ h if "weight_hr" in w else h), c


def gru_step(w: Arrays, x: np.ndarray, h: np.ndarray) -> Step:
    """Advance a GRU by one step; r acts on the whole product with h, its bias too."""
    x_r, x_z, x_n = (w["weight_ih"] @ x + w.get("bias_ih", 0.0)).reshape(3, -1)
    h_r, h_z, h_n = (w["weight_hh"] @ h + w.get("bias_hh", 0.0)).reshape(3, -1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h,)


def rnn_tanh_step(w: Arrays, x: np.ndarray, h: np.ndarray) -> Step:
    """Advance a plain recurrent layer by one step."""
    of_x = w["weight_ih"] @ x + w.get("bias_ih", 0.0)
    return (np.tanh(of_x + w["weight_hh"] @ h + w.get("bias_hh", 0.0)),)


def rnn_relu_step(w: Arrays, x: np.ndarray, h: np.ndarray) -> Step:
    """Advance a plain recurrent layer with relu; where that has a kink its slope is 0."""
    of_x = w["weight_ih"] @ x + w.get("bias_ih", 0.0)
    total = of_x + w["weight_hh"] @ h + w.get("bias_hh", 0.0)
    return (np.where(total.real <= 0, 0.0, total),)  # NaN stays NaN


CELLS: dict[str, tuple[Callable[..., Step], int]] = {  # a step, and the number of gates
    "LSTM": (lstm_step, 4),
    "GRU": (gru_step, 3),
    "RNN_TANH": (rnn_tanh_step, 1),
    "RNN_RELU": (rnn_relu_step, 1),
}


def run_direction(
    advance: Callable[..., Step], parameters: Arrays, suffix: str, x: np.ndarray, state: Step
) -> tuple[np.ndarray, Step]:
    """Run one layer in one direction over one unpadded row."""
    weights = {n.removesuffix(suffix): v for n, v in parameters.items() if n.endswith(suffix)}
    y = [np.zeros((0, len(state[0])), np.result_type(weights["weight_ih"], x))]
    for step in x:
        state = advance(weights, step, *state)
        y.append(state[0][None])
    return np.concatenate(y), state


def run_row(
    advance: Callable[..., Step], parameters: Arrays, x: np.ndarray, start: Step
) -> tuple[np.ndarray, list[Step]]:
    """Run all layers and directions over one unpadded row; states have a row for each."""
    directions = ["", "_reverse"] if "weight_ih_l0_reverse" in parameters else [""]
    finals: list[Step] = []
    for layer in range(len(start[0]) // len(directions)):
        ys = []
        for direction in directions:
            back = slice(None, None, -1 if direction else 1)
            state = tuple(part[len(finals)] for part in start)
            suffix = f"_l{layer}{direction}"
            y, state = run_direction(advance, parameters, suffix, x[back], state)
            ys.append(y[back])
            finals.append(state)
        x = np.concatenate(ys, axis=-1)
    return x, finals


def recurrent(
    mode: str, parameters: Arrays, x: np.ndarray, lengths: Ints, state: Any = None
) -> tuple[np.ndarray, Any]:
    """Run a recurrent layer over a left-aligned batch, each row alone.

    `mode` is torch's. The state is the pair (h, c) of an LSTM, and h alone of the others.
    """
    advance, gates = CELLS[mode]
    count = sum(name.startswith("weight_ih") for name in parameters)
    hidden, output = len(parameters["weight_ih_l0"]) // gates, parameters["weight_hh_l0"].shape[1]
    sizes = (output, hidden) if mode == "LSTM" else (output,)
    start = state if isinstance(state, tuple) else (state,)
    if state is None:
        start = tuple(np.zeros((count, len(x), size)) for size in sizes)
    width = output * (2 if "weight_ih_l0_reverse" in parameters else 1)
    dtype = np.result_type(x, *start, *parameters.values())
    y = np.zeros((len(x), x.shape[1], width), dtype)
    final = tuple(part.astype(dtype) for part in start)
    for row, length in enumerate(lengths):
        begin = tuple(part[:, row] for part in start)
        y[row, :length], ends = run_row(advance, parameters, x[row, :length], begin)
        for part, values in zip(final, zip(*ends, strict=True), strict=True):
            part[:, row] = values
    return y, final if len(final) > 1 else final[0]


def lstm(
    parameters: Arrays, x: np.ndarray, lengths: Ints, state: State | None = None
) -> tuple[np.ndarray, State]:
    """Run an LSTM."""
    return recurrent("LSTM", parameters, x, lengths, state)


def gru(
    parameters: Arrays, x: np.ndarray, lengths: Ints, h: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Run a GRU."""
    return recurrent("GRU", parameters, x, lengths, h)


def rnn(
    parameters: Arrays,
    x: np.ndarray,
    lengths: Ints,
    h: np.ndarray | None = None,
    *,
    nonlinearity: str = "tanh",
) -> tuple[np.ndarray, np.ndarray]:
    """Run a plain recurrent layer."""
    return recurrent(f"RNN_{nonlinearity.upper()}", parameters, x, lengths, h)


def linear(parameters: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """Apply the named weight and bias to the last axis."""
    return x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]


def inside(parameters: Arrays, module: str) -> dict[str, np.ndarray]:
    """The parameters of a submodule, without its prefix."""
    return {name: parameters[full] for full, name in _names_inside(tuple(parameters), module)}


@functools.cache  # a model's derivatives take hundreds of thousands of calls
def _names_inside(names: tuple[str, ...], module: str) -> list[tuple[str, str]]:
    """The names of a submodule's parameters, and without its prefix."""
    prefix = module + "."
    return [(name, name.removeprefix(prefix)) for name in names if name.startswith(prefix)]


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
