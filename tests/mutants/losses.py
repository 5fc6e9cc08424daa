"""Faults in the losses, which both backends share."""

from __future__ import annotations

from tests.mutants.mutant import fault
from tests.mutants.names import gradient_of_loss, loss, nothing_valid

REDUCTIONS = (
    fault(
        "mean over padding",
        "ragged.losses:_reduce",
        "_divide(xp, xp.sum(loss * weight), xp.sum(weight))",
        "xp.mean(loss * weight)",
        loss("mse"),
    ),
    fault(
        "sum where a mean is asked for",
        "ragged.losses:_reduce",
        "_divide(xp, xp.sum(loss * weight), xp.sum(weight))",
        "xp.sum(loss * weight)",
        loss("mse"),
    ),
    fault(
        "mean where a sum is asked for",
        "ragged.losses:_reduce",
        "return xp.sum(loss * weight)\n",
        "return xp.mean(loss * weight)\n",
        loss("mse"),
    ),
    fault(
        "sequence_mean counts empty rows",
        "ragged.losses:_reduce",
        "xp.astype(counts != 0, loss.dtype)",
        "xp.ones_like(counts)",
        loss("mse"),
    ),
    fault(
        "weights ignored",
        "ragged.losses:_masked",
        "if weights is not None:",
        "if False:",
        loss("mse", "lengths-steps"),
    ),
    fault(
        "weights left out of the divisor",
        "ragged.losses:_reduce",
        "xp.sum(loss * weight), xp.sum(weight))",
        "xp.sum(loss * weight), xp.sum(xp.astype(weight != 0, weight.dtype)))",
        loss("mse", "lengths-steps"),
    ),
    fault(
        "right-aligned losses masked on the left",
        "ragged.losses:_valid_elements",
        "padding_mask(backend, checked, alignment=alignment, like",
        "padding_mask(backend, checked, like",
        loss("mse", "right aligned-none"),
    ),
    fault(
        "predictions at padding multiplied away instead of selected away",
        "ragged.losses:_masked",
        "xp.where(valid_prediction, prediction, xp.zeros_like(prediction))",
        "prediction * xp.astype(valid_prediction, prediction.dtype)",
        gradient_of_loss("mse"),
    ),
    fault(
        "targets at padding multiplied away instead of selected away",
        "ragged.losses:_masked",
        "xp.where(valid, target, xp.zeros_like(target))",
        "target * xp.astype(valid, target.dtype)",
        gradient_of_loss("mse"),
    ),
    fault(
        "weights at padding multiplied away instead of selected away",
        "ragged.losses:_masked",
        "xp.where(valid, given + nothing, nothing)",
        "given * xp.astype(valid, given.dtype)",
        gradient_of_loss("mse"),
    ),
    fault(
        "nothing valid divided by 0",
        "ragged.losses:_divide",
        "xp.where(some, ratio, xp.zeros_like(ratio))",
        "total / count",
        nothing_valid("mse-mean"),
    ),
    fault(
        "totals counted over padding",
        "ragged.losses:_masked",
        "return xp.sum(loss * weight), xp.sum(weight)",
        "return xp.sum(loss * weight), xp.sum(xp.ones_like(weight))",
        "test_losses.py::test_totals_and_counts_add_up_over_micro_batches[{backend}-mse]",
    ),
    fault(
        "totals ignore the side of the padding",
        "ragged.losses:mse.total_and_count",
        "**kwargs, reduction=TOTALS",
        "**{**kwargs, 'alignment': 'left'}, reduction=TOTALS",
        "test_losses.py::test_totals_and_counts_equal_the_oracle[{backend}-right aligned-none]",
    ),
    fault(
        "mask preferred to the lengths given beside it",
        "ragged.losses:_valid_elements",
        "if lengths is not None and mask is not None:",
        "if False:",
        "test_losses.py::test_bad_options_are_refused[{backend}-both]",
    ),
    fault(
        "prediction broadcast over the target",
        "ragged.losses:_check_shapes",
        "or elements != target",
        "",
        "test_losses.py::test_shapes_are_not_broadcast[{backend}]",
    ),
)

LOSSES = (
    fault(
        "delta of huber ignored",
        "ragged.losses:huber",
        "error**2 / 2, d * (error - d / 2)",
        "error**2 / 2, error - 0.5",
        loss("huber"),
    ),
    fault(
        "delta of 0 taken",
        "ragged.losses:_positive",
        "if not number > 0:",
        "if False:",
        "test_losses.py::test_bad_options_are_refused[{backend}-delta]",
    ),
    fault(
        "epsilon of mape ignored",
        "ragged.losses:mape",
        "backend.xp.where(size > least, size, backend.xp.full_like(size, least))",
        "size",
        loss("mape"),
    ),
    fault(
        "factor 2 of smape forgotten",
        "ragged.losses:smape",
        "ratio = 2 * ",
        "ratio = ",
        loss("smape"),
    ),
    fault(
        "smape divides by 0 where nothing is forecast and nothing came",
        "ragged.losses:smape",
        "xp.where(nonzero, size, xp.ones_like(size))",
        "size",
        "test_losses.py::test_gradients_are_finite_where_both_sides_are_zero[{backend}-smape]",
    ),
    fault(
        "sign of the quantile error turned",
        "ragged.losses:quantile",
        "target[..., None] - prediction\n",
        "prediction - target[..., None]\n",
        loss("quantile"),
    ),
    fault(
        "quantiles outside 0..1 taken",
        "ragged.losses:quantile",
        "all(0 < level < 1 for level in levels)",
        "True",
        "test_losses.py::test_bad_options_are_refused[{backend}-level 1]",
    ),
    fault(
        "quantiles summed",
        "ragged.losses:quantile",
        "xp.mean(backend.xp.maximum",
        "xp.sum(backend.xp.maximum",
        loss("quantile"),
    ),
    fault(
        "log variance taken for a log standard deviation",
        "ragged.losses:gaussian_nll",
        "exp(-log_variance)",
        "exp(-2 * log_variance)",
        loss("gaussian_nll"),
    ),
    fault(
        "constant of gaussian_nll forgotten",
        "ragged.losses:gaussian_nll",
        'if as_flag("gaussian_nll", "full", full) else 0.0',
        "if False else 0.0",
        loss("gaussian_nll"),
    ),
)

FAULTS = (*REDUCTIONS, *LOSSES)
