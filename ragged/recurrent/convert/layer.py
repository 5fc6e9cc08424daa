"""One layer in one direction: out of a dict by torch's names and into one, and others' arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ragged.checks import as_flag, as_host, as_size
from ragged.errors import ConversionError

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
        """Refuse shapes that no layer of as many gates has."""
        rows = len(self.weight_ih)
        wanted = (rows, rows // gates), (rows,), (rows,)
        fits = self.weight_ih.ndim == 2 and rows and rows % gates == 0 and self.weight_ih.size
        if not fits or tuple(each.shape for each in self[1:]) != wanted:
            shapes = ", ".join(f"{name} {each.shape}" for name, each in self._asdict().items())
            expected = f"weights of {gates} * hidden rows, beside features and hidden columns"
            remedy = "Name the cell that they belong to."
            got = f"of shapes that make {shapes}"
            raise ConversionError.of(function, "parameters", got, expected, remedy)

    def named(
        self, function: str, gates: int, layer: int, reverse: bool, *, biased: bool = True
    ) -> Arrays:
        """Give the checked parameters torch's names, without the biases unless `biased`."""
        suffix = _suffix(function, layer, reverse)
        self.check(function, gates)
        names = self._fields if biased else self._fields[:2]
        return {name + suffix: np.ascontiguousarray(getattr(self, name)) for name in names}

    @classmethod
    def taken(
        cls, function: str, parameters: Parameters, gates: int, layer: int, reverse: bool
    ) -> tuple[Layer, bool]:
        """Take a layer out of a stack, and say whether it has biases; those it lacks are 0."""
        suffix = _suffix(function, layer, reverse)
        if f"weight_hr{suffix}" in parameters:
            got, expected = f"with weight_hr{suffix}, a projection", "a layer without one"
            remedy = "No cell of this library projects its h."
            raise ConversionError.of(function, "parameters", got, expected, remedy)
        found = [name for name in cls._fields if name + suffix in parameters]
        if found not in (list(cls._fields), list(cls._fields[:2])):
            got = f"named {sorted(map(str, parameters))}"
            expected = f"weight_ih{suffix} and weight_hh{suffix}, and both biases or none"
            remedy = "Name a layer and a direction of the stack."
            raise ConversionError.of(function, "parameters", got, expected, remedy)
        own = [as_host(function, n + suffix, parameters[n + suffix]) for n in found]
        if len(own) == 2:
            own += [np.zeros(own[0].shape[:1], own[0].dtype)] * 2
        taken = cls(*own)
        taken.check(function, gates)
        return taken, len(found) == 4


def open_arrays(
    function: str, parameters: Parameters, names: Mapping[str, Sequence[str]]
) -> dict[str, Arrays]:
    """Read a library's arrays by part and name; there must be these names and no others."""
    found = {
        str(part): sorted(map(str, own)) if isinstance(own, Mapping) else str(type(own).__name__)
        for part, own in parameters.items()
    }
    wanted = {part: sorted(own) for part, own in names.items()}
    if found != wanted:
        remedy = "Name the cell that they belong to, and give all that is its own."
        got, expected = f"named {_listed(found)}", _listed(wanted)
        raise ConversionError.of(function, "parameters", got, expected, remedy)
    return {
        part: {name: as_host(function, name, parameters[part][name]) for name in own}
        for part, own in names.items()
    }


def stacked(function: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Put the gates' rows below each other; they must be of one shape."""
    if len({array.shape for array in arrays}) > 1:
        got = f"of shapes {', '.join(str(array.shape) for array in arrays)}, gate by gate"
        remedy = "Take all of them from one cell."
        raise ConversionError.of(function, "parameters", got, "one shape for all gates", remedy)
    return np.concatenate(arrays)


def ordered(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Put the gates' blocks of rows into another order; each order here is its own inverse."""
    if len(array) % len(order):
        return array  # which the check refuses
    blocks = np.split(array, len(order))
    return np.concatenate([blocks[k] for k in order])


def _listed(names: Mapping[str, Any]) -> str:
    parts = [f"{part}: {own}" if part else str(own) for part, own in sorted(names.items())]
    return "; ".join(parts) or "nothing"


def _suffix(function: str, layer: int, reverse: bool) -> str:
    backward = "_reverse" if as_flag(function, "reverse", reverse) else ""
    return f"_l{as_size(function, 'layer', layer)}{backward}"
