"""The parameters of one layer in one direction, and their conversion from and to torch's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ragged.backend import to_host
from ragged.checks import as_flag, as_host, as_size, shown
from ragged.errors import ArgumentError, ConversionError

Parameters = Mapping[str, Any]
Arrays = dict[str, np.ndarray]
RESET_BEFORE = (
    "There r multiplies h before the product with the recurrent weights, in torch after it: no "
    "weights of one give the outputs of the other."
)


class Layer(NamedTuple):
    """The parameters of one layer in one direction, as torch lays them out."""

    weight_ih: np.ndarray
    weight_hh: np.ndarray
    bias_ih: np.ndarray
    bias_hh: np.ndarray

    def check(self, function: str, gates: int) -> None:
        """Refuse shapes that are not those of a layer with this number of gates."""
        rows = len(self.weight_ih)
        expected_shapes = (rows, rows // gates), (rows,), (rows,)
        fits = self.weight_ih.ndim == 2 and rows and rows % gates == 0 and self.weight_ih.size
        if not fits or tuple(array.shape for array in self[1:]) != expected_shapes:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in self._asdict().items())
            expected = f"weights of {gates} * hidden rows, beside features and hidden columns"
            remedy = "Name the cell that they belong to."
            got = f"of shapes that make {shapes}"
            raise ConversionError.of(function, "parameters", got, expected, remedy)

    def to_torch(
        self, function: str, gates: int, layer: int, reverse: bool, *, biased: bool = True
    ) -> Arrays:
        """Return the checked parameters by torch's names, with the biases if `biased`."""
        suffix = _suffix(function, layer, reverse)
        self.check(function, gates)
        names = self._fields if biased else self._fields[:2]
        return {name + suffix: np.ascontiguousarray(getattr(self, name)) for name in names}

    @classmethod
    def from_torch(
        cls, function: str, parameters: Parameters, gates: int, layer: int, reverse: bool
    ) -> tuple[Layer, bool]:
        """Select a layer of a stack, and return whether it has biases; missing ones are 0."""
        check_mapping(function, parameters)
        suffix = _suffix(function, layer, reverse)
        if f"weight_hr{suffix}" in parameters:
            got, expected = f"with weight_hr{suffix}, a projection", "a layer without one"
            remedy = "No cell of this library projects its h."
            raise ConversionError.of(function, "parameters", got, expected, remedy)
        names = [name for name in cls._fields if name + suffix in parameters]
        if names not in (list(cls._fields), list(cls._fields[:2])):
            got = f"named {sorted(map(str, parameters))}"
            expected = f"weight_ih{suffix} and weight_hh{suffix}, and both biases or none"
            remedy = "Name a layer and a direction of the stack."
            raise ConversionError.of(function, "parameters", got, expected, remedy)
        arrays = [_read(function, name + suffix, parameters[name + suffix]) for name in names]
        if len(arrays) == 2:
            arrays += [np.zeros(arrays[0].shape[:1], arrays[0].dtype)] * 2
        result = cls(*arrays)
        result.check(function, gates)
        return result, len(names) == 4


def check_mapping(function: str, parameters: object) -> None:
    """Refuse parameters without names, such as a list of a library's weights."""
    if not isinstance(parameters, Mapping):
        expected, remedy = "a mapping of names to arrays", "Name each, as its library does."
        raise ArgumentError.of(function, "parameters", shown(parameters), expected, remedy)


def open_arrays(
    function: str, parameters: Parameters, names: Mapping[str, Sequence[str]]
) -> dict[str, Arrays]:
    """Read a library's arrays by part and name; other names, or missing ones, are refused."""
    actual = {
        str(part): sorted(map(str, keys)) if isinstance(keys, Mapping) else str(type(keys).__name__)
        for part, keys in parameters.items()
    }
    expected_names = {part: sorted(keys) for part, keys in names.items()}
    if actual != expected_names:
        remedy = "Name the cell that they belong to, and give all that is its own."
        got, expected = f"named {_format_names(actual)}", _format_names(expected_names)
        raise ConversionError.of(function, "parameters", got, expected, remedy)
    return {
        part: {name: _read(function, name, parameters[part][name]) for name in keys}
        for part, keys in names.items()
    }


def stack_gates(function: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate the rows of the gates, which must have one shape."""
    if len({array.shape for array in arrays}) > 1:
        got = f"of shapes {', '.join(str(array.shape) for array in arrays)}, gate by gate"
        remedy = "Take all of them from one cell."
        raise ConversionError.of(function, "parameters", got, "one shape for all gates", remedy)
    return np.concatenate(arrays)


def reorder_gates(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Reorder the gates' blocks of rows; each order here is its own inverse."""
    if len(array) % len(order):
        return array  # `Layer.check` refuses it
    blocks = np.split(array, len(order))
    return np.concatenate([blocks[k] for k in order])


def _read(function: str, name: str, value: object) -> np.ndarray:
    """Read an array of any framework, a parameter that requires a gradient too."""
    return as_host(function, name, to_host(value))


def _format_names(names: Mapping[str, Any]) -> str:
    parts = [f"{part}: {keys}" if part else str(keys) for part, keys in sorted(names.items())]
    return "; ".join(parts) or "nothing"


def _suffix(function: str, layer: int, reverse: bool) -> str:
    backward = "_reverse" if as_flag(function, "reverse", reverse) else ""
    return f"_l{as_size(function, 'layer', layer)}{backward}"
