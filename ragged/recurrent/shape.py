"""The sizes of a recurrent layer, from which its parameters' names and shapes follow.

Names, shapes and the order of the gates are `torch.nn`'s (LSTM i, f, g, o; GRU r, z, n).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from ragged.checks import MAX_PARAMETERS, as_flag, as_size, shown
from ragged.errors import OptionError, ShapeError
from ragged.protocol import Array
from ragged.recurrent.cells import CELLS, Cell


@dataclass(frozen=True)
class RecurrentShape:
    """The sizes of a recurrent layer; `mode` is torch's, a key of `CELLS`."""

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    proj_size: int = 0
    mode: str = "LSTM"

    def __post_init__(self) -> None:
        function = self.cell.name
        for name in ("input_size", "hidden_size", "num_layers", "proj_size"):
            value, minimum = getattr(self, name), 0 if name == "proj_size" else 1
            if type(value) is not int or value < minimum:
                object.__setattr__(self, name, as_size(function, name, value, minimum=minimum))
        for name in ("bias", "bidirectional"):
            if type(getattr(self, name)) is not bool:
                object.__setattr__(self, name, as_flag(function, name, getattr(self, name)))
        if not 0 <= self.proj_size < self.hidden_size:
            got, expected = str(self.proj_size), f"0 (none) or below hidden_size {self.hidden_size}"
            raise OptionError.of(function, "proj_size", got, expected, "Lower it.")
        if self.proj_size and self.mode != "LSTM":
            got, remedy = str(self.proj_size), "Leave it out, or take an LSTM."
            raise OptionError.of(function, "proj_size", got, "0: only LSTMs have one", remedy)

    @property
    def cell(self) -> Cell:
        """What each step computes."""
        return CELLS[self.mode]

    @property
    def directions(self) -> tuple[str, ...]:
        """The suffixes of the directions' parameter names."""
        return ("", "_reverse") if self.bidirectional else ("",)

    @property
    def output_size(self) -> int:
        """The features of h in one direction."""
        return self.proj_size or self.hidden_size

    def layer_names(self, layer: int, direction: str) -> dict[str, str]:
        """Map a layer's own parameter names to those in the whole stack."""
        names = ["weight_ih", "weight_hh"]
        names += ["bias_ih", "bias_hh"] if self.bias else []
        names += ["weight_hr"] if self.proj_size else []
        return {name: f"{name}_l{layer}{direction}" for name in names}

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """All parameters in torch's order."""
        shapes: dict[str, tuple[int, ...]] = {}
        height = self.cell.gates * self.hidden_size
        for layer in range(self.num_layers):
            inputs = self.input_size if layer == 0 else self.output_size * len(self.directions)
            sizes = {
                "weight_ih": (height, inputs),
                "weight_hh": (height, self.output_size),
                "bias_ih": (height,),
                "bias_hh": (height,),
                "weight_hr": (self.output_size, self.hidden_size),
            }
            for direction in self.directions:
                for part, name in self.layer_names(layer, direction).items():
                    shapes[name] = sizes[part]
        return shapes

    def check_extent(self) -> None:
        """Refuse sizes that no machine could hold, before anything is allocated."""
        count = len(self.directions)
        inputs = max(self.input_size, self.output_size * count)
        height = self.cell.gates * self.hidden_size
        parameters = self.num_layers * count * height * (inputs + self.output_size)
        if parameters > MAX_PARAMETERS:
            got = f"{shown(self.hidden_size)}, in layers of {shown(parameters)} parameters in all"
            expected = f"at most {MAX_PARAMETERS} parameters"
            raise OptionError.of(self.cell.name, "hidden_size", got, expected, "Lower the sizes.")

    def check_parameters(self, function: str, parameters: Mapping[str, Array]) -> None:
        """Refuse a layer's parameters that were replaced by what does not fit it.

        Raises:
            ShapeError: one has another shape, or is no array.
        """
        for name, extent in self.parameter_shapes().items():
            value = parameters[name]
            if getattr(value, "shape", None) != extent:
                has_shape = hasattr(value, "shape")
                got = f"of shape {tuple(value.shape)}" if has_shape else shown(value)
                remedy = "Replace a parameter by one of its shape, or build the layer anew."
                raise ShapeError.of(
                    function, f"parameters[{name!r}]", got, f"shape {extent}", remedy
                )

    def state_shapes(self, batch: int) -> tuple[tuple[int, ...], ...]:
        """The shapes of the states: h, and c of an LSTM."""
        rows = self.num_layers * len(self.directions)
        sizes = {"h": self.output_size, "c": self.hidden_size}
        return tuple((rows, batch, sizes[state]) for state in self.cell.states)

    @classmethod
    def of(cls, parameters: Mapping[str, Array], mode: str = "LSTM") -> RecurrentShape:
        """Read the sizes off a dict of parameters.

        Raises:
            ShapeError: names or shapes that no layer of this mode has.
        """
        function, layer = CELLS[mode].function, f"torch.nn.{CELLS[mode].name}"
        if not {"weight_ih_l0", "weight_hh_l0"} <= parameters.keys():
            got = f"named {sorted(map(str, parameters))}"
            expected = f"{layer}'s names, weight_ih_l0 and weight_hh_l0 at least"
            remedy = f"Take them from the state_dict of {_article(CELLS[mode].name)}."
            raise ShapeError.of(function, "parameters", got, expected, remedy)
        for name, value in parameters.items():
            axes = 1 if str(name).startswith("bias") else 2
            if value.ndim != axes:
                got, expected = f"of shape {tuple(value.shape)}", f"an array of {axes} axes"
                remedy = f"Take them from the state_dict of {_article(CELLS[mode].name)}."
                raise ShapeError.of(function, f"parameters[{name!r}]", got, expected, remedy)
        shape = cls.read(parameters, mode)
        shapes = {name: tuple(map(int, value.shape)) for name, value in parameters.items()}
        expected_shapes = shape.parameter_shapes()
        if shapes != expected_shapes:
            names = {*expected_shapes, *shapes}
            differ = (name for name in names if expected_shapes.get(name) != shapes.get(name))
            wrong = min(differ, key=str)
            got, expected = f"of shape {shapes.get(wrong)}", f"shape {expected_shapes.get(wrong)}"
            remedy = "All layers and directions have the sizes that weight_ih_l0 implies."
            raise ShapeError.of(function, f"parameters[{wrong!r}]", got, expected, remedy)
        return shape

    @classmethod
    def read(cls, parameters: Mapping[str, Array], mode: str = "LSTM") -> RecurrentShape:
        """Read the sizes off parameters that were checked before."""
        projection = parameters.get("weight_hr_l0")
        return cls(
            input_size=int(parameters["weight_ih_l0"].shape[-1]),
            hidden_size=int(parameters["weight_ih_l0"].shape[0]) // CELLS[mode].gates,
            num_layers=next(n for n in itertools.count(1) if f"weight_ih_l{n}" not in parameters),
            bias="bias_ih_l0" in parameters,
            bidirectional="weight_ih_l0_reverse" in parameters,
            proj_size=0 if projection is None else int(projection.shape[0]),
            mode=mode,
        )


def _article(name: str) -> str:
    return f"a {name}" if name == "GRU" else f"an {name}"
