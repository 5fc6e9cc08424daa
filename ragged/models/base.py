"""What all forecasting models share: description, forecast, and the checks at their door."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple, Self

from ragged.backend import Array, Backend, as_own, check_frameworks, get_backend
from ragged.errors import OptionError, ShapeError, refusal
from ragged.lengths import Lengths


class Forecast(NamedTuple):
    """What a model returns: `output (batch, decoder_time, output_size)`, exactly 0 at padding."""

    output: Array


class ModelType(type):
    """Calling a model's name gives the chosen backend's module; `describe` the description."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Build the chosen backend's native module."""
        return get_backend().create_model(cls.describe(*args, **kwargs))

    def describe(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the checked, frozen description alone."""
        return super().__call__(*args, **kwargs)

    @property
    def __signature__(cls) -> inspect.Signature:
        parameters = list(
            inspect.signature(type.__getattribute__(cls, "__init__")).parameters.values()
        )[1:]
        return inspect.Signature(parameters)


class Model(metaclass=ModelType):
    """A forecasting model: its arguments, and what it needs of its data."""

    encoder_alignment: ClassVar[str]

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, plain values that a YAML file can hold."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def to_config(self) -> dict[str, Any]:
        """The `class_path` and `init_args` that name this model in a YAML file."""
        return {
            "class_path": f"ragged.models.{type(self).__name__}",
            "init_args": self.arguments(),
        }

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """Undo `arguments`; unknown names are refused."""
        unknown = sorted(set(arguments) - {field.name for field in fields(cls)})  # type: ignore[arg-type]
        if unknown:
            raise OptionError(
                refusal(
                    cls.__name__,
                    "init_args",
                    f"naming {unknown[0]!r}",
                    f"names among {[field.name for field in fields(cls)]}",  # type: ignore[arg-type]
                    "Check the spelling.",
                )
            )
        return cls.describe(**arguments)


def check_inputs(
    config: Any,
    backend: Backend,
    past: Array,
    future: Array,
    encoder_lengths: object,
    decoder_lengths: object,
) -> tuple[Array, Array, Lengths]:
    """Check and convert a model's inputs and its decoder lengths at the door."""
    model = type(config).__name__
    check_frameworks(
        model,
        backend,
        past=past,
        future=future,
        encoder_lengths=encoder_lengths,
        decoder_lengths=decoder_lengths,
    )
    past = as_own(backend, past)
    future = as_own(backend, future)
    sides = (
        ("past", "encoder_time", past, config.past_features),
        ("future", "decoder_time", future, config.future_features),
    )
    for name, time, array, size in sides:
        if array.ndim != 3 or int(array.shape[2]) != size:
            raise ShapeError(
                refusal(
                    model,
                    name,
                    f"of shape {tuple(array.shape)}",
                    f"(batch, {time}, {size})",
                    f"Set {name}_features to the features of the data.",
                )
            )
    batch, width = int(future.shape[0]), int(future.shape[1])
    if int(past.shape[0]) != batch:
        raise ShapeError(
            refusal(
                model,
                "future",
                f"of {batch} rows",
                f"{int(past.shape[0])}, one for each row of `past`",
                "Give both sides of the same batch.",
            )
        )
    return past, future, Lengths.of(decoder_lengths, width, backend, function=model, batch=batch)


def check_at_least(model: str, least: float, **values: float) -> None:
    """Refuse sizes below the least value."""
    for name, value in values.items():
        if value < least:
            raise OptionError(refusal(model, name, repr(value), f"{least} or more", "Raise it."))


def check_rate(model: str, **values: float) -> None:
    """Refuse dropout rates outside 0..1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise OptionError(refusal(model, name, repr(value), "0 or more, below 1", "Lower it."))
