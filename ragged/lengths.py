"""`Lengths`: how long each row is, checked once at the door and trusted afterwards."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ragged.arguments import as_array, as_choice, as_host, as_size, shown
from ragged.backend import Array, Backend, HostData
from ragged.errors import LengthsError, refusal

POLICIES = ("auto", "rule", "always", "never", "segments")


class Stairs(NamedTuple):
    """What of a schedule is fixed in a compiled program.

    Args:
        rows: how many of the sorted rows each piece runs; the first one all of them.
        capacity: for how many steps of rows there is room; at least what the pieces compute.
    """

    rows: tuple[int, ...]
    capacity: int


class Lengths(HostData):
    """The lengths of a batch, with a host view, a width and a packing policy.

    Made once, at collate, so that no later call has to look at a device array. For JAX it is a
    pytree: the lengths are its leaf, all else is static.

    Args:
        lengths: `(batch,)` integers; a list, a NumPy array, a framework array or `Lengths`.
        width: the array's `time` size; the longest row if not given.
        policy: how a backend may run them. "always" packs, "never" pads, "rule" asks
            `should_use_packing`, "segments" lets rows that have ended leave the batch in a few
            steps, "auto" takes what is cheapest there (see `ragged.schedule`). It changes speed,
            never numbers.
        typical: the lengths of a typical batch of this shape. What a compiler fixes of the
            schedule is then made from those, so that all batches of the shape share a program.

    Raises:
        LengthsError: lengths not integer, not one-dimensional, negative or above the width.
        OptionError: an unknown policy.

    Example:
        >>> lengths = Lengths([3, 0, 5], width=6)
        >>> lengths
        Lengths([3, 0, 5], width=6)
        >>> lengths.tokens, round(lengths.waste, 2)
        (8, 0.56)
    """

    __slots__ = ("_traced", "_values", "is_full", "plans", "policy", "stairs", "typical", "width")

    def __init__(
        self,
        lengths: object,
        width: int | None = None,
        policy: str = "auto",
        *,
        typical: Lengths | None = None,
    ) -> None:
        policy = as_choice("Lengths", "policy", policy, POLICIES)
        width = None if width is None else as_size("Lengths", "width", width)
        values = check_lengths(lengths, width, function="Lengths")
        width = as_size("Lengths", "width", values.max(initial=0) if width is None else width)
        self._fill(values, width, policy, is_full=bool((values == width).all()), typical=typical)

    def _fill(
        self,
        values: np.ndarray | None,
        width: int,
        policy: str,
        *,
        is_full: bool,
        typical: Lengths | None = None,
    ) -> None:
        self._values, self.width, self.policy, self.is_full = values, width, policy, is_full
        self._traced: Array = None
        self.stairs: Stairs | None = None  # set by whoever compiles, once and for all
        self.typical = typical
        self.plans: dict[Any, Any] = {}  # the schedules made so far

    @property
    def host(self) -> np.ndarray:
        """The lengths as read-only int64 on the host.

        Raises:
            LengthsError: they are traced by a compiler and have no values yet.
        """
        if self._values is None:
            raise LengthsError(
                "Lengths.host: the lengths are traced and have no values; expected concrete "
                "lengths. Read them outside the compiled function."
            )
        return self._values

    @property
    def is_traced(self) -> bool:
        """Whether a compiler holds the lengths, so that they have no values yet."""
        return self._values is None

    @property
    def tokens(self) -> int:
        """The number of valid steps."""
        return int(self.host.sum())

    @property
    def waste(self) -> float:
        """The share of the padded array that is padding."""
        size = len(self) * self.width
        return 1.0 - self.tokens / size if size else 0.0

    @property
    def batch(self) -> int:
        """The number of rows; a symbol where a compiler leaves it open."""
        return (self._traced if self._values is None else self._values).shape[0]

    def to(self, backend: Backend, like: Array = None) -> Array:
        """The lengths as an integer array of a backend, on the device of `like`."""
        return backend.asarray(self._traced if self._values is None else self._values, like=like)

    @classmethod
    def of(
        cls, lengths: object, width: int, backend: Backend, *, function: str, batch: int | None
    ) -> Lengths:
        """Check what a function was given against the array it came with; None = every row full."""
        recording = backend.is_recording()
        if lengths is None and batch is not None and recording:
            return cls.traced(backend.xp.full((batch,), width), width, is_full=True)
        if lengths is None and batch is not None:
            lengths = [width] * batch
        if isinstance(lengths, Lengths):
            if lengths.width != width:
                raise LengthsError(
                    refusal(
                        function,
                        "lengths",
                        f"Lengths made for width {lengths.width}",
                        f"width {width}, the array's",
                        f"Make them with ragged.Lengths(lengths, width={width}).",
                    )
                )
            result = lengths
            if recording and not lengths.is_traced:  # else the program would fit these rows alone
                result = cls.traced(backend.asarray(lengths.host), width, lengths.policy)
        elif recording or (backend.owns(lengths) and backend.is_traced(lengths)):
            values = as_array(backend, function, "lengths", lengths)
            check_form(values.shape, str(values.dtype), function)
            result = cls.traced(values, width)
        else:
            result = cls._trusted(check_lengths(lengths, width, function=function), width)
        if batch is not None and result.batch != batch:
            raise LengthsError(
                refusal(
                    function,
                    "lengths",
                    f"{result.batch} lengths",
                    f"{batch}, one for each row",
                    "Give one length for each row of the batch.",
                )
            )
        return result

    @classmethod
    def traced(
        cls,
        values: Array,
        width: int,
        policy: str = "auto",
        is_full: bool = False,
        stairs: Stairs | None = None,
    ) -> Lengths:
        """Wrap lengths that a compiler traces: they cannot be checked here."""
        self = object.__new__(cls)
        self._fill(None, width, policy, is_full=is_full)
        self._traced, self.stairs = values, stairs
        return self

    @classmethod
    def _trusted(cls, values: np.ndarray, width: int) -> Lengths:
        self = object.__new__(cls)
        self._fill(values, width, "auto", is_full=bool((values == width).all()))
        return self

    def __len__(self) -> int:
        return int(self.batch)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lengths) or self.is_traced or other.is_traced:
            return NotImplemented
        return (self.width, self.policy) == (other.width, other.policy) and np.array_equal(
            self.host, other.host
        )

    def __hash__(self) -> int:
        return hash((self.width, self.policy, self.host.tobytes()))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.host, dtype=dtype)

    def __repr__(self) -> str:
        shown = "traced" if self._values is None else self._values.tolist()
        policy = "" if self.policy == "auto" else f", policy={self.policy!r}"
        return f"Lengths({shown}, width={self.width}{policy})"


def check_lengths(lengths: object, width: int | None, *, function: str) -> np.ndarray:
    """Return lengths as read-only int64 on the host, or refuse them."""
    values = lengths.host if isinstance(lengths, Lengths) else _to_host(lengths, function)
    if values.size == 0 and values.ndim == 1:
        values = values.astype(np.int64)  # an empty list has no integer type of its own
    check_form(values.shape, str(values.dtype), function)
    values = values.astype(np.int64)
    values.setflags(write=False)
    if (values < 0).any():
        row = int(np.argmax(values < 0))
        raise LengthsError(
            refusal(
                function,
                "lengths",
                f"{values[row]} at row {row}",
                "lengths of 0 or more",
                "Count the valid steps of each row.",
            )
        )
    if width is not None and (values > width).any():
        row = int(np.argmax(values > width))
        raise LengthsError(
            refusal(
                function,
                "lengths",
                f"{values[row]} at row {row}",
                f"at most the width {width}",
                "Give the lengths of this array, or an array that holds all steps.",
            )
        )
    return values


def check_form(shape: tuple[int, ...], dtype: str, function: str) -> None:
    """Refuse lengths that are not a vector of integers."""
    if len(shape) != 1:
        raise LengthsError(
            refusal(
                function,
                "lengths",
                f"of shape {tuple(shape)}",
                "shape (batch,)",
                "Give one integer for each row.",
            )
        )
    if "int" not in dtype:
        raise LengthsError(
            refusal(
                function,
                "lengths",
                f"of dtype {dtype}",
                "integers",
                "Round them yourself, or pass masks to ragged.lengths_from_mask().",
            )
        )


def _to_host(lengths: object, function: str = "Lengths") -> np.ndarray:
    try:
        detach = getattr(lengths, "detach", None)
        return as_host(function, "lengths", lengths if detach is None else detach().cpu())
    except Exception as error:  # it is the value's own code that converts it
        expected, remedy = "integers of shape (batch,)", "Give one integer for each row."
        raise LengthsError(
            refusal(function, "lengths", shown(lengths), expected, remedy)
        ) from error
