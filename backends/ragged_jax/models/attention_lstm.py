"""AttentionLSTM as a flax module."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from ragged.models.attention_lstm import AttentionLSTMConfig
from ragged.models.base import Forecast
from ragged.recurrent import init
from ragged_jax.attention import InterpretableAttention
from ragged_jax.layers import AddNorm, Embeddings, GateAddNorm, Linear
from ragged_jax.models.base import AttentionModel
from ragged_jax.precision import float32_products
from ragged_jax.recurrent.layers import LSTM


class AttentionLSTM(AttentionModel):
    """Forecast with two LSTMs and attention; see `ragged.models.AttentionLSTM`."""

    def __init__(self, config: AttentionLSTMConfig) -> None:
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
            self.bridge_y = Linear(wide, narrow, rng=rng)
        self.decoder = LSTM(future, narrow, layers, dropout=rate, seed=rng)
        self.attention = InterpretableAttention(narrow, config.num_heads, rate, rng=rng)
        gated = config.gated
        self.join = GateAddNorm(narrow, rate, rng=rng) if gated else AddNorm(narrow)
        self.head = Linear(narrow, config.output_size, rng=rng)

    @float32_products
    def __call__(
        self,
        past: Array,
        future: Array,
        encoder_lengths: object = None,
        decoder_lengths: object = None,
        *,
        need_weights: bool = False,
        token_capacity: Sequence[int] | None = None,
    ) -> Forecast:
        """Return the forecast, `(batch, decoder_time, output_size)`, and the attention."""
        past, future, both, rows = self.tokens_of(
            past, future, encoder_lengths, decoder_lengths, token_capacity
        )
        encoder, decoder = both
        e, (h, c) = encoder.run(self.encoder, past)
        if self.config.hidden_size != self.config.decoder_size:
            e, h, c = self.bridge_y(e), self.bridge_h(h), self.bridge_c(c)
        d, _ = decoder.run(self.decoder, future, (h, c))
        visible = both.visible_to_decoder(causal=self.config.causal)
        a, weights = self.attention(d, jnp.concatenate([e, d], -2), visible, need_weights)
        return Forecast(self.undo_rows(self.head(self.join(a, d)), decoder, rows), weights)
