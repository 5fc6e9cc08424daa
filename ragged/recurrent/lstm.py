"""What an LSTM is made of: names, shapes, layers, and the checks at its door.

Parameters have `torch.nn.LSTM`'s names, shapes and gate order (i, f, g, o):

    i, f, g, o = split(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)             (then h @ weight_hr.T with a projection)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ragged.backend import backend_of, check_frameworks, get_backend
from ragged.checks import MOST_PARAMETERS, as_array, as_flag, as_rate, as_size, shown
from ragged.errors import ArgumentError, OptionError, ShapeError
from ragged.lengths import Lengths
from ragged.protocol import Array, Backend, State


@dataclass(frozen=True)
class LSTMShape:
    """The sizes of an LSTM, from which all its parameters' names and shapes follow."""

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    proj_size: int = 0

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "num_layers", "proj_size"):
            value, least = getattr(self, name), 0 if name == "proj_size" else 1
            if type(value) is not int or value < least:
                object.__setattr__(self, name, as_size("LSTM", name, value, least=least))
        for name in ("bias", "bidirectional"):
            if type(getattr(self, name)) is not bool:
                object.__setattr__(self, name, as_flag("LSTM", name, getattr(self, name)))
        if not 0 <= self.proj_size < self.hidden_size:
            raise OptionError.of(
                "LSTM",
                "proj_size",
                str(self.proj_size),
                f"0 (none) or below hidden_size {self.hidden_size}",
                "Lower it.",
            )

    @property
    def directions(self) -> tuple[str, ...]:
        """The suffixes of the directions' parameter names."""
        return ("", "_reverse") if self.bidirectional else ("",)

    @property
    def output_size(self) -> int:
        """The features of h in one direction."""
        return self.proj_size or self.hidden_size

    def layer_names(self, layer: int, direction: str) -> dict[str, str]:
        """Map a layer's own parameter names to those in the whole LSTM."""
        own = ["weight_ih", "weight_hh"]
        own += ["bias_ih", "bias_hh"] if self.bias else []
        own += ["weight_hr"] if self.proj_size else []
        return {name: f"{name}_l{layer}{direction}" for name in own}

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """All parameters in torch's order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            inputs = self.input_size if layer == 0 else self.output_size * len(self.directions)
            sizes = {
                "weight_ih": (4 * self.hidden_size, inputs),
                "weight_hh": (4 * self.hidden_size, self.output_size),
                "bias_ih": (4 * self.hidden_size,),
                "bias_hh": (4 * self.hidden_size,),
                "weight_hr": (self.output_size, self.hidden_size),
            }
            for direction in self.directions:
                for own, name in self.layer_names(layer, direction).items():
                    shapes[name] = sizes[own]
        return shapes

    def check_extent(self) -> None:
        """Refuse sizes that no machine could hold, before anything is allocated."""
        count = len(self.directions)
        inputs = max(self.input_size, self.output_size * count)
        parameters = self.num_layers * count * 4 * self.hidden_size * (inputs + self.output_size)
        if parameters > MOST_PARAMETERS:
            got = f"{self.hidden_size}, in layers of {shown(parameters)} parameters in all"
            expected = f"at most {MOST_PARAMETERS} parameters"
            raise OptionError.of("LSTM", "hidden_size", got, expected, "Lower the sizes.")

    def state_shapes(self, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of h and c."""
        rows = self.num_layers * len(self.directions)
        return (rows, batch, self.output_size), (rows, batch, self.hidden_size)

    @classmethod
    def of(cls, parameters: Mapping[str, Array]) -> LSTMShape:
        """Read the sizes off a dict of parameters.

        Raises:
            ShapeError: names or shapes that no LSTM has.
        """
        if not {"weight_ih_l0", "weight_hh_l0"} <= parameters.keys():
            raise ShapeError.of(
                "lstm",
                "parameters",
                f"named {sorted(map(str, parameters))}",
                "torch.nn.LSTM's names, weight_ih_l0 and weight_hh_l0 at least",
                "Take them from an LSTM's state_dict.",
            )
        for name, value in parameters.items():
            axes = 1 if str(name).startswith("bias") else 2
            if value.ndim != axes:
                raise ShapeError.of(
                    "lstm",
                    f"parameters[{name!r}]",
                    f"of shape {tuple(value.shape)}",
                    f"an array of {axes} axes",
                    "Take them from an LSTM's state_dict.",
                )
        shape = cls.read(parameters)
        found = {name: tuple(map(int, value.shape)) for name, value in parameters.items()}
        expected = shape.parameter_shapes()
        if found != expected:
            names = {*expected, *found}
            wrong = min((name for name in names if expected.get(name) != found.get(name)), key=str)
            raise ShapeError.of(
                "lstm",
                f"parameters[{wrong!r}]",
                f"of shape {found.get(wrong)}",
                f"shape {expected.get(wrong)}",
                "All layers and directions have the sizes that weight_ih_l0 implies.",
            )
        return shape

    @classmethod
    def read(cls, parameters: Mapping[str, Array]) -> LSTMShape:
        """Read the sizes off parameters that were checked before."""
        bidirectional = "weight_ih_l0_reverse" in parameters
        projection = parameters.get("weight_hr_l0")
        return cls(
            input_size=int(parameters["weight_ih_l0"].shape[-1]),
            hidden_size=int(parameters["weight_ih_l0"].shape[0]) // 4,
            num_layers=next(n for n in itertools.count(1) if f"weight_ih_l{n}" not in parameters),
            bias="bias_ih_l0" in parameters,
            bidirectional=bidirectional,
            proj_size=0 if projection is None else int(projection.shape[0]),
        )


def LSTM(  # noqa: N802 - it gives a class's instance and reads as that class
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bias: bool = True,
    batch_first: bool = True,
    dropout: float = 0.0,
    bidirectional: bool = False,
    proj_size: int = 0,
    *,
    seed: int | None = None,
) -> Any:
    """Build the chosen backend's LSTM layer, a native module.

    `layer(x, lengths=None, state=None) -> (y, (h, c))`; y is exactly 0 at padding, (h, c) is the
    state after each row's last valid step, and a row of length 0 keeps its initial state.

    Lists and NumPy arrays of floats given to the layer take its own dtype; integers, booleans and
    complex numbers are refused. Torch's arrays must have the layer's dtype, as in `torch.nn.LSTM`,
    unless `torch.autocast` is on; JAX's are promoted together with the parameters, as in flax.

    Args:
        input_size: features of x.
        hidden_size: features of c, and of h without a projection.
        num_layers: layers one above the other.
        bias: whether the gates have biases.
        batch_first: x is `(batch, time, input_size)`, else `(time, batch, input_size)`.
        dropout: rate between layers, in training.
        bidirectional: a second LSTM reads each row from its last valid step back.
        proj_size: features of h after a projection; 0 = none.
        seed: seed of the initial values, equal on every backend; None draws one.

    Raises:
        OptionError: a size below 1, a rate outside 0..1, or an argument of another type.

    Example:
        >>> import ragged
        >>> layer = ragged.LSTM(3, 8, seed=0)
        >>> y, (h, c) = layer([[[1., 2., 3.], [4., 5., 6.]]], lengths=[1])
        >>> tuple(y.shape), y[0, 1].tolist() == [0.0] * 8
        ((1, 2, 8), True)

    Source: torch.nn.LSTM, whose arguments, names and equations these are.
    """
    return get_backend().LSTM(
        input_size,
        hidden_size,
        num_layers,
        bias,
        as_flag("LSTM", "batch_first", batch_first),
        as_rate("LSTM", "dropout", dropout),
        bidirectional,
        proj_size,
        seed=seed,
    )


def lstm(
    parameters: Mapping[str, Array],
    x: Array,
    lengths: object = None,
    state: State | None = None,
    *,
    batch_first: bool = True,
    between_layers: Callable[[Array], Array] | None = None,
) -> tuple[Array, State]:
    """Run an LSTM given as a dict of arrays; the sizes are read off their shapes.

    Args:
        parameters: torch's names (`weight_ih_l0 (4 * hidden_size, input_size)`, ...), floating.
        x: `(batch, time, input_size)`, left aligned; of the parameters' dtype, as in `LSTM`.
        lengths: `(batch,)` integers; None = every row is full.
        state: h and c, `(layers * directions, batch, size)`; zeros if not given.
        batch_first: False takes and gives `(time, batch, features)`.
        between_layers: applied to every layer's output but the last one's; dropout, say.

    Returns:
        y `(batch, time, directions * size)`, exactly 0 at padding, and the state (h, c) after
        each row's last valid step.

    Raises:
        LengthsError, ShapeError, MixedFrameworksError: what cannot be run, before it is.
        DtypeError: arrays that are not floating or, on torch, of different dtypes.
        DeviceError: arrays on different devices.
        ArgumentError: parameters that are no mapping, or `between_layers` that is no function.
    """
    if between_layers is not None and not callable(between_layers):
        expected, remedy = "a function of an array", "Leave it out where nothing is to be done."
        raise ArgumentError.of("lstm", "between_layers", shown(between_layers), expected, remedy)
    if not isinstance(parameters, Mapping):
        expected = "a mapping of torch.nn.LSTM's names to arrays"
        remedy = "Take it from an LSTM's state_dict."
        raise ArgumentError.of("lstm", "parameters", shown(parameters), expected, remedy)
    named = {_parameter(name): value for name, value in parameters.items()}
    backend = backend_of("lstm", **named, x=x)
    like = next((value for value in (*named.values(), x) if backend.owns(value)), None)
    parameters = {
        name: as_array(backend, "lstm", _parameter(name), value, like)
        for name, value in parameters.items()
    }
    return run("lstm", backend, parameters, x, lengths, state, batch_first, between_layers)


def run(
    function: str,
    backend: Backend,
    parameters: Mapping[str, Array],
    x: Array,
    lengths: object,
    state: State | None,
    batch_first: bool = True,
    between_layers: Callable[[Array], Array] | None = None,
) -> tuple[Array, State]:
    """Check a call at the door and hand it to the backend batch first."""
    shape = LSTMShape.of(parameters)
    h, c = (None, None) if state is None else _pair(function, state)
    check_frameworks(function, backend, x=x, lengths=lengths, h=h, c=c)
    given = {"x": x} if state is None else {"x": x, "state (h)": h, "state (c)": c}
    weight = parameters["weight_ih_l0"]
    given = {name: as_array(backend, function, name, a, weight) for name, a in given.items()}
    x, batch_first = given["x"], as_flag(function, "batch_first", batch_first)
    expected = f"(batch, time, {shape.input_size})"
    if x.ndim != 3 or x.shape[2] != shape.input_size:
        raise ShapeError.of(
            function,
            "x",
            f"of shape {tuple(x.shape)}",
            expected if batch_first else f"(time, batch, {shape.input_size})",
            "Add a batch axis with x[None], or set input_size to the features.",
        )
    batch, width = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
    valid = Lengths.of(lengths, width, backend, function=function, batch=batch)
    if state is not None:
        _check_state(function, shape, (given["state (h)"], given["state (c)"]), batch)
    named = {_parameter(name): value for name, value in parameters.items()}
    arrays = backend.promote_arrays(function, named | given)
    parameters = {name: arrays[_parameter(name)] for name in parameters}
    start = None if state is None else (arrays["state (h)"], arrays["state (c)"])
    swap = backend.xp.permute_dims
    x = arrays["x"] if batch_first else swap(arrays["x"], (1, 0, 2))
    y, final = backend.lstm(parameters, x, valid, start, between_layers)
    if not batch_first:
        y = backend.xp.concat([swap(y, (1, 0, 2))])  # a copy: contiguous, as torch.nn.LSTM's
    return y, final


def stack_layers(
    run_layer: Callable[[list[dict[str, Array]], Array, State], tuple[Array, State]],
    parameters: Mapping[str, Array],
    x: Array,
    state: State,
    concat: Callable[[list[Array]], Array],
    between_layers: Callable[[Array], Array] | None,
) -> tuple[Array, State]:
    """Run the layers one after the other, each on the output of the one below.

    `run_layer(weights of each direction, x, state of the layer) -> (y, state)`.
    """
    shape = LSTMShape.read(parameters)
    count = len(shape.directions)
    finals: list[State] = []
    for layer in range(shape.num_layers):
        if layer and between_layers is not None:
            x = between_layers(x)
        weights = [
            {own: parameters[name] for own, name in shape.layer_names(layer, direction).items()}
            for direction in shape.directions
        ]
        rows = slice(layer * count, (layer + 1) * count)
        x, final = run_layer(weights, x, (state[0][rows], state[1][rows]))
        finals.append(final)
    if len(finals) == 1:
        return x, finals[0]
    return x, (concat([h for h, _ in finals]), concat([c for _, c in finals]))


def _parameter(name: object) -> str:
    return f"parameters[{name!r}]"


def _pair(function: str, state: Any) -> State:
    """Take a state apart into h and c."""
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        is_list = isinstance(state, (tuple, list))
        got = f"a {type(state).__name__} of {len(state)}" if is_list else shown(state)
        remedy = "Give both, or None for zeros."
        raise ShapeError.of(function, "state", got, "the pair (h, c)", remedy)
    h, c = state
    if h is None or c is None:
        remedy = "Give both, or None in place of the pair for zeros."
        raise ShapeError.of(function, "state", "a pair with None", "arrays (h, c)", remedy)
    return h, c


def _check_state(function: str, shape: LSTMShape, state: State, batch: int) -> None:
    for name, array, expected in zip("hc", state, shape.state_shapes(batch), strict=True):
        if tuple(array.shape) != expected:
            raise ShapeError.of(
                function,
                f"state ({name})",
                f"of shape {tuple(array.shape)}",
                f"(layers * directions, batch, size) = {expected}",
                "Give the state of this layer and batch, or None for zeros.",
            )
