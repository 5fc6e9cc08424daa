"""What the models with attention have in common, on torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from ragged.models.base import interpretation
from ragged_torch.training import predict


class AttentionModel(nn.Module):
    """A model that can say what its forecasts come from."""

    def interpret(self, batch: Any) -> dict[str, np.ndarray]:
        """Return what the forecasts of a host batch come from, as arrays on the host.

        `attention (batch, heads, decoder_time, encoder_time + decoder_time)`, and where the model
        selects variables `past_selection`, `future_selection` and `static_selection`, each
        `(batch, ..., features)`; all left aligned and exactly 0 at padding. `encoder_lengths` and
        `decoder_lengths` say where to cut them.

        Args:
            batch: of `ragged.data`, in the model's own alignment.
        """
        return interpretation(predict(self, batch, need_weights=True), batch)
