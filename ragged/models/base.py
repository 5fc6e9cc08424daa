"""What all forecasting models share: description, forecast, and the checks at their door."""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple, Self, get_type_hints

import numpy as np

from ragged.backend import check_frameworks, get_backend
from ragged.checks import MOST_PARAMETERS, as_array, shown
from ragged.errors import OptionError, ShapeError
from ragged.lengths import Lengths
from ragged.ops.alignment import align_encoder_sequences, select_valid
from ragged.protocol import Array, Backend

MOST_LAYERS = 1024


class Forecast(NamedTuple):
    """What a model returns; what it does not have, or was not asked for, is None.

    Args:
        output: `(batch, decoder_time, output_size)`, exactly 0 at padding.
        attention: `(batch, heads, decoder_time, encoder_time + decoder_time)`, what each decoder
            step sees of the encoder's and the decoder's steps, both left aligned; where the call
            says `need_weights=True`.
        past_selection: `(batch, encoder_time, past_features)`, left aligned.
        future_selection: `(batch, decoder_time, future_features)`.
        static_selection: `(batch, 1 + static_features)`, the row's length first.
    """

    output: Array
    attention: Array = None
    past_selection: Array = None
    future_selection: Array = None
    static_selection: Array = None


class Inputs(NamedTuple):
    """A model's inputs, checked, left aligned, 0 at padding, with the lengths of both sides."""

    past: Array
    future: Array
    encoder: Lengths
    decoder: Lengths


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
    """A forecasting model: its arguments, and what it needs of its data.

    Each has an `encoder_alignment`, the side that `past` is on: a constant of the class, or one of
    its arguments; `future` is always on the left. `default_loss` trains a model of the default
    `output_size`.
    """

    default_loss: ClassVar[str] = "mse"
    decoder_alignment: ClassVar[str] = "left"

    def __post_init__(self) -> None:
        _check_types(self)
        check_at_least(self, 1, "past_features", "future_features")
        check_at_least(self, 1, "hidden_size", "num_layers", "output_size")
        check_at_least(self, 0, "seed")
        check_extent(self)
        check_rate(self, "dropout")

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
        """Undo `arguments`; unknown names and values of another type are refused."""
        unknown = sorted(set(arguments) - {field.name for field in fields(cls)})  # type: ignore[arg-type]
        if unknown:
            raise OptionError.of(
                cls.__name__,
                "init_args",
                f"naming {unknown[0]!r}",
                f"names among {[field.name for field in fields(cls)]}",  # type: ignore[arg-type]
                "Check the spelling.",
            )
        return cls.describe(**arguments)


def open_inputs(
    config: Any,
    backend: Backend,
    past: Array,
    future: Array,
    encoder_lengths: object,
    decoder_lengths: object,
    *,
    own: Array,
) -> Inputs:
    """Check and convert a model's inputs at the door, and bring them to the left.

    Args:
        own: one of the model's parameters, whose dtype and device are all the others'.
    """
    model = type(config).__name__
    check_frameworks(
        model,
        backend,
        past=past,
        future=future,
        encoder_lengths=encoder_lengths,
        decoder_lengths=decoder_lengths,
    )
    past = as_array(backend, model, "past", past, own)
    future = as_array(backend, model, "future", future, own)
    sides = (
        ("past", "encoder_time", past, config.past_features),
        ("future", "decoder_time", future, config.future_features),
    )
    for name, time, array, size in sides:
        if array.ndim != 3 or array.shape[2] != size:
            got = f"of shape {tuple(array.shape)}"
            remedy = f"Set {name}_features to the features of the data."
            raise ShapeError.of(model, name, got, f"(batch, {time}, {size})", remedy)
    batch = past.shape[0]
    if future.shape[0] != batch:
        got, expected = f"of {future.shape[0]} rows", f"{batch}, one for each row of `past`"
        raise ShapeError.of(model, "future", got, expected, "Give both sides of the same batch.")
    arrays = {"parameters": own, "past": past, "future": future}
    _, past, future = backend.promote_arrays(model, arrays).values()
    encoder, decoder = (
        Lengths.of(lengths, array.shape[1], backend, function=model, batch=batch)
        for lengths, array in ((encoder_lengths, past), (decoder_lengths, future))
    )
    if config.encoder_alignment == "right" and not encoder.is_full:
        past = align_encoder_sequences(past, encoder)
    else:
        past = select_valid(backend, past, encoder)
    return Inputs(past, select_valid(backend, future, decoder), encoder, decoder)


def check_batch(config: Any, batch: Any) -> None:
    """Refuse a batch whose context is on the other side than the model takes it."""
    needed = config.encoder_alignment
    if batch.encoder_alignment != needed:
        got = f"{batch.encoder_alignment} aligned in its encoder part"
        expected = f"{needed} aligned, which the model takes"
        remedy = f"Set data.encoder_alignment, or `alignment` of collate, to {needed!r}."
        raise OptionError.of(type(config).__name__, "batch", got, expected, remedy)


def interpretation(forecast: Forecast, batch: Any) -> dict[str, np.ndarray]:
    """Put what a forecast explains into a dict of host arrays, exactly 0 at padding."""
    encoder, decoder = batch.encoder_lengths, batch.decoder_lengths
    found = {
        "attention": forecast.attention,
        "past_selection": _at_valid(forecast.past_selection, encoder),
        "future_selection": _at_valid(forecast.future_selection, decoder),
        "static_selection": forecast.static_selection,
    }
    if forecast.static_selection is not None:  # rows that only fill the batch have no values
        filled = (batch.rows >= 0)[:, None]
        found["static_selection"] = np.where(filled, forecast.static_selection, 0)
    explained = {name: value for name, value in found.items() if value is not None}
    return {**explained, "encoder_lengths": encoder.host, "decoder_lengths": decoder.host}


def _at_valid(weights: np.ndarray | None, lengths: Lengths) -> np.ndarray | None:
    if weights is None:
        return None
    valid = np.arange(lengths.width)[None, :] < lengths.host[:, None]
    return np.where(valid[..., None], weights, 0)


def check_at_least(config: Model, least: int, *names: str) -> None:
    """Refuse arguments below the least value; those left at None are not looked at."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            model, expected = type(config).__name__, f"{least} or more"
            raise OptionError.of(model, name, shown(value), expected, "Raise it.")


def check_extent(config: Model) -> None:
    """Refuse sizes that no machine could hold, before anything is allocated."""
    arguments, model = config.arguments(), type(config).__name__
    layers = max(arguments["num_layers"], arguments.get("num_blocks", 1))
    if layers > MOST_LAYERS:
        name = "num_layers" if layers == arguments["num_layers"] else "num_blocks"
        raise OptionError.of(model, name, shown(layers), f"at most {MOST_LAYERS}", "Lower it.")
    sizes = [name for name in arguments if name.endswith(("_size", "_features"))]
    widest = max(sizes, key=lambda name: arguments[name] or 0)
    most = math.isqrt(MOST_PARAMETERS // (4 * layers))
    if arguments[widest] > most:
        expected = f"at most {most} with {layers} layers"
        raise OptionError.of(model, widest, shown(arguments[widest]), expected, "Lower it.")


def _check_types(config: Model) -> None:
    """Refuse values of another type; an integer is a float too, and a boolean no integer."""
    for name, expected in _field_types(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, np.generic):
            value = value.item()
            object.__setattr__(config, name, value)
        known = (expected, int) if expected is float else expected
        if not isinstance(value, known) or isinstance(value, bool) != (expected is bool):
            model, got = type(config).__name__, f"{shown(value)}, a {type(value).__name__}"
            wanted = getattr(expected, "__name__", str(expected))
            raise OptionError.of(model, name, got, wanted, "Change its type.")


@functools.cache
def _field_types(model: type[Model]) -> dict[str, Any]:
    hints = get_type_hints(model)
    return {each.name: hints[each.name] for each in fields(model)}  # type: ignore[arg-type]


def check_heads(config: Model, name: str) -> None:
    """Refuse a width that the heads cannot share out."""
    check_at_least(config, 1, "num_heads")
    size, num_heads = getattr(config, name), config.arguments()["num_heads"]
    if size % num_heads:
        got, expected = str(size), f"a multiple of num_heads, {num_heads}"
        raise OptionError.of(type(config).__name__, name, got, expected, "Change one of the two.")


def check_rate(config: Model, name: str) -> None:
    """Refuse a dropout rate outside 0..1."""
    value = getattr(config, name)
    if not 0 <= value < 1:
        model = type(config).__name__
        raise OptionError.of(model, name, shown(value), "0 or more, below 1", "Lower it.")
