"""Arguments at the door: what a public function makes of the values that it is given."""

from __future__ import annotations

from ragged.errors import DeviceError, DtypeError, refusal


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
    return DtypeError(refusal(function, argument, got, expected, remedy))


def device_error(function: str, argument: str, device: object, other: object) -> DeviceError:
    """Compose the error for an array that lies elsewhere than the others of its call."""
    got = f"on {device} beside others on {other}"
    expected, remedy = "one device for all of them", "Move one side to the other's device."
    return DeviceError(refusal(function, argument, got, expected, remedy))
