"""TransformerLSTM: LSTMs encode the positions of steps, attention blocks mix them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ragged.models.base import AttentionModel, arguments_of
from ragged.models.config import ModelConfig, check_at_least, check_heads


@dataclass(frozen=True)
class TransformerLSTMConfig(ModelConfig):
    """The configuration of a `TransformerLSTM`.

    Example:
        >>> TransformerLSTMConfig(2, 1).num_blocks
        2
    """

    num_layers: int = 2
    num_blocks: int = 2
    num_heads: int = 4
    dropout: float = 0.1
    causal: bool = True
    share_lstm: bool = False
    output_size: int = 1
    seed: int | None = None

    encoder_alignment: ClassVar[str] = "left"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "num_blocks")
        check_heads(self, "hidden_size")


class TransformerLSTM(AttentionModel[TransformerLSTMConfig]):
    """Forecast from the past and a known future with LSTMs below a stack of attention blocks.

        e, d      = GRN(past), GRN(future)
        y, (h, c) = encoder(e, encoder_lengths);          E = e + y
        y, _      = decoder(d, decoder_lengths, (h, c));  D = d + y
        in each block:
            E = GateAddNorm(attention(E, E), E)           (what is valid)
            D = GateAddNorm(attention(D, [E; D]), D)      (what is valid and came before)
        output    = Linear(D)                             (exactly 0 at padding)

    The module is called `model(past, future, encoder_lengths=None, decoder_lengths=None,
    need_weights=False)` with `past (batch, encoder_time, past_features)` and `future (batch,
    decoder_time, future_features)`, both left aligned, and returns a `Forecast`; its `attention`
    holds the decoder's heads of all blocks, block after block.

    Args:
        past_features: features of each encoder step.
        future_features: features of each decoder step.
        hidden_size: width of everything inside.
        num_layers: layers of each LSTM.
        num_blocks: attention blocks.
        num_heads: attention heads; they divide `hidden_size`.
        dropout: rate between LSTM layers, on attention weights and outputs, and before the gates.
        causal: a decoder step sees the decoder steps before it; else all valid ones.
        share_lstm: one LSTM serves as encoder and decoder.
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
        >>> model = ragged.models.TransformerLSTM(2, 1, hidden_size=4, num_heads=2, seed=0)
        >>> forecast = model([[[1., 2.]]], [[[3.], [4.]]], decoder_lengths=[1])
        >>> tuple(forecast.output.shape), forecast.output[0, 1].tolist()
        ((1, 2, 1), [0.0])
    """

    describe: ClassVar[type[TransformerLSTMConfig]] = TransformerLSTMConfig

    @arguments_of(TransformerLSTMConfig)
    def __init__(self) -> None: ...
