"""The errors of `ragged`: typed, with a remedy in every message."""

from __future__ import annotations

from pathlib import Path
from typing import Self


class RaggedError(Exception):
    """The base of all errors; each subclass is also a built-in type that users would catch.

    Example:
        >>> import ragged
        >>> try:
        ...     ragged.Lengths([3, -1])
        ... except ragged.RaggedError as error:
        ...     print(type(error).__name__, isinstance(error, ValueError))
        LengthsError True
    """

    @classmethod
    def of(
        cls,
        function: str,
        argument: str | Path,
        got: object,
        expected: object,
        remedy: str,
        *,
        file: Path | None = None,
    ) -> Self:
        """Compose a message in the form of all validation errors.

        Args:
            function: its name; or, ending in a colon, the stage of a command.
            argument: its name; or the path of a file or folder.
            file: the file of the argument, if it is from a file.

        >>> print(OptionError.of("align_sequences", "source", "'top'", "a side", "Name one."))
        align_sequences(): `source` is 'top'; expected a side. Name one.
        >>> print(ConfigError.of("config:", "seed", -1, "0 or more", "Raise it."))
        config: `seed` is -1; expected 0 or more. Raise it.
        """
        location = function if function.endswith(":") else f"{function}():"
        name = repr(str(argument)) if isinstance(argument, Path) else f"`{argument}`"
        within = "" if file is None else f" of {str(file)!r}"
        return cls(f"{location} {name}{within} is {got}; expected {expected}. {remedy}")


class LengthsError(RaggedError, ValueError):
    """Lengths that cannot belong to the array they came with."""


class ShapeError(RaggedError, ValueError):
    """An array of a shape the function does not take."""


class ArgumentError(RaggedError, TypeError):
    """An argument of a type that the function does not take."""


class DtypeError(RaggedError, TypeError):
    """An array of a dtype the function does not compute in."""


class DeviceError(RaggedError, ValueError):
    """Arrays of one call that lie on several devices."""


class DerivativeError(RaggedError, NotImplementedError):
    """A derivative or transformation that a layer lacks; the message names one that has it."""


class TargetError(RaggedError, ValueError):
    """A target for which the loss is undefined, such as a label that is no class."""


class ConversionError(RaggedError, ValueError):
    """Parameters that another library's cell cannot hold, or that are none of its own."""


class OptionError(RaggedError, ValueError):
    """An option outside its known values."""


class BackendError(RaggedError, RuntimeError):
    """No backend, an unknown one, or one that lacks members."""


class MissingMemberError(NotImplementedError):
    """A member of `Backend` that a partial backend lacks, in use; the suite skips such tests."""


class MixedFrameworksError(RaggedError, TypeError):
    """Arrays of two frameworks in one call."""


class DataError(RaggedError, ValueError):
    """A table that cannot be turned into sequences without losing or inventing data."""


class MissingExtraError(RaggedError, ImportError):
    """A format whose reader is not installed; the message names the extra to install."""


class ConfigError(RaggedError, ValueError):
    """A configuration or command line that names what does not exist."""


class CheckpointError(RaggedError, ValueError):
    """A checkpoint or run folder that is incomplete, foreign or damaged."""


class ArtefactError(RaggedError, ValueError):
    """An exported model that is incomplete, foreign or damaged."""


class ExportError(RaggedError, RuntimeError):
    """A model that could not be exported, or whose export gives other forecasts."""


class KernelError(RaggedError, RuntimeError):
    """A compiled kernel that failed for another reason than its inputs or memory."""


class NotFittedError(RaggedError, ValueError, AttributeError):
    """A forecaster that has to be trained or loaded first."""


class DivergenceError(RaggedError, ArithmeticError):
    """A loss that is no longer finite."""
