"""AttentionLSTM: an encoder-decoder LSTM whose decoder attends to all earlier steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ragged.models.base import AttentionModel, arguments_of
from ragged.models.config import ModelConfig, check_at_least, check_heads


@dataclass(frozen=True)
class AttentionLSTMConfig(ModelConfig):
    """The configuration of an `AttentionLSTM`.

    Example:
        >>> AttentionLSTMConfig(2, 1, hidden_size=32).decoder_size
        32
    """

    decoder_hidden_size: int | None = None
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.1
    gated: bool = True
    causal: bool = True
    output_size: int = 1
    seed: int | None = None

    encoder_alignment: ClassVar[str] = "left"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "decoder_hidden_size")
        has_decoder_size = self.decoder_hidden_size is not None
        check_heads(self, "decoder_hidden_size" if has_decoder_size else "hidden_size")

    @property
    def decoder_size(self) -> int:
        """The decoder's width."""
        return self.hidden_size if self.decoder_hidden_size is None else self.decoder_hidden_size


class AttentionLSTM(AttentionModel[AttentionLSTMConfig]):
    """Forecast from the past and a known future with two LSTMs and attention between them.

        E, (h, c) = encoder(past, encoder_lengths)
        E, h, c   = a Linear of each                     (where the widths differ)
        D, _      = decoder(future, decoder_lengths, (h, c))
        A         = attention(D, [E; D])                 (what is valid and came before)
        output    = Linear(GateAddNorm(A, D))            (exactly 0 at padding)

    The module is called `model(past, future, encoder_lengths=None, decoder_lengths=None,
    need_weights=False)` with `past (batch, encoder_time, past_features)` and `future (batch,
    decoder_time, future_features)`, both left aligned, and returns a `Forecast`.

    Args:
        past_features: features of each encoder step.
        future_features: features of each decoder step.
        hidden_size: width of the encoder LSTM.
        decoder_hidden_size: width of the decoder LSTM and of the attention; None = as the encoder.
        num_layers: layers of each LSTM.
        num_heads: attention heads; they divide the decoder's width.
        dropout: rate between LSTM layers, on attention weights and its output, and before the gate.
        gated: GateAddNorm after the attention; else LayerNorm(A + D).
        causal: a decoder step sees the decoder steps before it; else all valid ones.
        output_size: outputs a step; the number of quantiles with the quantile loss.
        seed: seed of the initial values, equal on every backend; None draws one.
        row_normalization: "last_value", "standard" or "seasonal": shift and scale each row's
            targets by its own context, and undo it in the forecast; see
            `ragged.models.row_normalization`. None or "none" leaves rows as they are.
        target_features: how many of the last features of `past` are targets, for that.
        season: steps of a season, for that.
        cardinalities: for each feature of `past`, which begin with those of `future`, how many
            labels it has, with the unknown one, 0; 0 of a number. Labels are embedded.
        embedding_size: width of an embedding; None = min(1.6 n^0.56, 100) of n labels.

    Raises:
        OptionError: a size below 1, a rate outside 0..1, or heads that do not divide the width.

    Example:
        >>> import ragged
        >>> model = ragged.models.AttentionLSTM(2, 1, hidden_size=4, num_heads=2, seed=0)
        >>> forecast = model([[[1., 2.]]], [[[3.], [4.]]], need_weights=True)
        >>> tuple(forecast.output.shape), tuple(forecast.attention.shape)
        ((1, 2, 1), (1, 2, 2, 3))

    Source: D. Bahdanau and others, Neural Machine Translation by Jointly Learning to Align and
    Translate (2015).
    """

    describe: ClassVar[type[AttentionLSTMConfig]] = AttentionLSTMConfig

    @arguments_of(AttentionLSTMConfig)
    def __init__(self) -> None: ...
