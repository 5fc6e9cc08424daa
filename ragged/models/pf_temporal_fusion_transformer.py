"""PFTemporalFusionTransformer: a TemporalFusionTransformer told a row's share of a length."""

from __future__ import annotations

from dataclasses import dataclass, field

from ragged.models.base import check_at_least
from ragged.models.temporal_fusion import WithStatics
from ragged.protocol import Array


@dataclass(frozen=True)
class PFTemporalFusionTransformer(WithStatics):
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

    Example:
        >>> import ragged
        >>> model = ragged.models.PFTemporalFusionTransformer(
        ...     2, 1, hidden_size=4, reference_length=1, output_size=3, seed=0)
        >>> tuple(model([[[1., 2.]]], [[[3.], [4.]]]).output.shape)
        (1, 2, 3)

    Source: as the TemporalFusionTransformer; the scaling is transformertf's, which divides by the
    longest of the batch. pytorch-forecasting's model is the plain TemporalFusionTransformer.
    """

    reference_length: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "reference_length")

    def scaled(self, length: Array) -> Array:
        """The length as a share of the length of reference."""
        return length / self.reference_length
