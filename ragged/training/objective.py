"""The loss of a model's outputs, and the forecasts in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragged.backend import backend_of
from ragged.errors import OptionError
from ragged.lengths import Lengths
from ragged.losses import MaskedLoss, regression
from ragged.models import ModelConfig
from ragged.models.quantiles import sort_quantiles
from ragged.models.row_normalization import NONE, SEASONAL
from ragged.ops.masks import padding_mask
from ragged.protocol import Array

# By name, without the losses of classes: forecasts are numbers.
LOSSES: dict[str, MaskedLoss[...]] = {
    name: loss for name, loss in vars(regression).items() if isinstance(loss, MaskedLoss)
}
ROW_NORMALIZATION = SEASONAL  # the LSTM models' best in benchmarks/forecasting.py
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)


@dataclass(frozen=True)
class Objective:
    """A loss, and how a model's outputs are laid out for it.

    A step's outputs are its targets, one after the other; with the quantile loss each target has
    one output for each level, with the Gaussian one a mean and a log variance.

    Args:
        loss: one of `LOSSES`.
        quantiles: the levels of the quantile loss; empty with any other.
    """

    loss: MaskedLoss[...]
    quantiles: tuple[float, ...] = ()

    @classmethod
    def chosen(
        cls, loss: str | None, quantiles: Sequence[float] | None, kind: type[ModelConfig]
    ) -> Objective:
        """Choose the loss by its name, or that of a class of models."""
        name = loss or kind.default_loss
        levels = tuple(quantiles or QUANTILES) if name == "quantile" else ()
        return cls(LOSSES[name], levels)

    @classmethod
    def of(
        cls, loss: str | None, quantiles: Sequence[float] | None, model: ModelConfig, targets: int
    ) -> Objective:
        """Choose the loss of a model, its own if none is named.

        Raises:
            OptionError: the model has another number of outputs than the loss needs, or normalises
                rows and the loss is of outputs that are no forecasts.
        """
        chosen = cls.chosen(loss, quantiles, type(model))
        output_size, expected = model.arguments()["output_size"], targets * chosen.outputs
        if output_size != expected:
            needs = f"{targets} target(s) of {chosen.outputs} output(s)"
            needs = f"{expected}: the {chosen.name} loss has {needs}"
            remedy = f"Set it to {expected}, or change trainer.loss or trainer.quantiles."
            raise OptionError.of("train", "model.init_args.output_size", output_size, needs, remedy)
        kind = model.row_normalization
        if chosen.row_normalization == NONE and kind not in (None, NONE):
            needs = f"{NONE} with {chosen.name}: a log variance is no number in the target's unit"
            argument, remedy = "model.init_args.row_normalization", "Leave it out."
            raise OptionError.of("train", argument, repr(kind), needs, remedy)
        return chosen

    @property
    def row_normalization(self) -> str:
        """How models normalise rows unless told otherwise: not, where outputs are no forecasts."""
        return ROW_NORMALIZATION if self.loss.extra_axis in (None, "quantiles") else NONE

    @property
    def name(self) -> str:
        """The loss's name."""
        return self.loss.__name__

    @property
    def outputs(self) -> int:
        """How many outputs a target has."""
        if self.quantiles:
            return len(self.quantiles)
        return 1 if self.loss.extra_axis is None else 2

    def features(self, targets: Sequence[str]) -> list[str]:
        """Name a step's outputs, in their order.

        >>> Objective(LOSSES["quantile"], (0.1, 0.9)).features(["flow"])
        ['flow, quantile 0.1', 'flow, quantile 0.9']
        """
        suffixes = [f", quantile {level:g}" for level in self.quantiles]
        if self.loss.extra_axis is not None and not suffixes:
            suffixes = [f", {suffix}" for suffix in self.loss.extra_axis.split(" and ")]
        return [f"{target}{suffix}" for target in targets for suffix in suffixes or [""]]

    def total_and_count(
        self, prediction: Array, target: Array, *, lengths: object
    ) -> tuple[Array, Array]:
        """Return the sum of the losses, and the number of valid target elements that are known.

        A target that is NaN at a valid step is unknown: it counts neither way.
        """
        backend = backend_of("total_and_count", target=target)
        valid = Lengths.of(
            lengths, int(target.shape[1]), backend, function="total_and_count", batch=None
        )
        mask = padding_mask(backend, valid, alignment="left", like=target)
        known = mask[..., None] & ~backend.xp.isnan(target)
        options: dict[str, Any] = {"quantiles": self.quantiles} if self.quantiles else {}
        if self.loss.extra_axis is not None:
            prediction = prediction.reshape(*target.shape, self.outputs)
        return self.loss.total_and_count(prediction, target, mask=known, **options)

    def point(self, forecast: np.ndarray) -> np.ndarray:
        """Return the forecast of each target, `(steps, targets)`, at the level nearest to 0.5."""
        distances = [abs(level - 0.5) for level in self.quantiles]
        return self.by_target(forecast)[..., int(np.argmin(distances)) if distances else 0]

    def at_levels(self, forecast: np.ndarray) -> dict[float, np.ndarray]:
        """Return the forecast of each target at each level, `(steps, targets)` each.

        A model's quantiles may cross: they are sorted.

        >>> found = Objective(LOSSES["quantile"], (0.1, 0.9)).at_levels(np.array([[3.0, 2.0]]))
        >>> {level: values.item() for level, values in found.items()}
        {0.1: 2.0, 0.9: 3.0}
        """
        outputs = self.by_target(forecast)
        return {level: outputs[..., i] for i, level in enumerate(self.quantiles)}

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The places of levels as far from 0 as their partners are from 1: the ends of intervals.

        >>> Objective(LOSSES["quantile"], (0.1, 0.5, 0.9, 0.98)).pairs
        [(0, 2)]
        """
        return [
            (low, high)
            for low, level in enumerate(self.quantiles)
            for high, other in enumerate(self.quantiles)
            if level < 0.5 and math.isclose(level + other, 1.0, abs_tol=1e-9)
        ]

    def by_target(self, forecast: np.ndarray) -> np.ndarray:
        """Return outputs by target, `(..., targets, outputs of each)`, quantiles sorted."""
        if self.quantiles:
            forecast = sort_quantiles(np, forecast, self.quantiles)
        return forecast.reshape(*forecast.shape[:-1], -1, self.outputs)
