"""A third party's backend: NumPy alone, inference only, without modules or training."""

from __future__ import annotations

import os
from typing import NamedTuple

import array_api_compat.numpy as xp
import numpy as np

from ragged.backend import load_backend
from ragged.checks import dtype_error
from ragged.ops import packing
from ragged.ops.alignment import flip, zero_padding
from ragged.recurrent.call import stack_layers

OFF_BY = int(os.environ.get("NUMPY_BACKEND_OFF_BY", "0"))  # a fault to plant, for the tests
name = "numpy"
framework = "numpy"

__all__ = [
    "arange_like",
    "asarray",
    "devices",
    "framework",
    "gather_steps",
    "has_values",
    "is_compiling",
    "is_traced",
    "name",
    "owns",
    "promote_arrays",
    "run_recurrent",
    "xp",
]


class PackedSequence(NamedTuple):
    data: np.ndarray
    batch_sizes: np.ndarray
    sorted_indices: np.ndarray
    unsorted_indices: np.ndarray


def owns(value):
    return isinstance(value, np.ndarray | np.generic)


def is_traced(array):
    return False


def has_values(array):
    return True


def is_compiling():
    return False


def asarray(array, *, dtype=None, like=None):
    return np.asarray(array, dtype)


def to_numpy(array):
    return np.array(array)


def arange_like(width, *, like=None):
    return np.arange(width)


def gather_steps(x, index):
    return x[np.arange(len(x))[:, None], index]


def promote_arrays(function, arrays):
    for argument, array in arrays.items():
        if array.dtype.kind != "f":
            raise dtype_error(function, argument, array.dtype)
    dtype = np.result_type(*arrays.values())
    return {argument: array.astype(dtype) for argument, array in arrays.items()}


def devices():
    return ("cpu",)


def pack_sequences(x, lengths):
    return PackedSequence(*packing.packed_fields(x, lengths))


def unpack_to_fixed_length(packed, lengths, max_length):
    return packing.unpack(load_backend(name), packed, lengths, max_length)


def run_recurrent(shape, parameters, x, lengths, state, between_layers):
    state = state or tuple(np.zeros(size, x.dtype) for size in shape.state_shapes(len(x)))
    backend = load_backend(name)

    def run_layer(weights, x, state):
        x = zero_padding(backend, x, lengths)
        ys, finals = [], []
        for direction, own in enumerate(weights):
            steps = flip(backend, x, lengths) if direction else x
            start = tuple(part[direction] for part in state)
            y, final = run_direction(STEPS[shape.mode], own, steps, lengths.host, start)
            y = zero_padding(backend, y, lengths)
            ys.append(flip(backend, y, lengths) if direction else y)
            finals.append(final)
        return np.concatenate(ys, -1), tuple(map(np.stack, zip(*finals, strict=True)))

    return stack_layers(run_layer, shape, parameters, x, state, np.concatenate, between_layers)


def run_direction(advance, weights, x, lengths, state):
    y = np.zeros((*x.shape[:2], state[0].shape[1]), x.dtype)
    for step in range(x.shape[1]):
        of_x = x[:, step] @ weights["weight_ih"].T + weights.get("bias_ih", 0.0)
        of_h = state[0] @ weights["weight_hh"].T + weights.get("bias_hh", 0.0)
        new = advance(weights, of_x, of_h, *state)
        valid = (step < lengths + OFF_BY)[:, None]
        state = tuple(np.where(valid, a, b) for a, b in zip(new, state, strict=True))
        y[:, step] = new[0]
    return y, state


def lstm(weights, of_x, of_h, h, c):
    i, f, g, o = np.split(of_x + of_h, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h @ weights["weight_hr"].T if "weight_hr" in weights else h), c


def gru(weights, of_x, of_h, h):
    (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(of_x, 3, axis=-1), np.split(of_h, 3, axis=-1)
    z = sigmoid(x_z + h_z)
    return ((1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * h,)


def rnn_tanh(weights, of_x, of_h, h):
    return (np.tanh(of_x + of_h),)


def rnn_relu(weights, of_x, of_h, h):
    return (np.maximum(of_x + of_h, 0),)


STEPS = {"LSTM": lstm, "GRU": gru, "RNN_TANH": rnn_tanh, "RNN_RELU": rnn_relu}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
