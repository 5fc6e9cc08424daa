"""The models as one would write them in plain torch, padded and masked, to compare with ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models_peers import FUTURE, PAST, RATE, batch_of

HEADS, LAYERS, BLOCKS, QUANTILES = 4, 2, 2, 7


class GateAddNorm(nn.Module):
    """`LayerNorm(GLU(x) + residual)`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.dropout, self.linear = nn.Dropout(RATE), nn.Linear(size, 2 * size)
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Gate, add and normalise."""
        return self.norm(nn.functional.glu(self.linear(self.dropout(x))) + residual)


class GRN(nn.Module):
    """A gated residual network whose sizes differ."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(inputs, size), nn.Linear(size, size)
        self.residual, self.join = nn.Linear(inputs, size), GateAddNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, time, inputs)` to `(batch, time, size)`."""
        y = self.output(nn.functional.elu(self.hidden(x)))
        return self.join(y, self.residual(x))


class Attention(nn.Module):
    """Attention whose heads share their values."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(size, size), nn.Linear(size, size)
        self.value, self.output = nn.Linear(size, size // HEADS), nn.Linear(size // HEADS, size)
        self.dropout = nn.Dropout(RATE)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Attend where the mask `(batch, q, k)` is True."""
        q, k = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, memory))
        )
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        weights = self.dropout(torch.softmax(scores, -1))
        return self.dropout(self.output(weights.mean(1) @ self.value(memory)))


class Plain(nn.Module):
    """The AttentionLSTM, or the TransformerLSTM, over padded rows."""

    def __init__(self, model: str, hidden: int) -> None:
        super().__init__()
        self.is_transformer = model == "TransformerLSTM"
        past, future = (hidden, hidden) if self.is_transformer else (PAST, FUTURE)
        if self.is_transformer:
            self.past, self.future = GRN(PAST, hidden), GRN(FUTURE, hidden)
        options: dict[str, Any] = {"batch_first": True, "dropout": RATE}
        self.encoder = nn.LSTM(past, hidden, LAYERS, **options)
        self.decoder = nn.LSTM(future, hidden, LAYERS, **options)
        count = BLOCKS if self.is_transformer else 1
        self.attend = nn.ModuleList(Attention(hidden) for _ in range(2 * count))
        self.join = nn.ModuleList(GateAddNorm(hidden) for _ in range(2 * count))
        self.head = nn.Linear(hidden, 1)

    def forward(self, past: Tensor, future: Tensor, valid: tuple[Tensor, Tensor]) -> Tensor:
        """Forecast; `valid` are the masks of both sides."""
        if self.is_transformer:
            past, future = self.past(past), self.future(future)
        e, state = self.encoder(past)
        d, _ = self.decoder(future, state)
        if self.is_transformer:
            e, d = e + past, d + future
        steps = torch.arange(d.shape[1])
        before = (steps < steps[:, None]).expand(len(d), -1, -1)
        of_encoder = valid[0][:, None].expand(-1, d.shape[1], -1)
        mask = torch.cat([of_encoder, before & valid[1][:, None]], 2)
        for k in range(0, len(self.attend), 2):
            if self.is_transformer:
                among = valid[0][:, None].expand(-1, e.shape[1], -1)
                e = self.join[k](self.attend[k](e, e, among), e)
            d = self.join[k + 1](self.attend[k + 1](d, torch.cat([e, d], 1), mask), d)
        return self.head(d)


def step(
    model: str, sizes: tuple[int, int, int], hidden: int, counts: tuple[np.ndarray, np.ndarray]
) -> Callable[[], object]:
    """Give a training step of a peer."""
    is_tft = model == "TemporalFusionTransformer"
    past, future, target = map(torch.from_numpy, batch_of(sizes, QUANTILES if is_tft else 1))
    encoder, decoder = map(torch.from_numpy, counts)
    valid = tuple(
        torch.arange(width) < count[:, None]
        for width, count in zip(sizes[1:], (encoder, decoder), strict=True)
    )
    if is_tft:
        module = forecasting_tft(hidden)
        # Its columns are those of both sides, and a row's static one.
        wide = [nn.functional.pad(past, (0, 1)), nn.functional.pad(future, (0, PAST - FUTURE + 1))]
        none = [torch.zeros(*x.shape[:2], 0, dtype=torch.int64) for x in wide]
        batch = {
            "encoder_cont": wide[0], "decoder_cont": wide[1],
            "encoder_cat": none[0], "decoder_cat": none[1],
            "encoder_lengths": encoder, "decoder_lengths": decoder,
            "target_scale": torch.ones(sizes[0], 2),
        }  # fmt: skip
    else:
        module = Plain(model, hidden)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)

    def advance() -> float:
        output = module(batch)["prediction"] if is_tft else module(past, future, valid)
        loss = torch.where(valid[1][..., None], (output - target) ** 2, 0.0).sum()
        optimizer.zero_grad()
        (loss / math.prod(sizes)).backward()
        optimizer.step()
        return loss.item()

    return advance


def forecasting_tft(hidden: int) -> nn.Module:
    """Build pytorch-forecasting's module."""
    from pytorch_forecasting.metrics import QuantileLoss
    from pytorch_forecasting.models import TemporalFusionTransformer

    names = [f"x{k}" for k in range(PAST)]
    module: Any = TemporalFusionTransformer(
        hidden_size=hidden,
        lstm_layers=LAYERS,
        dropout=RATE,
        output_size=QUANTILES,
        loss=QuantileLoss(),
        attention_head_size=HEADS,
        static_reals=["static"],
        time_varying_reals_encoder=names,
        time_varying_reals_decoder=names[:FUTURE],
        x_reals=[*names, "static"],
        hidden_continuous_size=8,
    )
    module.transform_output = lambda prediction, target_scale: prediction  # nothing was scaled
    return module
