"""What a kernel is called with: the structs of `device_rows.hpp` and `calls.cuh`."""

from __future__ import annotations

import ctypes


class Rows(ctypes.Structure):
    """`DeviceRows`: tables on the device, and how they are read."""

    _fields_ = (
        ("row_base", ctypes.c_void_p),
        ("step_base", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("resets", ctypes.c_void_p),
        ("batch", ctypes.c_int),
        ("reverse", ctypes.c_int),
        ("to_initial", ctypes.c_int),
    )


def _call(*arrays: str) -> tuple[tuple[str, type], ...]:
    return (("rows", Rows), *((name, ctypes.c_void_p) for name in arrays))


class Forward(ctypes.Structure):
    """`ForwardCall`."""

    _fields_ = _call("of_x", "h0", "c0", "weight_hh", "bias_hh", "y", "h", "c", "kept")


class Backward(ctypes.Structure):
    """`BackwardCall`."""

    _fields_ = _call(
        *("weight_hh", "h0", "c0", "y", "kept", "dy", "dh", "dc"),
        *("dsums", "h_before", "dh0", "dc0"),
    )


CALLS: dict[str, type[Forward] | type[Backward]] = {"Forward": Forward, "Backward": Backward}
