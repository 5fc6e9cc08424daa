"""A trained model with all that forecasting takes, in memory or from the folder of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ragged.data import EncoderDecoderDataModule, RaggedDataset, Source
from ragged.evaluation.calibration import Calibration, calibration_of
from ragged.evaluation.forecasts import RowForecast, forecast_rows
from ragged.io.checkpoint import Checkpoint
from ragged.training.trainer import TrainerConfig

CreateSource = Callable[..., Source]  # from a class of sources and its arguments


@dataclass(frozen=True)
class TrainedModel:
    """A trained model.

    Args:
        config: the complete configuration, as the parser gives it.
        data: the data module, whose normalisation the model was trained with.
        trainer: how it was trained.
        module: the native module of the best epoch.
        saved: the checkpoint of the best epoch.
        epoch: of the module, the first is 1.
    """

    config: Any
    data: EncoderDecoderDataModule
    trainer: TrainerConfig
    module: Any
    saved: Checkpoint
    epoch: int

    @property
    def normalization(self) -> dict[str, Any]:
        """The normalisation of each column, as `Normalization.to_dict` gives it."""
        return self.saved.section("normalization")

    def forecast(self, dataset: RaggedDataset) -> list[RowForecast]:
        """Forecast every row of a dataset, in its order, in the units of the targets."""
        given = self.module, dataset, self.data, self.trainer
        return forecast_rows(*given, self.calibration)

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels of the quantiles that it forecasts; none of a model of points."""
        return self.trainer.objective(self.module.config, self.data).quantiles

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of the quantiles, if the trainer asks for one.

        Raises:
            CheckpointError: a training that has not ended, or a damaged one.
        """
        return calibration_of(self.saved, self.trainer, self.module.config)
