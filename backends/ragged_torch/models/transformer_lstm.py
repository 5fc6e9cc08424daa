"""TransformerLSTM as a torch module."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ragged.models.base import Forecast
from ragged.models.transformer_lstm import TransformerLSTMConfig
from ragged.ops.alignment import zero_padding
from ragged.ops.masks import decoder_attention_mask, self_attention_mask
from ragged.recurrent import init
from ragged_torch.attention import InterpretableAttention
from ragged_torch.layers import GRN, GateAddNorm, Linear
from ragged_torch.models.base import AttentionModel
from ragged_torch.parameters import draw_seed
from ragged_torch.recurrent.layers import Recurrent


class Block(nn.Module):
    """Attention among the encoder's steps, then from the decoder's to both."""

    def __init__(self, config: TransformerLSTMConfig, *, rng: np.random.Generator) -> None:
        super().__init__()
        size, heads, rate = config.hidden_size, config.num_heads, config.dropout
        self.encoder_attention = InterpretableAttention(size, heads, rate, rng=rng)
        self.encoder_join = GateAddNorm(size, rate, rng=rng)
        self.decoder_attention = InterpretableAttention(size, heads, rate, rng=rng)
        self.decoder_join = GateAddNorm(size, rate, rng=rng)

    def forward(
        self, e: Tensor, d: Tensor, masks: tuple[Tensor, Tensor], need_weights: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return both sides, and the decoder's attention weights."""
        e = self.encoder_join(self.encoder_attention(e, e, masks[0])[0], e)
        a, weights = self.decoder_attention(d, torch.cat([e, d], 1), masks[1], need_weights)
        return e, self.decoder_join(a, d), weights


class TransformerLSTM(AttentionModel):
    """Forecast with LSTMs below attention blocks; see `ragged.models.TransformerLSTM`."""

    def __init__(self, config: TransformerLSTMConfig) -> None:
        super().__init__()
        self.config = config
        rng = init.generator(draw_seed(config.seed))
        size, layers, rate = config.hidden_size, config.num_layers, config.dropout
        self.past_embedding = GRN(config.past_features, size, size, rate, rng=rng)
        self.future_embedding = GRN(config.future_features, size, size, rate, rng=rng)
        self.encoder = Recurrent("LSTM", size, size, layers, dropout=rate, seed=rng)
        if not config.share_lstm:
            self.decoder = Recurrent("LSTM", size, size, layers, dropout=rate, seed=rng)
        self.blocks = nn.ModuleList(Block(config, rng=rng) for _ in range(config.num_blocks))
        self.head = Linear(size, config.output_size, rng=rng)

    def forward(
        self,
        past: Tensor,
        future: Tensor,
        encoder_lengths: object = None,
        decoder_lengths: object = None,
        *,
        need_weights: bool = False,
    ) -> Forecast:
        """Return the forecast, `(batch, decoder_time, output_size)`, and the attention."""
        x, future, encoder, decoder, rows = self.prepare_inputs(
            past, future, encoder_lengths, decoder_lengths
        )
        backend = self.backend
        e, d = self.past_embedding(x), self.future_embedding(future)
        y, state = self.encoder(e, encoder)
        e = e + y
        y, _ = (self.encoder if self.config.share_lstm else self.decoder)(d, decoder, state)
        d = d + y
        masks = (
            self_attention_mask(backend, encoder, like=e),
            decoder_attention_mask(backend, encoder, decoder, causal=self.config.causal, like=d),
        )
        all_weights = []
        for block in self.blocks:
            e, d, weights = block(e, d, masks, need_weights)
            all_weights.append(weights)
        output = zero_padding(backend, rows.undo(self.head(d)), decoder)
        return Forecast(output, torch.cat(all_weights, 1) if need_weights else None)
