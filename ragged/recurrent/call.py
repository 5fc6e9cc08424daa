"""A call of a recurrent layer: what is checked at the door, and how layers are stacked.

Inside, a state is a tuple, (h, c) of an LSTM and (h,) of the others; outside, the others' is h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ragged.backend import check_frameworks
from ragged.checks import as_array, as_choice, as_flag, shown
from ragged.errors import ShapeError
from ragged.lengths import Lengths, lengths_of_offsets
from ragged.protocol import Array, Backend, State
from ragged.recurrent.cells import Cell
from ragged.recurrent.resets import START_STATES
from ragged.recurrent.shape import RecurrentShape


def validate_and_call(
    function: str,
    backend: Backend,
    shape: RecurrentShape,
    parameters: Mapping[str, Array],
    x: Array,
    lengths: object,
    state: object,
    batch_first: bool = True,
    between_layers: Callable[[Array], Array] | None = None,
    resets: object = None,
    start: str = "zeros",
    offsets: object = None,
    max_length: object = None,
) -> tuple[Array, Any]:
    """Check a call of parameters of that shape, and hand it on batch first or jagged."""
    cell = shape.cell
    parts = {} if state is None else _take_apart(function, cell, state)
    beside = {"lengths": lengths, "resets": resets, "offsets": offsets}
    check_frameworks(function, backend, x=x, **beside, **parts)
    given = {"x": x} | {_state_name(cell, part): array for part, array in parts.items()}
    weight = parameters["weight_ih_l0"]
    given = {name: as_array(backend, function, name, a, weight) for name, a in given.items()}
    x, batch_first = given["x"], as_flag(function, "batch_first", batch_first)
    is_padded, axes = offsets is None, "batch, time" if batch_first else "time, batch"
    axes = axes if is_padded else "tokens"
    if x.ndim != (3 if is_padded else 2) or x.shape[-1] != shape.input_size:
        got, expected = f"of shape {tuple(x.shape)}", f"({axes}, {shape.input_size})"
        remedy = "Add a batch axis with x[None], or set input_size to the features."
        raise ShapeError.of(function, "x", got, expected, remedy)
    if is_padded:
        batch, width = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
        valid = Lengths.of(lengths, width, backend, function=function, batch=batch)
    else:
        valid = lengths_of_offsets(function, backend, offsets, x.shape[0], lengths, max_length)
        batch, batch_first = valid.batch, True
    for part, sizes in zip(cell.states, shape.state_shapes(batch), strict=True):
        if parts and tuple(given[_state_name(cell, part)].shape) != sizes:
            got = f"of shape {tuple(given[_state_name(cell, part)].shape)}"
            expected = f"(layers * directions, batch, size) = {sizes}"
            remedy = "Give the state of this layer and batch, or None for zeros."
            raise ShapeError.of(function, _state_name(cell, part), got, expected, remedy)
    tokens = tuple(x.shape[:-1])
    marks = check_resets(function, backend, resets, tokens, x, batch_first=batch_first)
    start = as_choice(function, "start", start, START_STATES)
    named = {parameter_name(name): value for name, value in parameters.items()}
    arrays = backend.promote_arrays(function, named | given)
    parameters = {name: arrays[parameter_name(name)] for name in parameters}
    states = tuple(arrays[_state_name(cell, part)] for part in cell.states) if parts else None
    swap = backend.xp.permute_dims
    x = arrays["x"] if batch_first else swap(arrays["x"], (1, 0, 2))
    options: dict[str, Any] = {} if marks is None else {"resets": marks, "start": start}
    options |= {} if is_padded else {"layout": "jagged"}
    y, final = backend.run_recurrent(shape, parameters, x, valid, states, between_layers, **options)
    if not batch_first:
        y = backend.xp.concat([swap(y, (1, 0, 2))])  # a copy: contiguous, as torch.nn's
    return y, final if len(final) > 1 else final[0]


def check_resets(
    function: str,
    backend: Backend,
    resets: object,
    expected: tuple[Any, ...],
    x: Array,
    *,
    batch_first: bool,
) -> Array | None:
    """Give resets in the shape of the tokens, batch first; None where there are none.

    Raises:
        ShapeError: they are not boolean, or of another shape than the tokens.
    """
    if resets is None:
        return None
    marks = as_array(backend, function, "resets", resets, x)
    if "bool" not in str(marks.dtype) or tuple(marks.shape) != expected:
        got = f"{marks.dtype} of shape {tuple(marks.shape)}"
        remedy = "Mark each token: True where the state starts anew."
        raise ShapeError.of(function, "resets", got, f"bool of shape {expected}", remedy)
    return marks if batch_first else backend.xp.permute_dims(marks, (1, 0))


def stack_layers(
    run_layer: Callable[[list[dict[str, Array]], Array, State], tuple[Array, State]],
    shape: RecurrentShape,
    parameters: Mapping[str, Array],
    x: Array,
    state: State,
    concat: Callable[[list[Array]], Array],
    between_layers: Callable[[Array], Array] | None,
) -> tuple[Array, State]:
    """Run the layers one after the other, each on the output of the one below.

    `run_layer(weights of each direction, x, state of the layer) -> (y, state)`.
    """
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
        x, final = run_layer(weights, x, tuple(part[rows] for part in state))
        finals.append(final)
    if len(finals) == 1:
        return x, finals[0]
    return x, tuple(concat(list(parts)) for parts in zip(*finals, strict=True))


def parameter_name(name: object) -> str:
    """Name a parameter in an error."""
    return f"parameters[{name!r}]"


def _state_name(cell: Cell, part: str) -> str:
    return f"state ({part})" if len(cell.states) > 1 else "state"


def _take_apart(function: str, cell: Cell, state: Any) -> dict[str, Array]:
    """Give the parts of a state by name: h and c of an LSTM, h of the others."""
    if len(cell.states) == 1:
        if isinstance(state, tuple):
            remedy = f"Give h alone: {function} has no c."
            raise ShapeError.of(function, "state", _kind(state), "an array h", remedy)
        return {"h": state}
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        remedy = "Give both, or None for zeros."
        raise ShapeError.of(function, "state", _kind(state), "the pair (h, c)", remedy)
    if any(part is None for part in state):
        remedy = "Give both, or None in place of the pair for zeros."
        raise ShapeError.of(function, "state", "a pair with None", "arrays (h, c)", remedy)
    return dict(zip(cell.states, state, strict=True))


def _kind(state: Any) -> str:
    is_list = isinstance(state, (tuple, list))
    return f"a {type(state).__name__} of {len(state)}" if is_list else shown(state)
