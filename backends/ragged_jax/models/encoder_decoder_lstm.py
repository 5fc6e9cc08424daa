"""EncoderDecoderLSTM as a flax module."""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx
from jax import Array

from ragged.models.base import Forecast
from ragged.models.encoder_decoder_lstm import EncoderDecoderLSTMConfig
from ragged.recurrent import init
from ragged_jax.layers import MLP, Embeddings, Linear
from ragged_jax.models.base import ForecastingModel
from ragged_jax.precision import float32_products
from ragged_jax.recurrent.layers import LSTM


class EncoderDecoderLSTM(ForecastingModel):
    """Forecast from the past and a known future; see `ragged.models.EncoderDecoderLSTM`."""

    def __init__(self, config: EncoderDecoderLSTMConfig) -> None:
        self.config = config
        rng = init.generator(config.seed)
        past, future = config.input_sizes
        self.embeddings = Embeddings(config.past_variables, rng=rng)
        wide, narrow = config.hidden_size, config.decoder_size
        layers, rate = config.num_layers, config.dropout
        self.encoder = LSTM(past, wide, layers, dropout=rate, seed=rng)
        if wide != narrow:
            self.bridge_h = Linear(wide, narrow, rng=rng)
            self.bridge_c = Linear(wide, narrow, rng=rng)
        self.decoder = LSTM(future, narrow, layers, dropout=rate, seed=rng)
        if config.head_hidden_size is None:
            self.head: nnx.Module = Linear(narrow, config.output_size, rng=rng)
        else:
            self.head = MLP(narrow, config.head_hidden_size, config.output_size, rate, rng=rng)

    @float32_products
    def __call__(
        self,
        past: Array,
        future: Array,
        encoder_lengths: object = None,
        decoder_lengths: object = None,
        *,
        token_capacity: Sequence[int] | None = None,
    ) -> Forecast:
        """Return `Forecast(output)`, `(batch, decoder_time, output_size)`."""
        past, future, (encoder, decoder), rows = self.tokens_of(
            past, future, encoder_lengths, decoder_lengths, token_capacity
        )
        _, (h, c) = encoder.run(self.encoder, past)
        if self.config.hidden_size != self.config.decoder_size:
            h, c = self.bridge_h(h), self.bridge_c(c)
        decoded, _ = decoder.run(self.decoder, future, (h, c))
        return Forecast(self.undo_rows(self.head(decoded), decoder, rows))
