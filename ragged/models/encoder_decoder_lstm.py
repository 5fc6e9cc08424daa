"""EncoderDecoderLSTM: an encoder LSTM's state starts a decoder LSTM over the known future."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ragged.errors import OptionError
from ragged.models.base import Model, arguments_of
from ragged.models.config import ModelConfig, check_at_least


@dataclass(frozen=True)
class EncoderDecoderLSTMConfig(ModelConfig):
    """The configuration of an `EncoderDecoderLSTM`.

    Example:
        >>> EncoderDecoderLSTMConfig(2, 1, decoder_hidden_size=64).decoder_size
        64
    """

    decoder_hidden_size: int | None = None
    num_layers: int = 2
    decoder_num_layers: int | None = None
    dropout: float = 0.1
    head_hidden_size: int | None = None
    output_size: int = 1
    seed: int | None = None

    encoder_alignment: ClassVar[str] = "left"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "decoder_hidden_size", "head_hidden_size")
        if self.decoder_num_layers not in (None, self.num_layers):
            name, got = "decoder_num_layers", str(self.decoder_num_layers)
            expected = f"num_layers, {self.num_layers}: "
            expected += "each encoder layer's state starts a decoder's"
            remedy = "Leave it out, or set both to the same number."
            raise OptionError.of(self.model, name, got, expected, remedy)

    @property
    def decoder_size(self) -> int:
        """The decoder's width."""
        return self.hidden_size if self.decoder_hidden_size is None else self.decoder_hidden_size


class EncoderDecoderLSTM(Model[EncoderDecoderLSTMConfig]):
    """Forecast from the past and a known future with two LSTMs.

        _, (h, c) = encoder(past, encoder_lengths)
        h, c      = h @ W_h.T + b_h, c @ W_c.T + b_c     (where the widths differ)
        d, _      = decoder(future, decoder_lengths, (h, c))
        output    = head(d)                              (exactly 0 at padding)

    The module is called `model(past, future, encoder_lengths=None, decoder_lengths=None)` with
    `past (batch, encoder_time, past_features)` and `future (batch, decoder_time,
    future_features)`, both left aligned, and returns `Forecast(output)`.

    Args:
        past_features: features of each encoder step.
        future_features: features of each decoder step.
        hidden_size: width of the encoder LSTM.
        decoder_hidden_size: width of the decoder LSTM; None = as the encoder.
        num_layers: layers of the encoder LSTM.
        decoder_num_layers: layers of the decoder LSTM; None, or the encoder's number.
        dropout: rate between LSTM layers and inside an MLP head, in training.
        head_hidden_size: hidden width of an MLP head (relu, dropout); None = one Linear.
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
        OptionError: a size below 1, a rate outside 0..1, or unequal layer counts.

    Example:
        >>> import ragged
        >>> model = ragged.models.EncoderDecoderLSTM(2, 1, hidden_size=4, seed=0)
        >>> forecast = model([[[1., 2.]]], [[[3.], [4.]]], decoder_lengths=[1])
        >>> tuple(forecast.output.shape), forecast.output[0, 1].tolist()
        ((1, 2, 1), [0.0])

    Source: I. Sutskever, O. Vinyals, Q. V. Le, Sequence to Sequence Learning (2014).
    """

    describe: ClassVar[type[EncoderDecoderLSTMConfig]] = EncoderDecoderLSTMConfig

    @arguments_of(EncoderDecoderLSTMConfig)
    def __init__(self) -> None: ...
