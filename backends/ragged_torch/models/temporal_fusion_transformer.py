"""The temporal fusion models, one graph, as torch modules."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ragged.models.base import Forecast
from ragged.models.temporal_fusion_transformer import TemporalFusionConfig
from ragged.recurrent import init
from ragged_torch.attention import InterpretableAttention
from ragged_torch.layers import GRN, Embeddings, GateAddNorm, Linear
from ragged_torch.models.base import AttentionModel
from ragged_torch.parameters import draw_seed
from ragged_torch.recurrent.layers import Recurrent
from ragged_torch.variable_selection import VariableSelection


class Contexts(NamedTuple):
    """The contexts that a row's static values give to the model; all None without any."""

    selection: Tensor | None = None
    h: Tensor | None = None
    c: Tensor | None = None
    enrichment: Tensor | None = None
    weights: Tensor | None = None


class StaticContexts(nn.Module):
    """Select among a row's static values and turn them into its contexts."""

    def __init__(self, config: TemporalFusionConfig, *, rng: np.random.Generator) -> None:
        super().__init__()
        size, small, rate = config.hidden_size, config.hidden_continuous_size, config.dropout
        self.statics = config.static_variables
        self.embeddings = Embeddings(self.statics, rng=rng)
        self.variables = VariableSelection(self.statics, small, size, rate, rng=rng)
        self.selection = GRN(size, size, size, rate, rng=rng)
        self.h = GRN(size, size, size, rate, rng=rng)
        self.c = GRN(size, size, size, rate, rng=rng)
        self.enrichment = GRN(size, size, size, rate, rng=rng)

    def forward(self, static: Tensor) -> Contexts:
        """Map `(batch, static_size)` to contexts `(batch, hidden_size)`."""
        s, weights = self.variables(self.embeddings(static, self.statics))
        return Contexts(self.selection(s), self.h(s), self.c(s), self.enrichment(s), weights)


class TemporalFusionTransformer(AttentionModel):
    """Forecast quantiles; see `ragged.models.TemporalFusionTransformer`."""

    def __init__(self, config: TemporalFusionConfig) -> None:
        super().__init__()
        self.config = config
        rng = init.generator(draw_seed(config.seed))
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
        self.encoder = Recurrent("LSTM", size, size, layers, dropout=rate, seed=rng)
        self.decoder = Recurrent("LSTM", size, size, layers, dropout=rate, seed=rng)
        self.lstm_join = GateAddNorm(size, rate, rng=rng)
        if has_statics:
            self.enrichment = GRN(size, size, size, rate, context_size=size, rng=rng)
        self.attention = InterpretableAttention(size, config.num_heads, rate, rng=rng)
        self.attention_join = GateAddNorm(size, rate, rng=rng)
        self.feed_forward = GRN(size, size, size, rate, rng=rng)
        self.output_join = GateAddNorm(size, rng=rng)
        self.head = Linear(size, config.output_size, rng=rng)

    def forward(
        self,
        past: Tensor,
        future: Tensor,
        encoder_lengths: object = None,
        decoder_lengths: object = None,
        *,
        static: Tensor | None = None,
        need_weights: bool = False,
    ) -> Forecast:
        """Return the forecast, `(batch, decoder_time, output_size)`, and its explanation."""
        past, future, both, rows = self.tokens_of(past, future, encoder_lengths, decoder_lengths)
        encoder, decoder = both
        values = self.config.static_values(self.backend, encoder.lengths, static, past)
        context = Contexts() if values is None else self.static(values)
        xe, past_weights = self.past_selection(past, context.selection, encoder)
        xd, future_weights = self.future_selection(future, context.selection, decoder)

        e, state = encoder.run(self.encoder, xe, self._state(context))
        d, _ = decoder.run(self.decoder, xd, state)
        y = self.lstm_join(torch.cat([e, d], -2), torch.cat([xe, xd], -2))

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

    def _state(self, context: Contexts) -> tuple[Tensor, Tensor] | None:
        """The same initial state for every layer; None = zeros."""
        if context.h is None or context.c is None:
            return None
        layers = self.config.num_layers
        return context.h.expand(layers, -1, -1), context.c.expand(layers, -1, -1)


class PFTemporalFusionTransformer(TemporalFusionTransformer):
    """Forecast quantiles; see `ragged.models.PFTemporalFusionTransformer`."""


class XTFT(TemporalFusionTransformer):
    """Forecast quantiles; see `ragged.models.XTFT`."""
