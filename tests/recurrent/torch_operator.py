"""The tensors of one call of torch's operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragged.recurrent.cells import CELLS

WIDTH, FEATURES, HIDDEN, PROJECTED = 5, 2, 4, 3


def layer_inputs(
    lengths: list[int], dtype: Any = None, projected: bool = False, mode: str = "LSTM"
) -> Any:
    """The tensors of one layer, of float64 unless said, NaN at padding."""
    import torch
    from ragged_torch.recurrent.custom_op import Layer

    rng, size = np.random.default_rng(0), PROJECTED if projected else HIDDEN
    gates = CELLS[mode].gates * HIDDEN
    x = rng.normal(size=(len(lengths), WIDTH, FEATURES))
    for row, length in enumerate(lengths):
        x[row, length:] = np.nan
    shapes = {
        "h0": (len(lengths), size),
        "c0": (len(lengths), HIDDEN if mode == "LSTM" else 0),
        "weight_ih": (gates, FEATURES),
        "weight_hh": (gates, size),
        "bias_ih": (gates,),
        "bias_hh": (gates,),
        **({"weight_hr": (size, HIDDEN)} if projected else {}),
    }
    arrays = {"x": x, **{name: rng.normal(size=shape) for name, shape in shapes.items()}}
    tensors = {
        name: torch.tensor(a, dtype=dtype or torch.float64).requires_grad_()
        for name, a in arrays.items()
    }
    return Layer(**tensors, lengths=torch.tensor(lengths, dtype=torch.int64))
