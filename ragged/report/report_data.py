"""The data of the report: a run, and the results computed from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ragged.backend import get_backend
from ragged.evaluation.evaluate import Evaluation, evaluate_model
from ragged.report.padding import PaddingCost, find_hidden_sizes, padding_costs
from ragged.runs.folder import Run


@dataclass(frozen=True)
class ReportData:
    """A run and its results, each computed once, at the first access.

    Args:
        run: the run.
        metrics: the records of its epochs.
        versions: of the packages that trained it.
    """

    run: Run
    metrics: list[dict[str, Any]]
    versions: dict[str, str]

    @cached_property
    def evaluation(self) -> Evaluation:
        """The forecasts of the test rows and their scores."""
        run = self.run
        return evaluate_model(run.module, run.data, run.trainer, run.calibration)

    @cached_property
    def device(self) -> str:
        """The device that the model runs on."""
        return self.run.trainer.pick_device(get_backend())

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """The model's parameters by name."""
        return get_backend().get_parameters(self.run.module)

    @cached_property
    def loss(self) -> str:
        """The name of the training loss."""
        return self.run.trainer.objective(self.run.module.config, self.run.data).name

    @property
    def averaged_over(self) -> str:
        """The steps that the loss is averaged over."""
        return "valid steps" if self.run.trainer.use_loss_masking else "steps, padding counted as 0"

    @cached_property
    def padding_costs(self) -> list[PaddingCost]:
        """The padding of the first epoch, with three ways of batching."""
        data, seed = self.run.data, self.run.config.seed
        return padding_costs(
            data.train_epoch(seed, 0),
            data.batch_size,
            seed,
            get_backend(),
            self.device,
            find_hidden_sizes(self.parameters),
        )

    @property
    def batch_options(self) -> dict[str, Any]:
        """The batch size and dtype for `interpret`."""
        return {"batch_size": self.run.data.batch_size, "dtype": self.run.trainer.precision}
