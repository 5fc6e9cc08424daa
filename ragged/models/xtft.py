"""XTFT: the temporal fusion graph without anything static."""

from __future__ import annotations

from dataclasses import dataclass

from ragged.models.temporal_fusion import TemporalFusion


@dataclass(frozen=True)
class XTFT(TemporalFusion):
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

    Example:
        >>> import ragged
        >>> model = ragged.models.XTFT(2, 1, hidden_size=4, output_size=3, seed=0)
        >>> tuple(model([[[1., 2.]]], [[[3.], [4.]]]).output.shape)
        (1, 2, 3)

    Source: the graph of B. Lim and others, Temporal Fusion Transformers (2021).
    """
