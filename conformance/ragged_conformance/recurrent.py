"""The recurrent layers as the suite runs them: one interface, whatever their cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.cases import HIDDEN, INPUTS, LSTM_OPTIONS, normal

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}  # by torch's mode
NONLINEARITY = {"RNN_TANH": "tanh", "RNN_RELU": "relu"}


class Layer(NamedTuple):
    """A recurrent layer of INPUTS and HIDDEN features.

    Args:
        mode: of its cell, as `torch.nn.RNNBase` has it.
        options: num_layers, bias, bidirectional, proj_size.
    """

    mode: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The public name of its class."""
        return self.mode.partition("_")[0]

    @property
    def variant(self) -> dict[str, str]:
        """The option that selects its cell, where its class has several."""
        return {"nonlinearity": NONLINEARITY[self.mode]} if self.mode in NONLINEARITY else {}

    def build(self, inputs: int = INPUTS, hidden: int = HIDDEN, **options: Any) -> Any:
        """Build the module."""
        return getattr(ragged, self.name)(inputs, hidden, **self.variant, **self.options, **options)

    @property
    def function(self) -> Callable[..., Any]:
        """The function that runs it on a dict of parameters."""
        return partial(getattr(ragged, self.name.lower()), **self.variant)

    @property
    def oracle(self) -> Callable[..., Any]:
        """The equations that give the expected results."""
        return partial(oracle.recurrent, self.mode)

    @property
    def states(self) -> tuple[str, ...]:
        """The states that a step passes to the next."""
        return ("h", "c") if self.mode == "LSTM" else ("h",)

    @property
    def depth(self) -> int:
        """Layers times directions."""
        return self.options.get("num_layers", 1) * (2 if self.options.get("bidirectional") else 1)

    @property
    def output(self) -> int:
        """The features of h."""
        return self.options.get("proj_size", 0) or HIDDEN

    def state(self, batch: int) -> dict[str, np.ndarray]:
        """Draw an initial state: h, and c of an LSTM."""
        sizes = {"h": self.output, "c": HIDDEN}
        return {
            name: normal(self.depth, batch, sizes[name], seed=seed)
            for seed, name in enumerate(self.states, start=1)
        }

    def parameters(self) -> dict[str, np.ndarray]:
        """Draw the parameters, by torch's names."""
        directions = ["", "_reverse"] if self.options.get("bidirectional") else [""]
        height = GATES[self.mode] * HIDDEN
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.options.get("num_layers", 1)):
            inputs = INPUTS if layer == 0 else len(directions) * self.output
            for suffix in (f"_l{layer}{direction}" for direction in directions):
                shapes[f"weight_ih{suffix}"] = height, inputs
                shapes[f"weight_hh{suffix}"] = height, self.output
                if self.options.get("bias", True):
                    shapes |= {f"bias_ih{suffix}": (height,), f"bias_hh{suffix}": (height,)}
                if self.options.get("proj_size"):
                    shapes[f"weight_hr{suffix}"] = self.output, HIDDEN
        return {
            name: 0.5 * normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())
        }


def as_state(parts: Iterable[Any]) -> Any:
    """Return h, or (h, c), as a layer takes them."""
    parts = tuple(parts)
    return parts if len(parts) > 1 else parts[0]


def arrays_of(result: Any) -> tuple[Any, ...]:
    """Flatten what a layer returns: y, h, and c of an LSTM."""
    y, state = result
    return (y, *state) if isinstance(state, tuple) else (y, state)


def named(result: Any) -> dict[str, Any]:
    """Name what a layer returns."""
    return dict(zip("yhc", arrays_of(result), strict=False))


def weighted_sum(result: Any, weights: Iterable[Any]) -> Any:
    """Reduce outputs and states to a scalar in which every element has its own weight."""
    pairs = zip(arrays_of(result), weights, strict=True)
    return sum((array * weight).sum() for array, weight in pairs)


# The LSTM has every option; the others are tested with what is particular to their cells.
BOTH = {"num_layers": 2, "bidirectional": True}
LAYERS: dict[str, Layer] = {
    **{f"LSTM, {name}": Layer("LSTM", options) for name, options in LSTM_OPTIONS.items()},
    "GRU, one layer": Layer("GRU", {}),
    "GRU, no bias": Layer("GRU", {"bias": False}),
    "GRU, two layers, bidirectional": Layer("GRU", BOTH),
    "RNN_TANH, one layer": Layer("RNN_TANH", {}),
    "RNN_TANH, two layers, bidirectional": Layer("RNN_TANH", BOTH),
    "RNN_RELU, one layer": Layer("RNN_RELU", {}),
    "RNN_RELU, no bias, bidirectional": Layer("RNN_RELU", {"bias": False, "bidirectional": True}),
}
MODES = {mode: Layer(mode, {}) for mode in GATES}


def marked(layers: Mapping[str, Layer], *, module: bool = True, function: bool = True) -> list[Any]:
    """Name layers as parameters of a test, each marked with the public names that it proves."""
    return [
        pytest.param(name, marks=pytest.mark.operation(*_proved(layer, module, function)))
        for name, layer in layers.items()
    ]


def _proved(layer: Layer, module: bool, function: bool) -> list[str]:
    return [layer.name] * module + [layer.name.lower()] * function
