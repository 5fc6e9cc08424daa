"""EncoderDecoderLSTM as a torch module."""

from __future__ import annotations

from torch import Tensor, nn

from ragged.models.base import Forecast
from ragged.models.encoder_decoder_lstm import EncoderDecoderLSTMConfig
from ragged.recurrent import init
from ragged_torch.layers import MLP, Embeddings, Linear
from ragged_torch.models.base import ForecastingModel
from ragged_torch.parameters import draw_seed
from ragged_torch.recurrent.layers import Recurrent


class EncoderDecoderLSTM(ForecastingModel):
    """Forecast from the past and a known future; see `ragged.models.EncoderDecoderLSTM`."""

    def __init__(self, config: EncoderDecoderLSTMConfig) -> None:
        super().__init__()
        self.config = config
        rng = init.generator(draw_seed(config.seed))
        past, future = config.input_sizes
        self.embeddings = Embeddings(config.past_variables, rng=rng)
        wide, narrow = config.hidden_size, config.decoder_size
        layers, rate = config.num_layers, config.dropout
        self.encoder = Recurrent("LSTM", past, wide, layers, dropout=rate, seed=rng)
        if wide != narrow:
            self.bridge_h = Linear(wide, narrow, rng=rng)
            self.bridge_c = Linear(wide, narrow, rng=rng)
        self.decoder = Recurrent("LSTM", future, narrow, layers, dropout=rate, seed=rng)
        if config.head_hidden_size is None:
            self.head: nn.Module = Linear(narrow, config.output_size, rng=rng)
        else:
            self.head = MLP(narrow, config.head_hidden_size, config.output_size, rate, rng=rng)

    def forward(
        self,
        past: Tensor,
        future: Tensor,
        encoder_lengths: object = None,
        decoder_lengths: object = None,
    ) -> Forecast:
        """Return `Forecast(output)`, `(batch, decoder_time, output_size)`."""
        past, future, (encoder, decoder), rows = self.tokens_of(
            past, future, encoder_lengths, decoder_lengths
        )
        _, (h, c) = encoder.run(self.encoder, past)
        if self.config.hidden_size != self.config.decoder_size:
            h, c = self.bridge_h(h), self.bridge_c(c)
        decoded, _ = decoder.run(self.decoder, future, (h, c))
        return Forecast(self.undo_rows(self.head(decoded), decoder, rows))
