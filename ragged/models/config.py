"""`ModelConfig`: the checked arguments of a model."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, get_origin, get_type_hints

import numpy as np

from ragged.checks import MAX_PARAMETERS, shown
from ragged.errors import OptionError
from ragged.models.categories import Variables, default_embedding_size
from ragged.models.row_normalization import KINDS, NONE

MAX_LAYERS = 1024
MAX_LABELS = 2**20  # of a feature; float32 holds them exactly


@dataclass(frozen=True)
class ModelConfig:
    """The arguments of a forecasting model, checked and frozen; see the models for their meaning.

    Each has an `encoder_alignment`, the side that `past` is on: a constant of the class, or one of
    its arguments; `future` is always on the left. `default_loss` trains a model of the default
    `output_size`.

    Every model takes `row_normalization`, one of `KINDS`, and `target_features`: how many of the
    last features of `past` are targets, which it normalises and whose forecasts are its outputs,
    as many for each; and `season`, the steps of one. None, like "none", leaves rows as they are;
    `ragged train` then chooses.

    Features may be labels of categories. `cardinalities` says so for each feature of `past`, of
    which those of `future` are the first: 0 of a number, else the rows of the table of learned
    embeddings in which its value is the number of a row; see `Variables`. `embedding_size` is the
    width of a row, by default `default_embedding_size` of its cardinality.

    Example:
        >>> import ragged
        >>> config = ragged.models.XTFT.describe(2, 1, hidden_size=8)
        >>> config.model, config.arguments()["output_size"]
        ('XTFT', 7)
    """

    past_features: int
    future_features: int
    hidden_size: int = 128
    row_normalization: str | None = field(default=None, kw_only=True)
    target_features: int = field(default=1, kw_only=True)
    season: int = field(default=1, kw_only=True)
    cardinalities: tuple[int, ...] = field(default=(), kw_only=True)
    embedding_size: int | None = field(default=None, kw_only=True)

    decoder_alignment: ClassVar[str] = "left"
    default_loss: ClassVar[str] = "mse"

    def __post_init__(self) -> None:
        _check_types(self)
        check_at_least(self, 1, "past_features", "future_features", "target_features", "season")
        check_at_least(self, 1, "hidden_size", "num_layers", "output_size", "embedding_size")
        check_at_least(self, 0, "seed")
        check_extent(self)
        check_rate(self, "dropout")
        check_row_normalization(self)
        check_cardinalities(self)

    @property
    def model(self) -> str:
        """The model's name in `ragged.models`."""
        return type(self).__name__.removesuffix("Config")

    @property
    def past_variables(self) -> Variables:
        """Which features of `past` are numbers, and which are labels."""
        return self._variables(self.cardinalities or (0,) * self.past_features)

    @property
    def future_variables(self) -> Variables:
        """Which features of `future` are numbers, and which are labels, of the past's tables."""
        count = self.future_features
        return self._variables(self.cardinalities[:count] or (0,) * count)

    @property
    def input_sizes(self) -> tuple[int, int]:
        """How wide the steps of `past` and of `future` are, with the labels embedded."""
        return self.past_variables.width, self.future_variables.width

    def _variables(self, cardinalities: Sequence[int]) -> Variables:
        sizes = [self.size_of_embedding(count) for count in cardinalities if count]
        return Variables.of(cardinalities, sizes)

    def size_of_embedding(self, cardinality: int) -> int:
        """Return the width of the rows of a table."""
        return self.embedding_size or default_embedding_size(cardinality)

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, plain values that a YAML file can hold."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def to_config(self) -> dict[str, Any]:
        """The `class_path` and `init_args` that name this model in a YAML file."""
        return {"class_path": f"ragged.models.{self.model}", "init_args": self.arguments()}

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """Undo `arguments`; unknown names and values of another type are refused."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(arguments) - set(names))
        if unknown:
            got, expected = f"naming {unknown[0]!r}", f"names among {names}"
            model = cls.__name__.removesuffix("Config")
            raise OptionError.of(model, "init_args", got, expected, "Check the spelling.")
        return cls(**arguments)


def check_at_least(config: ModelConfig, minimum: int, *names: str) -> None:
    """Refuse arguments below a minimum; None is accepted."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < minimum:
            model, expected = config.model, f"{minimum} or more"
            raise OptionError.of(model, name, shown(value), expected, "Raise it.")


def check_extent(config: ModelConfig) -> None:
    """Refuse sizes that no machine could hold, before anything is allocated."""
    arguments, model = config.arguments(), config.model
    layers = max(arguments["num_layers"], arguments.get("num_blocks", 1))
    if layers > MAX_LAYERS:
        name = "num_layers" if layers == arguments["num_layers"] else "num_blocks"
        got, expected = shown(layers), f"at most {MAX_LAYERS}"
        raise OptionError.of(model, name, got, expected, "Lower it.")
    sizes = [name for name in arguments if name.endswith(("_size", "_features"))]
    widest = max(sizes, key=lambda name: arguments[name] or 0)
    max_size = math.isqrt(MAX_PARAMETERS // (4 * layers))
    if arguments[widest] > max_size:
        expected = f"at most {max_size} with {layers} layers"
        raise OptionError.of(model, widest, shown(arguments[widest]), expected, "Lower it.")


def _check_types(config: ModelConfig) -> None:
    """Refuse values of another type; an integer is a float too, and a boolean no integer."""
    config_type: Any = type(config)
    for name, expected in _field_types(config_type).items():
        value = getattr(config, name)
        if isinstance(value, np.generic):
            value = value.item()
        if get_origin(expected) is tuple:
            value, expected = tuple(value) if isinstance(value, list) else value, tuple
        object.__setattr__(config, name, value)
        allowed = (expected, int) if expected is float else expected
        if not isinstance(value, allowed) or isinstance(value, bool) != (expected is bool):
            model, got = config.model, f"{shown(value)}, a {type(value).__name__}"
            type_name = getattr(expected, "__name__", str(expected))
            raise OptionError.of(model, name, got, type_name, "Change its type.")


@functools.cache
def _field_types(model: Any) -> dict[str, Any]:
    hints = get_type_hints(model)
    return {field.name: hints[field.name] for field in fields(model)}


def check_heads(config: ModelConfig, name: str) -> None:
    """Refuse a width that is not a multiple of the number of heads."""
    check_at_least(config, 1, "num_heads")
    size, num_heads = getattr(config, name), config.arguments()["num_heads"]
    if size % num_heads:
        expected, remedy = f"a multiple of num_heads, {num_heads}", "Change one of the two."
        raise OptionError.of(config.model, name, str(size), expected, remedy)


def check_rate(config: ModelConfig, name: str) -> None:
    """Refuse a dropout rate outside 0..1."""
    value = getattr(config, name)
    if not 0 <= value < 1:
        model = config.model
        raise OptionError.of(model, name, shown(value), "0 or more, below 1", "Lower it.")


def check_row_normalization(config: ModelConfig) -> None:
    """Refuse an unknown normalisation, and targets that it could not find in inputs and outputs."""
    kind, targets, model = config.row_normalization, config.target_features, config.model
    if kind not in (None, *KINDS):
        expected = f"one of {KINDS}"
        raise OptionError.of(model, "row_normalization", shown(kind), expected, "Name one.")
    if kind in (None, NONE):
        return
    output_size = config.arguments()["output_size"]
    if targets > config.past_features:
        expected = f"at most past_features, {config.past_features}"
        remedy = "The targets are the last features of `past`: lower it."
        raise OptionError.of(model, "target_features", targets, expected, remedy)
    if output_size % targets:
        expected = f"a multiple of target_features, {targets}"
        remedy = "Give each target as many outputs."
        raise OptionError.of(model, "output_size", output_size, expected, remedy)


def check_cardinalities(config: ModelConfig) -> None:
    """Refuse cardinalities of other features than there are, of targets, and tables too large."""
    counts, model, name = config.cardinalities, config.model, "cardinalities"
    if not counts:
        return
    check_counts(config, name, counts)
    if len(counts) != config.past_features:
        got, expected = f"of {len(counts)} features", f"past_features, {config.past_features}"
        remedy = "Give one for each feature of `past`, 0 of a number."
        raise OptionError.of(model, name, got, expected, remedy)
    if config.future_features > config.past_features:
        got, expected = f"{config.future_features}", f"at most past_features, {len(counts)}"
        remedy = "With cardinalities the features of `future` are the first of `past`."
        raise OptionError.of(model, "future_features", got, expected, remedy)
    if config.row_normalization not in (None, NONE) and any(counts[-config.target_features :]):
        got, remedy = f"{list(counts)}", "The targets are the last features of `past`."
        raise OptionError.of(model, name, got, "0 for each target", remedy)


def check_counts(config: ModelConfig, name: str, counts: Sequence[object]) -> None:
    """Refuse what is no number of rows, and more rows than a machine could hold."""
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            expected, remedy = "integers of 0 or more", "Give 0 of a number."
            raise OptionError.of(config.model, name, shown(list(counts)), expected, remedy)
        if count > MAX_LABELS:
            expected, remedy = f"at most {MAX_LABELS} of a feature", "Tell fewer labels apart."
            raise OptionError.of(config.model, name, shown(count), expected, remedy)
