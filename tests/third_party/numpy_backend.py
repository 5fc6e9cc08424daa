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
from ragged.recurrent.lstm import LSTMShape, stack_layers

OFF_BY = int(os.environ.get("NUMPY_BACKEND_OFF_BY", "0"))  # a fault to plant, for the tests
name = "numpy"
framework = "numpy"

__all__ = [
    "arange_like",
    "asarray",
    "devices",
    "framework",
    "gather_steps",
    "is_compiling",
    "is_traced",
    "lstm",
    "name",
    "owns",
    "promote_arrays",
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


def lstm(parameters, x, lengths, state, between_layers):
    shapes = LSTMShape.of(parameters).state_shapes(len(x))
    state = state or tuple(np.zeros(shape, x.dtype) for shape in shapes)
    backend = load_backend(name)

    def run_layer(weights, x, state):
        x = zero_padding(backend, x, lengths)
        ys, hs, cs = [], [], []
        for direction, own in enumerate(weights):
            steps = flip(backend, x, lengths) if direction else x
            h, c = state[0][direction], state[1][direction]
            y, h, c = run_direction(own, steps, lengths.host, h, c)
            y = zero_padding(backend, y, lengths)
            ys.append(flip(backend, y, lengths) if direction else y)
            hs.append(h)
            cs.append(c)
        return np.concatenate(ys, -1), (np.stack(hs), np.stack(cs))

    return stack_layers(run_layer, parameters, x, state, np.concatenate, between_layers)


def run_direction(weights, x, lengths, h, c):
    y = np.zeros((*x.shape[:2], h.shape[1]), x.dtype)
    bias = weights["bias_ih"] + weights["bias_hh"] if "bias_ih" in weights else 0.0
    for step in range(x.shape[1]):
        gates = x[:, step] @ weights["weight_ih"].T + h @ weights["weight_hh"].T + bias
        i, f, g, o = np.split(gates, 4, axis=-1)
        new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        new_h = sigmoid(o) * np.tanh(new_c)
        if "weight_hr" in weights:
            new_h = new_h @ weights["weight_hr"].T
        valid = (step < lengths + OFF_BY)[:, None]
        h, c = np.where(valid, new_h, h), np.where(valid, new_c, c)
        y[:, step] = new_h
    return y, h, c


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
