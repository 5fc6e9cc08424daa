"""The temporal fusion models: variable selection, LSTMs and interpretable attention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ragged.backend import check_frameworks
from ragged.checks import as_array
from ragged.errors import OptionError, ShapeError
from ragged.lengths import Lengths
from ragged.models.base import AttentionModel, StaticModel, arguments_of
from ragged.models.categories import Variables, check_labels_fit
from ragged.models.config import ModelConfig, check_at_least, check_counts, check_heads
from ragged.ops.masks import check_alignment
from ragged.protocol import Array, Backend


@dataclass(frozen=True)
class TemporalFusionConfig(ModelConfig):
    """The arguments that all three share; see `TemporalFusionTransformer`."""

    hidden_size: int = 300
    hidden_continuous_size: int = 8
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.1
    causal: bool = True
    output_size: int = 7
    encoder_alignment: str = "right"
    seed: int | None = None

    default_loss: ClassVar[str] = "quantile"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "hidden_continuous_size")
        check_heads(self, "hidden_size")
        check_alignment(self.model, "encoder_alignment", self.encoder_alignment)
        if self.embedding_size is not None:
            expected = "left out: a label has the width of a number, hidden_continuous_size"
            remedy = "Set that."
            raise OptionError.of(
                self.model, "embedding_size", self.embedding_size, expected, remedy
            )

    def size_of_embedding(self, cardinality: int) -> int:
        """Return the width of the rows of a table: what each feature has before it is selected."""
        return self.hidden_continuous_size

    @property
    def static_variables(self) -> Variables:
        """Which static values are numbers, and which are labels."""
        return self._variables((0,) * self.static_size)

    @property
    def static_size(self) -> int:
        """How many static values a row has."""
        return 0

    def static_values(
        self, backend: Backend, lengths: Lengths, static: Array, like: Array
    ) -> Array | None:
        """Return the static values, `(batch, static_size)`; None if there are none."""
        return None


@dataclass(frozen=True)
class WithStaticsConfig(TemporalFusionConfig):
    """The temporal fusion models with static inputs: a row's length and the user's values."""

    static_features: int = field(default=0, kw_only=True)
    static_cardinalities: tuple[int, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "static_features")
        counts, name = self.static_cardinalities, "static_cardinalities"
        check_counts(self, name, counts)
        if counts and len(counts) != self.static_features:
            expected = f"static_features, {self.static_features}"
            remedy = "Give one for each static value, 0 of a number."
            raise OptionError.of(self.model, name, f"of {len(counts)} values", expected, remedy)

    @property
    def static_variables(self) -> Variables:
        """Which static values are numbers, the length first, and which are labels."""
        return self._variables((0, *(self.static_cardinalities or (0,) * self.static_features)))

    @property
    def static_size(self) -> int:
        """How many static values a row has: its length, and the user's."""
        return 1 + self.static_features

    def scaled(self, length: Array) -> Array:
        """Scale a row's length as the model's input."""
        raise NotImplementedError

    def static_values(
        self, backend: Backend, lengths: Lengths, static: Array, like: Array
    ) -> Array:
        """Return the scaled length and the user's values."""
        xp, model = backend.xp, self.model
        count = xp.astype(lengths.to(backend, like), like.dtype)
        length = self.scaled(count)[:, None]
        if static is None and self.static_features == 0:
            return length
        check_frameworks(model, backend, static=static)
        values = None if static is None else as_array(backend, model, "static", static, like)
        expected = (lengths.batch, self.static_features)
        if values is None or tuple(values.shape) != expected:
            got = "missing" if values is None else f"of shape {tuple(values.shape)}"
            remedy = "Give each row its static values, and set static_features to their number."
            shape = f"(batch, static_features) = {expected}"
            raise ShapeError.of(model, "static", got, shape, remedy)
        values = backend.promote_arrays(model, {"past": like, "static": values})["static"]
        check_labels_fit(backend, model, "static", like, self.static_cardinalities)
        return xp.concat([length, xp.astype(values, like.dtype)], axis=1)


@dataclass(frozen=True)
class TemporalFusionTransformerConfig(WithStaticsConfig):
    """The configuration of a `TemporalFusionTransformer`.

    Example:
        >>> TemporalFusionTransformerConfig(2, 1, context_length=40).static_size
        1
    """

    context_length: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "context_length")

    def scaled(self, length: Array) -> Array:
        """The length on a scale from -1 to 1."""
        return 2 * length / self.context_length - 1


class TemporalFusionTransformer(StaticModel[TemporalFusionTransformerConfig]):
    """Forecast quantiles, with the weights of inputs and steps.

        s               = selection([2 * length / context_length - 1, static])
        k_s, h, c, k_e  = GRN(s) each
        x_e, x_d        = selection(past, k_s), selection(future, k_s)
        y_e, state      = encoder(x_e, encoder_lengths, (h, c))      (in every layer)
        y_d, _          = decoder(x_d, decoder_lengths, state)
        E, D            = GateAddNorm(y_e, x_e), GateAddNorm(y_d, x_d)
        A               = GRN([E; D], k_e);  A_d is its decoder part
        a               = GRN(GateAddNorm(attention(A_d, A), A_d))
        output          = Linear(GateAddNorm(a, D))                  (exactly 0 at padding)

    The module is called `model(past, future, encoder_lengths=None, decoder_lengths=None,
    static=None, need_weights=False)` with `past (batch, encoder_time, past_features)`, right
    aligned, `future (batch, decoder_time, future_features)`, left aligned, and `static (batch,
    static_features)`, and returns a `Forecast`.

    Args:
        past_features: features of each encoder step.
        future_features: features of each decoder step.
        hidden_size: width of everything inside.
        hidden_continuous_size: width that each feature has of its own before it is selected.
        num_layers: layers of each LSTM.
        num_heads: attention heads; they divide `hidden_size`.
        dropout: rate between LSTM layers, on attention weights and its output, and before gates.
        causal: a decoder step sees the decoder steps before it; else all valid ones.
        output_size: outputs a step, the number of quantiles.
        encoder_alignment: the side that `past` is on; the forecast does not depend on it.
        seed: seed of the initial values, equal on every backend; None draws one.
        static_features: static values of a row, beside its length.
        context_length: the length, in steps, that scales a row's own; the longest, say.
        row_normalization: "last_value", "standard" or "seasonal": shift and scale each row's
            targets by its own context, and undo it in the forecast; see
            `ragged.models.row_normalization`. None or "none" leaves rows as they are.
        target_features: how many of the last features of `past` are targets, for that.
        season: steps of a season, for that.
        cardinalities: for each feature of `past`, which begin with those of `future`, how many
            labels it has, with the unknown one, 0; 0 of a number. Labels are embedded.
        embedding_size: left out: an embedding is as wide as `hidden_continuous_size`.
        static_cardinalities: the same as `cardinalities` for each static value.

    Raises:
        OptionError: a size below 1, a rate outside 0..1, heads that do not divide the width, or an
            unknown alignment.

    Example:
        >>> import ragged
        >>> model = ragged.models.TemporalFusionTransformer(
        ...     2, 1, hidden_size=4, context_length=1, output_size=3, seed=0)
        >>> forecast = model([[[1., 2.]]], [[[3.], [4.]]], decoder_lengths=[1])
        >>> tuple(forecast.output.shape), tuple(forecast.past_selection.shape)
        ((1, 2, 3), (1, 1, 2))

    Source: B. Lim, S. O. Arik, N. Loeff, T. Pfister, Temporal Fusion Transformers for Interpretable
    Multi-horizon Time Series Forecasting (2021).
    """

    describe: ClassVar[type[TemporalFusionTransformerConfig]] = TemporalFusionTransformerConfig

    @arguments_of(TemporalFusionTransformerConfig)
    def __init__(self) -> None: ...


@dataclass(frozen=True)
class PFTemporalFusionTransformerConfig(WithStaticsConfig):
    """The configuration of a `PFTemporalFusionTransformer`.

    Example:
        >>> config = PFTemporalFusionTransformerConfig(2, 1, reference_length=40, static_features=2)
        >>> config.static_size
        3
    """

    reference_length: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "reference_length")

    def scaled(self, length: Array) -> Array:
        """The length as a share of the length of reference."""
        return length / self.reference_length


class PFTemporalFusionTransformer(StaticModel[PFTemporalFusionTransformerConfig]):
    """Forecast as the `TemporalFusionTransformer` does, from `length / reference_length`.

    The length of reference belongs to the model and not to the batch, so that a row's forecast
    does not depend on the rows beside it. Call and other arguments are those of the
    `TemporalFusionTransformer`, which has a `context_length` in place of this one.

    Args:
        past_features: features of each encoder step.
        future_features: features of each decoder step.
        hidden_size: width of everything inside.
        hidden_continuous_size: width that each feature has of its own before it is selected.
        num_layers: layers of each LSTM.
        num_heads: attention heads; they divide `hidden_size`.
        dropout: rate between LSTM layers, on attention weights and its output, and before gates.
        causal: a decoder step sees the decoder steps before it; else all valid ones.
        output_size: outputs a step, the number of quantiles.
        encoder_alignment: the side that `past` is on; the forecast does not depend on it.
        seed: seed of the initial values, equal on every backend; None draws one.
        static_features: static values of a row, beside its length.
        reference_length: the length, in steps, whose share a row's own is; `ragged train` takes
            the longest context of the data.
        row_normalization: "last_value", "standard" or "seasonal": shift and scale each row's
            targets by its own context, and undo it in the forecast; see
            `ragged.models.row_normalization`. None or "none" leaves rows as they are.
        target_features: how many of the last features of `past` are targets, for that.
        season: steps of a season, for that.
        cardinalities: for each feature of `past`, which begin with those of `future`, how many
            labels it has, with the unknown one, 0; 0 of a number. Labels are embedded.
        embedding_size: left out: an embedding is as wide as `hidden_continuous_size`.
        static_cardinalities: the same as `cardinalities` for each static value.

    Example:
        >>> import ragged
        >>> model = ragged.models.PFTemporalFusionTransformer(
        ...     2, 1, hidden_size=4, reference_length=1, output_size=3, seed=0)
        >>> tuple(model([[[1., 2.]]], [[[3.], [4.]]]).output.shape)
        (1, 2, 3)

    Source: as the TemporalFusionTransformer; the scaling is transformertf's, which divides by the
    longest of the batch. pytorch-forecasting's model is the plain TemporalFusionTransformer.
    """

    describe: ClassVar[type[PFTemporalFusionTransformerConfig]] = PFTemporalFusionTransformerConfig

    @arguments_of(PFTemporalFusionTransformerConfig)
    def __init__(self) -> None: ...


@dataclass(frozen=True)
class XTFTConfig(TemporalFusionConfig):
    """The configuration of an `XTFT`.

    Example:
        >>> XTFTConfig(2, 1).default_loss
        'quantile'
    """


class XTFT(AttentionModel[XTFTConfig]):
    """Forecast quantiles from the past and a known future alone.

        x_e, x_d    = selection(past), selection(future)
        y_e, state  = encoder(x_e, encoder_lengths)
        y_d, _      = decoder(x_d, decoder_lengths, state)
        E, D        = GateAddNorm(y_e, x_e), GateAddNorm(y_d, x_d)
        a           = GRN(GateAddNorm(attention(D, [E; D]), D))
        output      = Linear(GateAddNorm(a, D))                      (exactly 0 at padding)

    The module is called `model(past, future, encoder_lengths=None, decoder_lengths=None,
    need_weights=False)` with `past (batch, encoder_time, past_features)`, right aligned, and
    `future (batch, decoder_time, future_features)`, left aligned, and returns a `Forecast`.

    Args:
        past_features: features of each encoder step.
        future_features: features of each decoder step.
        hidden_size: width of everything inside.
        hidden_continuous_size: width that each feature has of its own before it is selected.
        num_layers: layers of each LSTM.
        num_heads: attention heads; they divide `hidden_size`.
        dropout: rate between LSTM layers, on attention weights and its output, and before gates.
        causal: a decoder step sees the decoder steps before it; else all valid ones.
        output_size: outputs a step, the number of quantiles.
        encoder_alignment: the side that `past` is on; the forecast does not depend on it.
        seed: seed of the initial values, equal on every backend; None draws one.
        row_normalization: "last_value", "standard" or "seasonal": shift and scale each row's
            targets by its own context, and undo it in the forecast; see
            `ragged.models.row_normalization`. None or "none" leaves rows as they are.
        target_features: how many of the last features of `past` are targets, for that.
        season: steps of a season, for that.
        cardinalities: for each feature of `past`, which begin with those of `future`, how many
            labels it has, with the unknown one, 0; 0 of a number. Labels are embedded.
        embedding_size: left out: an embedding is as wide as `hidden_continuous_size`.

    Example:
        >>> import ragged
        >>> model = ragged.models.XTFT(2, 1, hidden_size=4, output_size=3, seed=0)
        >>> tuple(model([[[1., 2.]]], [[[3.], [4.]]]).output.shape)
        (1, 2, 3)

    Source: the graph of B. Lim and others, Temporal Fusion Transformers (2021).
    """

    describe: ClassVar[type[XTFTConfig]] = XTFTConfig

    @arguments_of(XTFTConfig)
    def __init__(self) -> None: ...
