"""`Lengths`: the length of each row, checked once at construction."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ragged.backend import is_traced, to_host
from ragged.checks import as_array, as_choice, as_host, as_size, shown
from ragged.errors import ArgumentError, LengthsError
from ragged.protocol import Array, Backend, HostData

POLICIES = ("auto", "rule", "always", "never")
_OFFSETS = "Give where each row begins, and where the last one ends."


class Lengths(HostData):
    """The lengths of a batch, with a host view, a width and a packing policy.

    Create it once, in `collate`, so that no later call has to copy a device array. For JAX it is a
    pytree: the lengths are its leaf, width and policy are static. Leaves that a transformation
    replaces are checked at their use.

    Args:
        lengths: `(batch,)` integers; a list, a NumPy array, a framework array or `Lengths`.
        width: the array's `time` size; the longest row if not given.
        policy: how a backend may run them. "always" packs, "never" pads, "rule" applies
            `should_use_packing`, "auto" takes the fastest implementation (see `ragged.explain`).
            It changes speed, never numbers.

    Raises:
        LengthsError: lengths not integer, not one-dimensional, negative or above the width.
        OptionError: an unknown policy.

    Example:
        >>> lengths = Lengths([3, 0, 5], width=6)
        >>> lengths
        Lengths([3, 0, 5], width=6)
        >>> lengths.tokens, round(lengths.padding_fraction, 2)
        (8, 0.56)
    """

    __slots__ = ("_full", "_host", "_is_unread", "_tokens", "leaf", "policy", "width")

    def __init__(self, lengths: object, width: int | None = None, policy: str = "auto") -> None:
        policy = as_choice("Lengths", "policy", policy, POLICIES)
        width = None if width is None else as_size("Lengths", "width", width)
        values = check_lengths(lengths, width, function="Lengths")
        width = as_size("Lengths", "width", values.max(initial=0) if width is None else width)
        self._set(values.astype(np.int32), width, policy, values)

    def _set(self, leaf: Any, width: int, policy: str, host: np.ndarray | None = None) -> None:
        self.leaf, self.width, self.policy = leaf, width, policy
        self._is_unread = False
        self._host = host  # the leaf's values, once they are checked
        self._full: bool | None = None
        self._tokens: int | None = None

    @classmethod
    def unchecked(cls, leaf: Any, width: int, policy: str = "auto") -> Lengths:
        """Wrap lengths that are traced by a compiler, or checked at their use."""
        self = object.__new__(cls)
        self._set(leaf, width, policy)
        return self

    @classmethod
    def unread(cls, leaf: Any, width: int) -> Lengths:
        """Wrap lengths on a device whose values are not to be read, as that would wait for it."""
        self = cls.unchecked(leaf, width)
        self._is_unread = True
        return self

    @classmethod
    def full(cls, batch: Any, width: Any, backend: Backend) -> Lengths:
        """Create the lengths of rows without padding; their number and width may be symbolic."""
        if backend.is_compiling() or not (isinstance(batch, int) and isinstance(width, int)):
            self = cls.unchecked(backend.xp.full((batch,), width), width)
        else:
            return _full(batch, width)
        self._full = True
        return self

    @classmethod
    def _from_checked(cls, values: np.ndarray, width: int) -> Lengths:
        self = object.__new__(cls)
        self._set(values.astype(np.int32), width, "auto", values)
        return self

    @property
    def host(self) -> np.ndarray:
        """The lengths as read-only int64 on the host.

        Raises:
            LengthsError: they are traced by a compiler and have no values yet, or a
                transformation has replaced them by other values.
        """
        if self._host is None:
            if self.is_traced:
                raise LengthsError(
                    "Lengths.host: the lengths are traced and have no values; expected concrete "
                    "lengths. Read them outside the compiled function."
                )
            self._host = check_values(
                _to_host(self.leaf, "Lengths.host"), self.width, function="Lengths.host"
            )
        return self._host

    @property
    def is_traced(self) -> bool:
        """Whether the lengths have no values here: a compiler traces them, or nobody reads them."""
        return self._host is None and (self._is_unread or is_traced(self.leaf))

    @property
    def is_full(self) -> bool:
        """Whether every row is known to have no padding; of traced lengths that is unknown."""
        if self._full is None:
            self._full = not self.is_traced and bool((self.host == self.width).all())
        return self._full

    @property
    def tokens(self) -> int:
        """The number of valid steps."""
        if self._tokens is None:
            self._tokens = int(self.host.sum())
        return self._tokens

    @property
    def padding_fraction(self) -> float:
        """The share of the padded array that is padding."""
        size = self.host.size * self.width
        return 1.0 - self.tokens / size if size else 0.0

    @property
    def batch(self) -> int:
        """The number of rows; a symbol where a compiler leaves it open."""
        shape = self.leaf.shape if hasattr(self.leaf, "shape") else self.host.shape
        if not shape:
            check_form(shape, str(self.leaf.dtype), "Lengths.batch")
        return shape[0]

    def to(self, backend: Backend, like: Array = None) -> Array:
        """The lengths as a signed integer array of a backend, on the device of `like`."""
        values = backend.asarray(self.leaf if backend.owns(self.leaf) else self.host, like=like)
        if str(values.dtype).rsplit(".", 1)[-1] in ("int32", "int64"):
            return values
        # Differences of unsigned or narrow integers wrap around.
        return backend.xp.astype(values, backend.xp.arange(1).dtype)

    def on_device(self, backend: Backend, like: Array) -> Lengths:
        """The same lengths, copied to the device of `like` once for all later calls."""
        return self if self.is_traced else self.placed(self.to(backend, like))

    def placed(self, leaf: Array) -> Lengths:
        """The same lengths, with an array of their values on a device."""
        placed = Lengths.unchecked(leaf, self.width, self.policy)
        placed._host, placed._full, placed._tokens = self.host, self._full, self._tokens
        return placed

    @classmethod
    def of(
        cls,
        lengths: object,
        width: int,
        backend: Backend,
        *,
        function: str,
        batch: int | None,
        argument: str = "lengths",
    ) -> Lengths:
        """Check the lengths of an argument against its array; None = every row full."""
        named = {"function": function, "argument": argument}
        is_compiling = backend.is_compiling()
        if lengths is None and batch is not None:
            return cls.full(batch, width, backend)
        if isinstance(lengths, Lengths):
            result = lengths
            result._check(width, **named)
            if is_compiling and not lengths.is_traced:  # or they would be constants
                result = cls.unchecked(backend.asarray(lengths.host), width, lengths.policy)
        elif is_compiling or (backend.owns(lengths) and backend.is_traced(lengths)):
            values = as_array(backend, function, argument, lengths)
            check_form(values.shape, str(values.dtype), **named)
            result = cls.unchecked(values, width)
        else:
            result = cls._from_checked(check_lengths(lengths, width, **named), width)
            result.leaf = lengths if backend.owns(lengths) else result.leaf
        if batch is not None and result.batch != batch:
            got, remedy = f"{result.batch} lengths", "Give one length for each row of the batch."
            raise LengthsError.of(function, argument, got, f"{batch}, one for each row", remedy)
        return result

    def _check(self, width: int, function: str, argument: str) -> None:
        """Refuse lengths of another width, or an invalid leaf of a transformation."""
        if self.width != width:
            got = f"Lengths made for width {self.width}"
            remedy = f"Make them with ragged.Lengths(lengths, width={width})."
            raise LengthsError.of(function, argument, got, f"width {width}, the array's", remedy)
        if self.is_traced:
            check_form(self.leaf.shape, str(self.leaf.dtype), function, argument)
        elif self._host is None or self._host.ndim != 1:
            self._host = check_lengths(self.leaf, width, function=function, argument=argument)

    def widened(self, width: int, *, function: str) -> Lengths:
        """The same lengths for an array of another width.

        Raises:
            LengthsError: a row is longer, or may be: traced lengths have no values yet.
        """
        if width == self.width:
            return self
        if self.is_traced and width < self.width:
            got, expected = f"{width} with traced lengths", f"at least the width {self.width}"
            remedy = "Traced lengths cannot be checked against a smaller width; keep the width."
            raise LengthsError.of(function, "max_length", got, expected, remedy)
        if self.is_traced:
            wider = Lengths.unchecked(self.leaf, width, self.policy)
            wider._is_unread = self._is_unread
            return wider
        longest = int(self.host.max(initial=0))
        if longest > width:
            expected = f"at least the longest row, {longest}"
            remedy = "Nothing is truncated; cut the rows yourself."
            raise LengthsError.of(function, "max_length", str(width), expected, remedy)
        return Lengths(self.host, width, self.policy)

    def __len__(self) -> int:
        return int(self.batch)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lengths) or self.is_traced or other.is_traced:
            return NotImplemented
        if (self.width, self.policy) != (other.width, other.policy):
            return False
        left, right = np.asarray(self.leaf), np.asarray(other.leaf)
        comparable = (left.dtype.kind == "V") == (right.dtype.kind == "V")  # void: JAX's float0
        return self.leaf is other.leaf or (comparable and np.array_equal(left, right))

    def __hash__(self) -> int:
        return hash((self.width, self.policy, self.host.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Lengths.unchecked, (self.leaf, self.width, self.policy)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.host, dtype=dtype)

    def __repr__(self) -> str:
        known = hasattr(self.leaf, "tolist") and not self.is_traced
        values = "traced" if self.is_traced else self.leaf.tolist() if known else repr(self.leaf)
        policy = "" if self.policy == "auto" else f", policy={self.policy!r}"
        return f"Lengths({values}, width={self.width}{policy})"


@lru_cache(maxsize=64)  # called for every batch without lengths
def _full(batch: int, width: int) -> Lengths:
    values = np.full(batch, width, np.int64)
    values.setflags(write=False)
    lengths = Lengths._from_checked(values, width)
    lengths._full = True
    return lengths


def check_lengths(
    lengths: object, width: int | None, *, function: str, argument: str = "lengths"
) -> np.ndarray:
    """Return lengths as read-only int64 on the host, or refuse them."""
    values = lengths.host if isinstance(lengths, Lengths) else _to_host(lengths, function, argument)
    if values.size == 0 and values.ndim == 1:
        values = values.astype(np.int64)  # an empty list becomes float64
    check_form(values.shape, values.dtype.name, function, argument)
    return check_values(values, width, function=function, argument=argument)


def check_values(
    values: np.ndarray, width: int | None, *, function: str, argument: str = "lengths"
) -> np.ndarray:
    """Return integers of any shape as read-only int64, or refuse those that are no lengths."""
    if values.dtype.kind not in "iu":
        _check_dtype(values.dtype.name, function, argument)
    most = np.iinfo(np.int64).max if width is None else width
    expected = f"at most {most}" if width is None else f"at most the width {width}"
    remedy = "Give the lengths of this array, or an array that holds all steps."
    bounds = (
        (values < 0, "lengths of 0 or more", "Count the valid steps of each row."),
        (values > most, expected, remedy),
    )
    for wrong, expected, remedy in bounds:
        if wrong.any():
            row = np.unravel_index(int(np.argmax(wrong)), values.shape)
            position = ", ".join(map(str, row))
            got = f"{values[row]} at row {position}"
            raise LengthsError.of(function, argument, got, expected, remedy)
    values = values.astype(np.int64)
    values.setflags(write=False)
    return values


def check_form(
    shape: tuple[int, ...], dtype: str, function: str, argument: str = "lengths"
) -> None:
    """Refuse lengths that are not a vector of integers."""
    if len(shape) != 1:
        got, expected = f"of shape {tuple(shape)}", "shape (batch,)"
        raise LengthsError.of(function, argument, got, expected, "Give one integer for each row.")
    _check_dtype(dtype, function, argument)


def _check_dtype(dtype: str, function: str, argument: str) -> None:
    if "int" not in dtype:
        remedy = "Round them yourself, or pass masks to ragged.lengths_from_mask()."
        raise LengthsError.of(function, argument, f"of dtype {dtype}", "integers", remedy)


def _to_host(lengths: object, function: str, argument: str = "lengths") -> np.ndarray:
    try:
        return as_host(function, argument, to_host(lengths))
    except Exception as error:  # conversion runs code of the value's class
        expected, remedy = "integers of shape (batch,)", "Give one integer for each row."
        raise LengthsError.of(function, argument, shown(lengths), expected, remedy) from error


def lengths_of_offsets(
    function: str,
    backend: Backend,
    offsets: object,
    tokens: int,
    lengths: object,
    max_length: object,
    *,
    side: str = "",
) -> Lengths:
    """Read the lengths of rows that lie end to end; traced offsets are checked as they run.

    Args:
        function: whose arguments these are.
        backend: whose arrays.
        offsets: `(batch + 1,)` integers.
        tokens: how many there are, of rows and beyond.
        lengths: refused.
        max_length: the longest that a row may be; None = read from offsets, or all tokens.
        side: what the arguments' names begin with, "q_" say.

    Raises:
        ArgumentError: lengths beside offsets.
        LengthsError: offsets that do not rise from 0 to at most the tokens that there are.
    """
    if lengths is not None:
        remedy = "Leave lengths out: offsets tell them."
        raise ArgumentError.of(function, f"{side}lengths", shown(lengths), "None", remedy)
    width = None if max_length is None else as_size(function, f"{side}max_length", max_length)
    argument = f"{side}offsets"
    ends = as_array(backend, function, argument, offsets)
    if ends.ndim != 1 or ends.shape[0] < 1 or "int" not in str(ends.dtype):
        got = f"{ends.dtype} of shape {tuple(ends.shape)}"
        raise LengthsError.of(function, argument, got, "integers (batch + 1,)", _OFFSETS)
    if backend.is_compiling() or backend.is_traced(ends):
        counts = ends[1:] - ends[:-1]
        is_whole = (ends[0] == 0) & (ends[-1] <= tokens)
        counts = backend.xp.where(is_whole, counts, backend.xp.full_like(counts, -1))
        return Lengths.unchecked(counts, tokens if width is None else width)
    host = as_host(function, argument, backend.to_numpy(ends))
    if host[0] != 0 or (host[1:] < host[:-1]).any() or host[-1] > tokens:
        expected = f"integers (batch + 1,) that rise from 0 to at most {tokens}"
        raise LengthsError.of(function, argument, shown(host.tolist()), expected, _OFFSETS)
    counts = np.diff(host.astype(np.int64))
    return Lengths(counts, int(counts.max(initial=0)) if width is None else width)
