"""Training of a parsed configuration, into the folder of a run or in memory."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragged.backend import get_backend
from ragged.errors import OptionError
from ragged.evaluation.calibration import Calibration, check_rows
from ragged.evaluation.forecasts import outputs_of_rows, predictor_of
from ragged.models import ModelConfig
from ragged.runs.folder import instantiate
from ragged.runs.trained import CreateSource, TrainedModel
from ragged.training.loop import TrainLoop
from ragged.training.objective import Objective
from ragged.training.precision import param_dtype
from ragged.training.progress import Progress
from ragged.training.trainer import TrainerConfig


def prepare(
    config: Any,
    parser: Any,
    folder: Path | None = None,
    create_source: CreateSource | None = None,
) -> TrainLoop:
    """Build what a configuration names, and read the data.

    Args:
        config: as `parse` gives it; what follows from the data is set in it.
        parser: that parsed it.
        folder: of the run; None writes no files.
        create_source: builds the source in place of its class, from a frame, say.

    Raises:
        ConfigError, OptionError, DataError: what cannot be trained.
    """
    return create_loop(instantiate(config, parser, create_source), folder, config)


def create_loop(components: Any, folder: Path | None, config: Any) -> TrainLoop:
    """Create the training loop, with the data aligned as the model requires."""
    model = components.model.config
    _check_quantiles(components.trainer, model)
    for side in ("encoder_alignment", "decoder_alignment"):
        required, configured = getattr(model, side), getattr(components.data, side)
        if configured not in (None, required):
            expected = f"{required!r}, which {model.model} takes"
            remedy = f"Set data.{side} to {required}, or leave it out."
            raise OptionError.of("train", f"data.{side}", repr(configured), expected, remedy)
        setattr(components.data, side, required)
    components.data.setup()
    if components.trainer.calibrate:
        objective = components.trainer.objective(model, components.data)
        check_rows([row.target for row in components.data.validation.rows], objective)
    return TrainLoop(components.trainer, components.model, components.data, folder, config.seed)


def _check_quantiles(trainer: TrainerConfig, model: ModelConfig) -> None:
    """Refuse levels of quantiles beside a loss that has none, where they would change nothing."""
    objective = Objective.chosen(trainer.loss, trainer.quantiles, type(model))
    if trainer.quantiles and not objective.quantiles:
        got, expected = str(list(trainer.quantiles)), f"none with the loss {objective.name}"
        remedy = "Set trainer.loss to quantile, or leave them out."
        raise OptionError.of("train", "trainer.quantiles", got, expected, remedy)


def train(loop: TrainLoop, is_shown: bool = True) -> None:
    """Train to the end, and tell the progress."""
    per_epoch, state = loop.steps_per_epoch, loop.state
    done = state.epoch * per_epoch + state.current.steps
    is_shown = is_shown and loop.is_writer
    with Progress(loop.trainer.max_epochs, per_epoch, done, is_shown) as progress:
        loop.run(progress)
    if loop.trainer.calibrate and loop.is_writer:
        calibrate(loop)


def calibrate(loop: TrainLoop) -> None:
    """Calibrate the quantiles of the best model on the validation rows, and keep that with it."""
    saved, rows = loop.best_checkpoint(), loop.data.validation
    predict = predictor_of(saved.create_model(get_backend()), loop.trainer)
    dtype = param_dtype(loop.trainer.precision)
    outputs = outputs_of_rows(predict, rows, loop.data.batch_size, dtype)
    found = Calibration.fit(outputs, [row.target for row in rows.rows], loop.objective)
    loop.keep_best(replace(saved, state={**saved.state, "calibration": found.offsets.tolist()}))
    if found.pooled:
        warnings.warn(
            f"train: {found.pooled} of {len(found.offsets) - 1} steps of the horizon have too few "
            "validation rows to be calibrated by their own; they are by those of all steps.",
            UserWarning,
            stacklevel=3,
        )


def trained_model(loop: TrainLoop, config: Any) -> TrainedModel:
    """Return the best model of a training that has ended."""
    saved, epoch = loop.best_checkpoint(), loop.state.best_epoch + 1
    module = saved.create_model(get_backend())
    return TrainedModel(config, loop.data, loop.trainer, module, saved, epoch)
