"""What a layer of `torch.nn` may be given: padded, packed, nested, flat or a single sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ragged.backend import load_backend
from ragged.checks import as_array, shown
from ragged.errors import ArgumentError, DeviceError, DtypeError, LengthsError, ShapeError
from ragged.lengths import Lengths, lengths_of_offsets
from ragged_torch.arrays import name, to_numpy
from ragged_torch.transforms import is_jit_tracing, is_transformed

INDICES = (torch.int64, torch.int32)


class InputShapeError(ShapeError, RuntimeError):
    """A `ShapeError` that is also what `torch.nn`'s layers raise."""


class InputDeviceError(DeviceError, RuntimeError):
    """A `DeviceError` that is also what `torch.nn`'s layers raise."""


class InputDtypeError(DtypeError, ValueError, RuntimeError):
    """A `DtypeError` that is also what `torch.nn`'s layers raise."""


class Sequences(NamedTuple):
    """A batch in the layout that it came in.

    Args:
        data: `(batch, time, features)`, `(time, batch, features)` or `(tokens, features)`.
        layout: which of `LAYOUTS` that is.
        lengths: of the rows, in the order of the layout.
        wrap: gives outputs the form that the input had.
        is_batched: False for a single sequence, whose states have no axis of rows.
        sorted_indices: the caller's row of each row of the layout; None = the same.
        unsorted_indices: the reverse.
    """

    data: Tensor
    layout: str
    lengths: Lengths
    wrap: Callable[[Tensor], Any]
    is_batched: bool = True
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def read_marks(self, marks: Any) -> Any:
        """Read what marks each token in the input's own form, `resets` say."""
        if isinstance(marks, PackedSequence):
            return marks.data
        if isinstance(marks, Tensor) and marks.is_nested:
            return cast(Any, marks).values()
        if self.is_batched:
            return marks
        return marks[None] if isinstance(marks, (Tensor, np.ndarray)) else [marks]


def read_sequences(
    function: str, given: Any, lengths: object, offsets: Tensor | None, *, batch_first: bool
) -> Sequences:
    """Read what a layer was given.

    Args:
        function: the layer's name, for errors.
        given: a tensor of 2 or 3 axes, a `PackedSequence` or a nested tensor of jagged layout.
        lengths: of the rows of a tensor of 3 axes; None = every row is full.
        offsets: `(batch + 1,)`: the rows lie end to end in a tensor `(tokens, features)`.
        batch_first: whether a tensor of 3 axes is.

    Raises:
        ArgumentError: it is none of these.
        ShapeError: a tensor of another number of axes, or `lengths` beside what tells its own.
    """
    is_nested = isinstance(given, Tensor) and given.is_nested
    if isinstance(given, PackedSequence) or is_nested or offsets is not None:
        if lengths is not None:
            remedy = "Leave lengths out: the input tells its own."
            got, expected = "lengths beside rows of known length", "None"
            raise ArgumentError.of(function, "lengths", got, expected, remedy)
        if isinstance(given, PackedSequence):
            return _read_packed(function, given)
        return _read_nested(function, given) if is_nested else _read_flat(function, given, offsets)
    if not isinstance(given, Tensor):
        expected = "a tensor, a PackedSequence or a nested tensor"
        remedy = "Make it a tensor first."
        raise ArgumentError.of(function, "input", shown(given), expected, remedy)
    if given.dim() not in (2, 3):
        got = f"of {given.dim()} axes"
        expected, remedy = "2 axes, one sequence, or 3, a batch", "Reshape it."
        raise ShapeError.of(function, "input", got, expected, remedy)
    return _read_dense(function, given, lengths, batch_first=batch_first)


def _read_dense(function: str, given: Tensor, lengths: object, *, batch_first: bool) -> Sequences:
    backend = load_backend(name)
    given = as_array(backend, function, "input", given)
    is_batched = given.dim() == 3
    data = given if is_batched else given.unsqueeze(0)
    batch_first = batch_first or not is_batched
    batch, width = data.shape[:2] if batch_first else (data.shape[1], data.shape[0])
    valid = Lengths.of(lengths, width, backend, function=function, batch=batch)
    layout = "padded" if batch_first else "time_major"
    return Sequences(data, layout, valid, lambda y: y if is_batched else y.squeeze(0), is_batched)


def _read_packed(function: str, given: PackedSequence) -> Sequences:
    """Read a packed sequence; its own lengths go down, in the order of its rows."""
    if is_jit_tracing():  # which would keep sizes that are read as constants
        return _read_recorded(given)
    is_plain = given.batch_sizes.is_cpu and not is_transformed()
    sizes = given.batch_sizes.numpy() if is_plain else to_numpy(given.batch_sizes)
    batch = int(sizes[0]) if len(sizes) else 0
    lengths = (sizes[None, :] > np.arange(batch)[:, None]).sum(1)
    if (np.diff(sizes) > 0).any() or (sizes < 1).any() or lengths.sum() != len(given.data):
        expected = f"sizes that go down to the sum {len(given.data)}, its rows of data"
        remedy = "Pack with pack_padded_sequence()."
        got = f"of sum {lengths.sum()}"
        raise LengthsError.of(function, "input.batch_sizes", got, expected, remedy)

    order = given.sorted_indices, given.unsorted_indices
    _check_order(function, *order, batch)

    def wrap(y: Tensor) -> PackedSequence:
        return PackedSequence(y, given.batch_sizes, *order)

    valid = Lengths(lengths, len(sizes))
    return Sequences(given.data, "packed", valid, wrap, True, *order)


def _check_order(function: str, rows: Any, ranks: Any, batch: int) -> None:
    """Refuse indices that are no order of the rows; on a GPU their values are not waited for."""
    if rows is None and ranks is None:
        return
    is_order = all(
        index is not None and index.dtype in INDICES and index.shape == (batch,)
        for index in (rows, ranks)
    )
    if is_order and rows.is_cpu and not is_transformed():
        there, back, order = rows.tolist(), ranks.tolist(), list(range(batch))
        is_order = sorted(back) == order == [there[rank] for rank in back]
    if not is_order:
        expected = f"each of {batch} rows once, and unsorted_indices the reverse"
        remedy = "Pack with pack_padded_sequence()."
        raise ArgumentError.of(function, "input.sorted_indices", "no order", expected, remedy)


def _read_recorded(given: PackedSequence) -> Sequences:
    """Read a packed sequence as padded rows, by torch's own operators, which a trace records."""
    order = given.sorted_indices, given.unsorted_indices
    data, lengths = pad_packed_sequence(PackedSequence(given.data, given.batch_sizes), True)

    def wrap(y: Tensor) -> PackedSequence:
        packed = pack_padded_sequence(y, lengths, batch_first=True)
        return PackedSequence(packed.data, given.batch_sizes, *order)

    valid = Lengths.unchecked(lengths, data.shape[1])
    return Sequences(data, "padded", valid, wrap, True, *order)


def _read_nested(function: str, given: Any) -> Sequences:
    if given.layout is not torch.jagged or given.dim() != 3 or given._ragged_idx != 1:
        got = f"a nested tensor of layout {given.layout} and {given.dim()} axes"
        expected = "one of layout torch.jagged, (batch, ragged time, features)"
        remedy = "Make it with torch.nested.nested_tensor(rows, layout=torch.jagged)."
        raise InputShapeError.of(function, "input", got, expected, remedy)
    values, offsets = take_nested_apart(function, "input", given, InputShapeError)

    def wrap(y: Tensor) -> Tensor:
        return torch.nested.nested_tensor_from_jagged(y, offsets)

    return _read_flat(function, values, offsets)._replace(wrap=wrap)


def take_nested_apart(
    function: str, argument: str, nested: Any, error: type[ShapeError] = ShapeError
) -> tuple[Tensor, Tensor]:
    """Return the tokens and offsets of a nested tensor of jagged layout, without holes.

    Raises:
        ShapeError: there are holes between its rows.
    """
    if nested.lengths() is not None:
        remedy = "Call .contiguous() on it first."
        raise error.of(function, argument, "rows with holes", "rows end to end", remedy)
    return nested.values(), nested.offsets()


def _read_flat(function: str, given: Tensor, offsets: Any) -> Sequences:
    """Read rows that lie end to end; what is beyond the last one is never read."""
    if given.dim() != 2:
        expected, remedy = "(tokens, features), as offsets are given", "Flatten batch and time."
        got = f"of {given.dim()} axes"
        raise InputShapeError.of(function, "input", got, expected, remedy)
    lengths = lengths_of_offsets(function, load_backend(name), offsets, len(given), None, None)
    return Sequences(given, "jagged", lengths, lambda y: y)
