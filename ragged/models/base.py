"""Base classes of the models: calling one builds the chosen backend's native module."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeVar,
)

import numpy as np

from ragged.backend import get_backend
from ragged.errors import ArgumentError
from ragged.models.config import ModelConfig
from ragged.protocol import Array

Arguments = ParamSpec("Arguments")
Instance = TypeVar("Instance")
Config = TypeVar("Config", bound=ModelConfig, covariant=True)


class Forecast(NamedTuple):
    """The output of a model; values that it does not compute are None.

    Args:
        output: `(batch, decoder_time, output_size)`, exactly 0 at padding.
        attention: `(batch, heads, decoder_time, encoder_time + decoder_time)`, what each decoder
            step sees of the encoder's and the decoder's steps, both left aligned; with
            `need_weights=True`.
        past_selection: `(batch, encoder_time, past_features)`, left aligned.
        future_selection: `(batch, decoder_time, future_features)`.
        static_selection: `(batch, 1 + static_features)`, the row's length first.

    Example:
        >>> import ragged
        >>> model = ragged.models.XTFT(2, 1, hidden_size=4, output_size=3, seed=0)
        >>> forecast = model([[[1., 2.]]], [[[3.], [4.]]], need_weights=True)
        >>> tuple(forecast.output.shape), tuple(forecast.attention.shape)
        ((1, 2, 3), (1, 4, 2, 3))
    """

    output: Array
    attention: Array = None
    past_selection: Array = None
    future_selection: Array = None
    static_selection: Array = None


def arguments_of(
    config: Callable[Arguments, ModelConfig],
) -> Callable[[Callable[[Instance], None]], Callable[Concatenate[Instance, Arguments], None]]:
    """Give a model's constructor the arguments of its configuration, for checkers and for help."""

    def with_arguments(init: Any) -> Any:
        parameters = inspect.signature(config, eval_str=True).parameters.values()
        self_parameter = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        init.__signature__ = inspect.Signature([self_parameter, *parameters])
        init.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return init

    return with_arguments


class ModelType(type):
    """The metaclass of models: it builds, and recognises, the modules of all backends."""

    if not TYPE_CHECKING:  # type checkers take the module for an instance of the class

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            """Build the chosen backend's native module.

            Raises:
                ArgumentError: an argument is missing or unknown.
            """
            try:
                inspect.signature(cls).bind(*args, **kwargs)
            except TypeError as error:
                name = cls.__name__
                raise ArgumentError(f"{name}(): {error}. See help(ragged.models.{name}).") from None
            return get_backend().create_model(cls.describe(*args, **kwargs))

    def __instancecheck__(cls, module: object) -> bool:
        """Whether a module, of any backend, has this model's configuration."""
        return isinstance(getattr(module, "config", None), cls._config)

    @property
    def __signature__(cls) -> inspect.Signature:
        return inspect.signature(cls._config, eval_str=True)

    @property
    def encoder_alignment(cls) -> str:
        """The side that `past` is on by default."""
        side: str = cls.describe.encoder_alignment  # type: ignore[attr-defined]
        return side

    @property
    def _config(cls) -> type[ModelConfig]:
        return cls.describe  # type: ignore[attr-defined]


class Model(Generic[Config], metaclass=ModelType):
    """A forecasting model: the interface of the native modules of all backends.

    Calling a model's class builds the chosen backend's module, a `torch.nn.Module` or a
    `flax.nnx.Module`; `describe` builds its configuration alone. `isinstance` works for the
    modules of all backends.

    Example:
        >>> import ragged
        >>> model = ragged.models.EncoderDecoderLSTM(2, 1, hidden_size=4)
        >>> isinstance(model, Model), isinstance(model, ragged.models.XTFT)
        (True, False)
    """

    describe: ClassVar[type[ModelConfig]] = ModelConfig

    if TYPE_CHECKING:

        @property
        def config(self) -> Config:
            """The model's configuration."""

        def __call__(
            self,
            past: Array,
            future: Array,
            encoder_lengths: object = None,
            decoder_lengths: object = None,
        ) -> Forecast:
            """Return the forecast, `(batch, decoder_time, output_size)`."""

        def __getattr__(self, name: str) -> Any:
            """Return another attribute of the framework's module."""

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> ModelConfig:
        """Undo `arguments` of a configuration; see `ModelConfig.from_arguments`."""
        return cls.describe.from_arguments(arguments)


class AttentionModel(Model[Config]):
    """A model that can explain its forecasts."""

    if TYPE_CHECKING:

        def __call__(
            self,
            past: Array,
            future: Array,
            encoder_lengths: object = None,
            decoder_lengths: object = None,
            *,
            need_weights: bool = False,
        ) -> Forecast:
            """Return the forecast, and with `need_weights` the attention."""

        def interpret(self, batch: Any) -> dict[str, np.ndarray]:
            """Explain the forecasts of a host batch; see `AttentionModule.interpret`."""


class StaticModel(AttentionModel[Config]):
    """A model with static inputs, constant along a row."""

    if TYPE_CHECKING:

        def __call__(
            self,
            past: Array,
            future: Array,
            encoder_lengths: object = None,
            decoder_lengths: object = None,
            *,
            static: Array = None,
            need_weights: bool = False,
        ) -> Forecast:
            """Return the forecast, and with `need_weights` the attention."""
