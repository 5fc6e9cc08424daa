"""TransformerLSTM as a flax module."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ragged.models.base import Forecast
from ragged.models.transformer_lstm import TransformerLSTMConfig
from ragged.recurrent import init
from ragged_jax.attention import InterpretableAttention
from ragged_jax.layers import GRN, Embeddings, GateAddNorm, Linear
from ragged_jax.models.base import AttentionModel
from ragged_jax.precision import float32_products
from ragged_jax.recurrent.layers import LSTM
from ragged_jax.tokens import Visible


class Block(nnx.Module):
    """Attention among the encoder's steps, then from the decoder's to both."""

    def __init__(self, config: TransformerLSTMConfig, *, rng: np.random.Generator) -> None:
        size, heads, rate = config.hidden_size, config.num_heads, config.dropout
        self.encoder_attention = InterpretableAttention(size, heads, rate, rng=rng)
        self.encoder_join = GateAddNorm(size, rate, rng=rng)
        self.decoder_attention = InterpretableAttention(size, heads, rate, rng=rng)
        self.decoder_join = GateAddNorm(size, rate, rng=rng)

    def __call__(
        self, e: Array, d: Array, visible: tuple[Visible, Visible], need_weights: bool
    ) -> tuple[Array, Array, Array | None]:
        """Return both sides, and the decoder's attention weights."""
        to_encoder, to_decoder = visible
        e = self.encoder_join(self.encoder_attention(e, e, to_encoder)[0], e)
        a, weights = self.decoder_attention(
            d, jnp.concatenate([e, d], -2), to_decoder, need_weights
        )
        return e, self.decoder_join(a, d), weights


class TransformerLSTM(AttentionModel):
    """Forecast with LSTMs below attention blocks; see `ragged.models.TransformerLSTM`."""

    def __init__(self, config: TransformerLSTMConfig) -> None:
        self.config = config
        rng = init.generator(config.seed)
        past, future = config.input_sizes
        self.embeddings = Embeddings(config.past_variables, rng=rng)
        size, layers, rate = config.hidden_size, config.num_layers, config.dropout
        self.past_embedding = GRN(past, size, size, rate, rng=rng)
        self.future_embedding = GRN(future, size, size, rate, rng=rng)
        self.encoder = LSTM(size, size, layers, dropout=rate, seed=rng)
        if not config.share_lstm:
            self.decoder = LSTM(size, size, layers, dropout=rate, seed=rng)
        self.blocks = nnx.List(Block(config, rng=rng) for _ in range(config.num_blocks))
        self.head = Linear(size, config.output_size, rng=rng)

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
        e, d = self.past_embedding(past), self.future_embedding(future)
        y, state = encoder.run(self.encoder, e)
        e = e + y
        y, _ = decoder.run(self.encoder if self.config.share_lstm else self.decoder, d, state)
        d = d + y
        visible = both.visible_to_encoder(), both.visible_to_decoder(causal=self.config.causal)
        all_weights = []
        for block in self.blocks:
            e, d, weights = block(e, d, visible, need_weights)
            all_weights.append(weights)
        output = self.undo_rows(self.head(d), decoder, rows)
        return Forecast(output, jnp.concatenate(all_weights, 1) if need_weights else None)
