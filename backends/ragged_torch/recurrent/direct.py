"""The short way of a plain call, eager on a CPU, straight to the kernels.

A step of an actor or of a stream takes microseconds, so what a call costs in Python counts. What is
here needs few of the checks and none of the choices of the long way (`run`), which gives the same
results; all other calls go there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ragged.backend import load_backend
from ragged.checks import MAX_SIZE
from ragged.implementations import choose
from ragged.kernels import is_enabled
from ragged.lengths import Lengths
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.recurrent import cpp
from ragged_torch.recurrent.dispatch import IMPLEMENTATIONS, describe, takes_step_by_torch
from ragged_torch.recurrent.torch_layer import FUNCTIONS
from ragged_torch.transforms import is_observed

PLAIN = (Tensor, nn.Parameter)
LENGTHS = (list, np.ndarray, Tensor)
DTYPES = (torch.float32, torch.float64)


class Rows(NamedTuple):
    """The rows of a call.

    Args:
        layout: how their tokens lie.
        width: the longest that a row may be.
        lengths: `(batch,)` int64, on the CPU.
        tokens: their sum.
    """

    layout: str
    width: int
    lengths: Tensor
    tokens: int


def read_parameters(layer: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """Read parameters as a layer's attributes, wherever those are."""
    parameters: Any = layer._parameters
    return [parameters[name] if name in parameters else getattr(layer, name) for name in names]


def run_if_plain(
    shape: RecurrentShape,
    weights: Sequence[Any],
    x: Any,
    lengths: object,
    state: Any,
    between_layers: Callable[[Tensor], Tensor] | None,
    *,
    batch_first: bool,
    offsets: Any = None,
    max_length: object = None,
) -> tuple[Tensor, Any] | None:
    """Run a call that nobody has checked, if it is right as it is and one that kernels run.

    Args:
        shape: the layer's sizes and cell.
        weights: its parameters in torch's order.
        x: `(batch, time, features)`, or `(time, batch, features)`; with offsets
            `(tokens, features)`.
        lengths: `(batch,)` integers on the host; None = every row is full.
        state: None, h or the pair (h, c), `(layers * directions, batch, size)`.
        between_layers: applied to every layer's output but the last one's; None = nothing is.
        batch_first: whether a padded x is.
        offsets: `(batch + 1,)`, where rows that lie end to end begin and the last one ends.
        max_length: the longest that such a row may be; None = as long as the longest is.

    Returns:
        y and the states, (h, c) or h; None where the call is not plain.

    Raises:
        LengthsError: all but the lengths is right.
    """
    if not _is_plain(shape, weights, x, state, offsets, batch_first=batch_first):
        return None
    if offsets is None:
        batch, width = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
        is_step = lengths is None and width == 1 and between_layers is None
        if is_step and takes_step_by_torch(shape.mode):
            return _run_step(shape, weights, x, state, batch, batch_first)
        layout = "padded" if batch_first else "time_major"
        rows = _read_rows(shape.cell.name, lengths, batch, width, layout)
    else:
        rows = _read_ends(offsets, len(x), max_length) if lengths is None else None
    return None if rows is None else _run(shape, weights, x, state, between_layers, rows)


def _is_plain(
    shape: RecurrentShape,
    weights: Sequence[Any],
    x: Any,
    state: Any,
    offsets: Any,
    *,
    batch_first: bool,
) -> bool:
    """Whether all but the lengths of a call is right, and torch does nothing around it."""
    is_padded = offsets is None
    if torch.compiler.is_compiling() or type(x) is not Tensor or x.is_nested:
        return False
    if x.dim() != (3 if is_padded else 2) or x.shape[-1] != shape.input_size or not x.numel() > 0:
        return False
    if not is_padded and not (_is_alike(offsets, torch.int64) and offsets.dim() == 1):
        return False
    dtype = x.dtype
    if dtype not in DTYPES or not is_enabled() or not _runs_kernels(shape, dtype):
        return False
    tensors = [x, *weights]
    if state is not None:
        parts = state if shape.mode == "LSTM" else (state,)
        batch = x.shape[0 if batch_first else 1] if is_padded else len(offsets) - 1
        sizes = shape.state_shapes(batch)
        if type(parts) is not tuple or tuple(getattr(p, "shape", None) for p in parts) != sizes:
            return False
        tensors += parts
    if not all(_is_alike(tensor, dtype) for tensor in tensors):
        return False
    if [weight.shape for weight in weights] != _extents(shape):
        return False
    return not is_observed() and not torch.is_autocast_enabled("cpu")


def _is_alike(tensor: Any, dtype: torch.dtype) -> bool:
    """Whether it is a plain tensor on the CPU, of a dtype."""
    is_plain = type(tensor) in PLAIN and tensor.dtype is dtype
    return is_plain and tensor.is_cpu and tensor.layout is torch.strided


def _read_rows(name: str, lengths: object, batch: int, width: int, layout: str) -> Rows | None:
    """Read padded rows; None where their lengths are not on the host, or their policy not free."""
    if lengths is None:
        return Rows(layout, width, _full(batch, width), batch * width)
    if type(lengths.leaf if isinstance(lengths, Lengths) else lengths) not in LENGTHS:
        return None
    valid = Lengths.of(lengths, width, load_backend("torch"), function=name, batch=batch)
    if valid.is_traced or valid.policy != "auto":
        return None
    return Rows(layout, width, torch.from_numpy(valid.host.copy()), valid.tokens)


def _read_ends(offsets: Tensor, room: int, max_length: object) -> Rows | None:
    """Read rows that lie end to end; None where their ends are not right."""
    ends = offsets.numpy()
    if len(ends) < 2 or type(max_length) not in (int, NoneType):
        return None
    lengths = ends[1:] - ends[:-1]
    longest, tokens = int(lengths.max()), int(ends[-1])
    width: Any = longest if max_length is None else max_length
    if ends[0] or lengths.min() < 0 or tokens > room or not longest <= width <= MAX_SIZE:
        return None
    return Rows("jagged", width, torch.from_numpy(lengths), tokens)


@lru_cache(maxsize=256)
def _extents(shape: RecurrentShape) -> list[tuple[int, ...]]:
    """The shapes of the parameters in torch's order."""
    return list(shape.parameter_shapes().values())


@lru_cache(maxsize=256)
def _runs_kernels(shape: RecurrentShape, dtype: torch.dtype) -> bool:
    """Whether kernels are the first of the list that runs an eager call on a CPU."""
    call = describe(torch.empty(0, dtype=dtype, device="cpu"), shape)
    return choose(IMPLEMENTATIONS, call).name == "kernels"


def _run(
    shape: RecurrentShape,
    weights: Sequence[Tensor],
    x: Tensor,
    state: Any,
    between_layers: Callable[[Tensor], Tensor] | None,
    rows: Rows,
) -> tuple[Tensor, Any]:
    both = len(shape.directions)
    hs, cs = _initial(shape, x, state, len(rows.lengths))
    parameters = _read_weights(shape, x, weights)
    for layer in range(shape.num_layers):
        if layer and between_layers is not None:
            x = between_layers(x)
        x, ys = x.contiguous(), []
        for k in range(layer * both, (layer + 1) * both):
            call = cpp.Call(shape.mode, rows.width, both == 2 and k % 2 == 1, rows.layout)
            arrays = (x, hs[k], cs[k], *parameters[k])
            y, hs[k], cs[k] = cpp.run_arrays(arrays, rows.lengths, call, rows.tokens)
            ys.append(y)
        x = ys[0] if both == 1 else torch.cat(ys, -1)
    h, *c = map(torch.stack, (hs, cs)[: len(shape.cell.states)])
    return x, (h, *c) if c else h


def _run_step(
    shape: RecurrentShape,
    weights: Sequence[Tensor],
    x: Tensor,
    state: Any,
    batch: int,
    batch_first: bool,
) -> tuple[Tensor, Any]:
    """Run a step of full rows by torch: kernels would prepare the weights for one use."""
    h = x.new_zeros(shape.state_shapes(batch)[0]) if state is None else state
    options = shape.bias, shape.num_layers, 0.0, False, shape.bidirectional, batch_first
    y, h = FUNCTIONS[shape.mode](x, h, weights, *options)
    return y, h


def _initial(
    shape: RecurrentShape, x: Tensor, state: Any, batch: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Give h and c of each layer and direction, `(batch, hidden)`; c may have no features."""
    count, has_c = shape.num_layers * len(shape.directions), len(shape.cell.states) > 1
    if state is None:
        hs = [x.new_zeros(batch, shape.hidden_size)] * count
        cs = list(hs)
    else:
        hs, cs = ([*part.unbind()] for part in (state if has_c else (state, state)))
    return hs, cs if has_c else [x.new_empty(batch, 0)] * count


def _read_weights(
    shape: RecurrentShape, x: Tensor, weights: Sequence[Tensor]
) -> list[list[Tensor]]:
    """Give both weights and both biases of each layer and direction; zeros where there are none."""
    count = 4 if shape.bias else 2
    biases = [] if shape.bias else [x.new_zeros(len(weights[0]))] * 2
    return [[*weights[k : k + count], *biases] for k in range(0, len(weights), count)]


@lru_cache(maxsize=64)
def _full(batch: int, width: int) -> Tensor:
    with torch.inference_mode(False):  # or training could not keep it
        return torch.full((batch,), width, dtype=torch.int64, device="cpu")
