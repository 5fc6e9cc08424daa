"""TemporalFusionTransformer: variable selection, LSTMs and attention that can be read."""

from __future__ import annotations

from dataclasses import dataclass, field

from ragged.models.base import check_at_least
from ragged.models.temporal_fusion import WithStatics
from ragged.protocol import Array


@dataclass(frozen=True)
class TemporalFusionTransformer(WithStatics):
    """Forecast quantiles, and say which inputs and which steps they come from.

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

    context_length: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "context_length")

    def scaled(self, length: Array) -> Array:
        """The length on a scale from -1 to 1."""
        return 2 * length / self.context_length - 1
