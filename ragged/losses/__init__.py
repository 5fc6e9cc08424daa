"""Masked losses: sum(weight * loss) / sum(weight) over valid elements.

Every loss is called `loss(prediction, target, *, lengths=None, mask=None, weights=None,
reduction="mean", alignment="left")`, and with options of its own:

- `prediction`, `target`: `(batch, time, *features)`, or `(batch,)`, one element a row; losses that
  say so take a last axis more.
- `lengths`: `(batch,)` integers, or `mask`: boolean `(batch, time)` or `(batch, time, *features)`,
  True = valid, holes allowed; neither = all valid.
- `weights`: `(batch,)`, `(batch, time)` or `(batch, time, *features)`.
- `reduction`: "mean"; "sum"; "sequence_mean" (the mean of the rows' own means, empty rows left
  out); "none" (elements, 0 at padding).

Nothing valid gives 0 with zero gradient. Padding is selected away before anything is computed, so
NaN there is harmless forwards and backwards. `loss.total_and_count(...)` gives the weighted sum and
the sum of weights, to be added up over micro-batches or devices before one division.

A loss is computed and returned in the widest floating dtype of `prediction` and `target`, and of
options that are arrays, and in float32 at least: bfloat16 counts no further than 256 without gaps,
and a squared error of 256 overflows float16. Integers and booleans are cast to it (float32 holds
those up to 2**24 exactly); complex numbers are refused. Lists and NumPy's floats take the dtype of
the other side's array.
"""

from ragged.losses.classification import binary_cross_entropy, cross_entropy
from ragged.losses.masking import REDUCTIONS, TOTALS, MaskedLoss, Masking, masked_loss
from ragged.losses.regression import gaussian_nll, huber, mae, mape, mse, quantile, smape

__all__ = [
    "REDUCTIONS",
    "TOTALS",
    "MaskedLoss",
    "Masking",
    "binary_cross_entropy",
    "cross_entropy",
    "gaussian_nll",
    "huber",
    "mae",
    "mape",
    "masked_loss",
    "mse",
    "quantile",
    "smape",
]
