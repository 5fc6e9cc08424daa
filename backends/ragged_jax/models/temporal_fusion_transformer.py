"""The temporal fusion models, one graph, as flax modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ragged.models.base import Forecast
from ragged.models.temporal_fusion_transformer import TemporalFusionConfig
from ragged.recurrent import init
from ragged_jax.attention import InterpretableAttention
from ragged_jax.layers import GRN, Embeddings, GateAddNorm, Linear
from ragged_jax.models.base import AttentionModel
from ragged_jax.precision import float32_products
from ragged_jax.recurrent.layers import LSTM
from ragged_jax.variable_selection import VariableSelection


class Contexts(NamedTuple):
    """The contexts that a row's static values give to the model; all None without any."""

    selection: Array | None = None
    h: Array | None = None
    c: Array | None = None
    enrichment: Array | None = None
    weights: Array | None = None


class StaticContexts(nnx.Module):
    """Select among a row's static values and turn them into its contexts."""

    def __init__(self, config: TemporalFusionConfig, *, rng: np.random.Generator) -> None:
        size, small, rate = config.hidden_size, config.hidden_continuous_size, config.dropout
        self.statics = config.static_variables
        self.embeddings = Embeddings(self.statics, rng=rng)
        self.variables = VariableSelection(self.statics, small, size, rate, rng=rng)
        self.selection = GRN(size, size, size, rate, rng=rng)
        self.h = GRN(size, size, size, rate, rng=rng)
        self.c = GRN(size, size, size, rate, rng=rng)
        self.enrichment = GRN(size, size, size, rate, rng=rng)

    def __call__(self, static: Array) -> Contexts:
        """Map `(batch, static_size)` to contexts `(batch, hidden_size)`."""
        s, weights = self.variables(self.embeddings(static, self.statics))
        return Contexts(self.selection(s), self.h(s), self.c(s), self.enrichment(s), weights)


class TemporalFusionTransformer(AttentionModel):
    """Forecast quantiles; see `ragged.models.TemporalFusionTransformer`."""

    def __init__(self, config: TemporalFusionConfig) -> None:
        self.config = config
        rng = init.generator(config.seed)
        self.embeddings = Embeddings(config.past_variables, rng=rng)
        size, small = config.hidden_size, config.hidden_continuous_size
        layers, rate, has_statics = config.num_layers, config.dropout, config.static_size > 0
        context = size if has_statics else None
        if has_statics:
            self.static = StaticContexts(config, rng=rng)
        self.past_selection = VariableSelection(
            config.past_variables, small, size, rate, context_size=context, rng=rng
        )
        self.future_selection = VariableSelection(
            config.future_variables, small, size, rate, context_size=context, rng=rng
        )
        self.encoder = LSTM(size, size, layers, dropout=rate, seed=rng)
        self.decoder = LSTM(size, size, layers, dropout=rate, seed=rng)
        self.lstm_join = GateAddNorm(size, rate, rng=rng)
        if has_statics:
            self.enrichment = GRN(size, size, size, rate, context_size=size, rng=rng)
        self.attention = InterpretableAttention(size, config.num_heads, rate, rng=rng)
        self.attention_join = GateAddNorm(size, rate, rng=rng)
        self.feed_forward = GRN(size, size, size, rate, rng=rng)
        self.output_join = GateAddNorm(size, rng=rng)
        self.head = Linear(size, config.output_size, rng=rng)

    @float32_products
    def __call__(
        self,
        past: Array,
        future: Array,
        encoder_lengths: object = None,
        decoder_lengths: object = None,
        *,
        static: Array | None = None,
        need_weights: bool = False,
        token_capacity: Sequence[int] | None = None,
    ) -> Forecast:
        """Return the forecast, `(batch, decoder_time, output_size)`, and its explanation."""
        past, future, both, rows = self.tokens_of(
            past, future, encoder_lengths, decoder_lengths, token_capacity
        )
        encoder, decoder = both
        values = self.config.static_values(self.backend, encoder.lengths, static, past)
        context = Contexts() if values is None else self.static(values)
        xe, past_weights = self.past_selection(past, context.selection, encoder)
        xd, future_weights = self.future_selection(future, context.selection, decoder)

        e, state = encoder.run(self.encoder, xe, self._state(context))
        d, _ = decoder.run(self.decoder, xd, state)
        y = self.lstm_join(jnp.concatenate([e, d], -2), jnp.concatenate([xe, xd], -2))

        a = y
        if context.enrichment is not None:
            a = self.enrichment(a, context.enrichment, both)
        (_, d), (_, query) = both.split(y), both.split(a)
        visible = both.visible_to_decoder(causal=self.config.causal)
        mixed, weights = self.attention(query, a, visible, need_weights)
        mixed = self.feed_forward(self.attention_join(mixed, query))
        output = self.undo_rows(self.head(self.output_join(mixed, d)), decoder, rows)
        selections = encoder.pad(past_weights), decoder.pad(future_weights), context.weights
        return Forecast(output, weights, *selections)

    def _state(self, context: Contexts) -> tuple[Array, Array] | None:
        """The same initial state for every layer; None = zeros."""
        if context.h is None or context.c is None:
            return None
        shape = (self.config.num_layers, *context.h.shape)
        return jnp.broadcast_to(context.h, shape), jnp.broadcast_to(context.c, shape)


class PFTemporalFusionTransformer(TemporalFusionTransformer):
    """Forecast quantiles; see `ragged.models.PFTemporalFusionTransformer`."""


class XTFT(TemporalFusionTransformer):
    """Forecast quantiles; see `ragged.models.XTFT`."""
