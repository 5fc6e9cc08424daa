"""Argument validation: conversion and checks of the values passed to public functions.

Lists, numbers and whatever NumPy reads become arrays of a backend; sizes, flags, numbers and names
are plain Python values. Unusable values raise an error that names the argument.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragged.errors import ArgumentError, DeviceError, DtypeError, OptionError, ShapeError

if TYPE_CHECKING:
    from ragged.protocol import Array, Backend

MAX_SIZE = 2**31 - 1  # lengths are int32 in JAX and in the kernels
MAX_STEPS = 2**28  # of a row padded to `max_length`: a longer one is a mistake
MAX_ELEMENTS = 2**31
DTYPES = ("float16", "bfloat16", "float32", "float64")  # that layers have
MAX_PARAMETERS = 2**30  # of a stack of layers, 4 GiB in float32


def as_array(
    backend: Backend, function: str, argument: str, value: object, like: Array = None
) -> Array:
    """Return a backend's array unchanged, and convert other values that hold numbers.

    Floats that are no array of a framework, a list's or NumPy's, take the dtype of `like`. Without
    it NumPy's keep their own, and Python's get the framework's default.

    Args:
        like: an array of the call, on whose device a new one is put.

    Raises:
        DtypeError: the value holds no numbers, as strings, objects and dates do not; or integers
            that the framework has no dtype for.
        ShapeError: a list whose rows differ in length.
    """
    if backend.owns(value):
        if not hasattr(value, "ndim"):  # a module
            raise _not_an_array(function, argument, value)
        return value
    dtype = None if like is None else _floating(backend, like)
    if backend.is_compiling():  # there are no host arrays while tracing
        array = backend.asarray(value, like=like)
    else:
        host = as_host(function, argument, value)
        is_python = isinstance(value, (list, tuple, float)) and host.dtype == np.float64
        source = host.tolist() if is_python and dtype is None else host
        array = backend.asarray(source, like=like)
        _check_range(backend, function, argument, host, array)
    if dtype is not None and _floating(backend, array) is not None:
        return backend.xp.astype(array, dtype)
    return array


def as_arrays(backend: Backend, function: str, values: Mapping[str, object]) -> dict[str, Array]:
    """Convert values by `as_array`, with the dtype and the device of the framework's among them."""
    arrays: dict[str, Array] = {}
    like = None
    for argument in sorted(values, key=lambda each: not backend.owns(values[each])):
        array = arrays[argument] = as_array(backend, function, argument, values[argument], like)
        if like is None or backend.xp.isdtype(array.dtype, "real floating"):
            like = array
    return {argument: arrays[argument] for argument in values}


def as_host(function: str, argument: str, value: object) -> np.ndarray:
    """Convert a value that holds numbers to a NumPy array in native byte order.

    NumPy's `longdouble`, which no framework has, becomes float64.
    """
    if isinstance(value, np.ma.MaskedArray):
        expected = "a plain one, whose padding `lengths` or `mask` tell"
        remedy = "Take its data, and its mask apart."
        raise DtypeError.of(function, argument, "a masked array", expected, remedy)
    try:
        host = np.asarray(value)
    except Exception as error:  # conversion runs code of the value's class
        if isinstance(value, (list, tuple)) and isinstance(error, ValueError):
            got, remedy = f"a {type(value).__name__} of uneven rows", "Pad them, and give lengths."
            raise ShapeError.of(function, argument, got, "rows alike", remedy) from error
        raise _not_an_array(function, argument, value) from error
    if host.dtype.kind not in "biufc":
        if host.dtype.name == "bfloat16":  # no dtype of NumPy itself
            return host.astype(np.float32)
        raise _not_an_array(function, argument, value, host)
    if host.dtype.char in "gG":
        with np.errstate(over="ignore"):
            return host.astype(np.float64 if host.dtype.char == "g" else np.complex128)
    if min(host.strides, default=0) < 0:  # which torch does not support
        host = host.copy()
    return host if host.dtype.isnative else host.astype(host.dtype.newbyteorder("="))


def _floating(backend: Backend, array: Array) -> Any:
    """Return the dtype of a floating array, None of any other."""
    return array.dtype if backend.xp.isdtype(array.dtype, "real floating") else None


def _check_range(
    backend: Backend, function: str, argument: str, host: np.ndarray, array: Array
) -> None:
    """Refuse integers that a framework's narrower dtype has changed."""
    if host.dtype.kind not in "iu" or host.dtype.itemsize < 8 or not host.size:
        return
    info = backend.xp.iinfo(array.dtype)
    if host.min() < info.min or host.max() > info.max:
        got, expected = f"of integers beyond {array.dtype}", f"integers that {array.dtype} holds"
        raise DtypeError.of(function, argument, got, expected, "Convert them to floats.")


def _not_an_array(
    function: str, argument: str, value: object, host: np.ndarray | None = None
) -> DtypeError:
    got, remedy = shown(value), "Convert it to floats or integers first."
    has_dtype = hasattr(value, "dtype") and not hasattr(value, "todense")
    if host is not None and (has_dtype or isinstance(value, (list, tuple))):
        got = f"{got} of dtype {host.dtype}"
    elif getattr(value, "is_nested", False):
        got, remedy = "a nested tensor", "Convert it by to_padded_tensor(0.0), and give lengths."
    elif hasattr(value, "to_dense"):  # torch's sparse layouts, and oneDNN's
        got = f"{got} of layout {getattr(value, 'layout', None)}"
        remedy = "Convert it by to_dense()."
    elif hasattr(value, "todense"):  # JAX's sparse arrays, and SciPy's
        got, remedy = f"{got}, which is sparse", "Convert it by todense()."
    return DtypeError.of(function, argument, got, "an array of numbers", remedy)


def as_size(
    function: str, argument: str, value: Any, *, minimum: int = 0, maximum: int | None = MAX_SIZE
) -> int:
    """Return an integer within its bounds; symbolic sizes are returned unchanged.

    Raises:
        OptionError: no integer, or one outside.
    """
    if isinstance(value, bool) or not isinstance(value, int):  # a check that Dynamo can trace
        value = _as_index(function, argument, value, f"an integer of {minimum} or more")
        if not isinstance(value, int):
            return value
    if value < minimum:
        raise OptionError.of(function, argument, shown(value), f"{minimum} or more", "Raise it.")
    if maximum is not None and value > maximum:
        raise OptionError.of(function, argument, shown(value), f"at most {maximum}", "Lower it.")
    return value


def _as_index(function: str, argument: str, value: Any, expected: str) -> Any:
    """Convert a NumPy scalar or 0-d array to int; symbolic sizes are returned unchanged."""
    if hasattr(type(value), "__index__") and not isinstance(value, (bool, np.bool_)):
        if not hasattr(value, "dtype"):
            return value  # a symbolic size
        try:
            return operator.index(value)
        except Exception:  # conversion runs code of the value's class
            expected = f"{expected}, without axes"
    raise OptionError.of(function, argument, shown(value), expected, "Give a number.")


def as_width(backend: Backend, function: str, value: Any, *sizes: int) -> int:
    """Return the width of an array to allocate, if a machine can hold it.

    Args:
        sizes: the array's other sizes.
    """
    width = as_size(function, "max_length", value, maximum=None)
    elements = math.prod((width, *(size for size in sizes if isinstance(size, int) and size)))
    if backend.is_compiling() or not isinstance(elements, int):
        return width  # a check would specialize the program on the size
    if width > MAX_STEPS or elements > MAX_ELEMENTS:
        expected = f"at most {MAX_STEPS} steps, and {MAX_ELEMENTS} elements in all"
        raise OptionError.of(function, "max_length", shown(width), expected, "Lower it.")
    return width


def as_flag(function: str, argument: str, value: Any) -> bool:
    """Return a bool; strings, lists and arrays are refused."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise OptionError.of(function, argument, shown(value), "True or False", "Give one of the two.")


def as_number(function: str, argument: str, value: Any) -> float:
    """Return a real number that is not NaN."""
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    is_number = is_number and not isinstance(value, bool) and value == value
    if not is_number or (isinstance(value, int) and abs(value) > sys.float_info.max):
        remedy = "Give a float or an integer."
        raise OptionError.of(function, argument, shown(value), "a number", remedy)
    return value if isinstance(value, (int, float)) else value.item()


def as_finite(function: str, argument: str, value: Any) -> float:
    """Return a real number that is finite."""
    number = as_number(function, argument, value)
    if not math.isfinite(number):
        raise OptionError.of(function, argument, shown(value), "a finite number", "Give one.")
    return number


def as_numbers(function: str, argument: str, values: Any) -> list[float]:
    """Return a sequence of real numbers."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, (list, tuple)):
        raise OptionError.of(function, argument, shown(values), "numbers in order", "Give a tuple.")
    return [float(as_number(function, argument, value)) for value in values]


def as_rate(function: str, argument: str, value: Any) -> float:
    """Return a number within 0 and 1."""
    rate = as_number(function, argument, value)
    if not 0 <= rate <= 1:
        remedy = "It is the share of what is dropped."
        raise OptionError.of(function, argument, shown(value), "within 0 and 1", remedy)
    return rate


def as_choice(function: str, argument: str, value: Any, choices: Sequence[str]) -> str:
    """Return one of the known names."""
    if not isinstance(value, str) or value not in choices:
        expected = f"one of {tuple(choices)}"
        raise OptionError.of(function, argument, shown(value), expected, "Name one of them.")
    return value


def as_path(function: str, argument: str, value: Any) -> Path:
    """Return a path of the file system."""
    if not isinstance(value, (str, os.PathLike)) or "\0" in (path := os.fspath(value)):
        expected, remedy = "a path, a str or pathlib.Path", "Name a folder."
        raise ArgumentError.of(function, argument, shown(value), expected, remedy)
    return Path(path)


def check(config: object, name: str, is_valid: bool, expected: str) -> None:
    """Refuse a field of a configuration whose value is not valid."""
    if not is_valid:
        got = repr(getattr(config, name))
        raise OptionError.of(type(config).__name__, name, got, expected, "Change it.")


def dtype_error(function: str, argument: str, dtype: object, other: object = None) -> DtypeError:
    """Compose the error for an array of a dtype that the function does not compute in.

    Args:
        other: the dtype of the call's other arrays, where the two differ.
    """
    if other is None:
        got, expected = f"of dtype {dtype}", "a floating dtype of 16, 32 or 64 bits"
        remedy = "Convert it to one, float32 for most uses."
    else:
        got = f"of dtype {dtype} beside others of {other}"
        expected, remedy = "one dtype in all of them", "Convert one side to the other's dtype."
    return DtypeError.of(function, argument, got, expected, remedy)


def device_error(function: str, argument: str, device: object, other: object) -> DeviceError:
    """Compose the error for an array on another device than the others of its call."""
    got = f"on {device} beside others on {other}"
    expected, remedy = "one device for all of them", "Move one side to the other's device."
    return DeviceError.of(function, argument, got, expected, remedy)


class _Short(reprlib.Repr):
    """Show lists cut short; it is sure to end whatever their elements are."""

    def repr_int(self, x: int, level: int) -> str:
        return shown(x)


_SHORT = _Short()
_SHORT.maxlevel = 2  # of lists in lists: a batch has a thousand numbers within six of each


def shown(value: object) -> str:
    """Show a value in a message: plain ones as they are, others by their type.

    >>> shown("top"), shown([[1], [2, 3]]), shown([[[1.5]]]), shown([10**5000]), shown(object())
    ("'top'", '[[1], [2, 3]]', '[[[...]]]', '[an integer of 16610 bits]', 'an object')
    """
    if isinstance(value, int) and abs(value).bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, (bool, int, float, np.number)):
        return str(value)
    if isinstance(value, (str, bytes)):
        text = repr(value[:60])
        return text if len(value) <= 60 else f"{text}..."
    if isinstance(value, (list, tuple)):
        return _SHORT.repr(value)
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
