"""`TrainerConfig`: the checked configuration of training."""

from __future__ import annotations

from dataclasses import dataclass, field

from ragged.checks import check
from ragged.data import EncoderDecoderDataModule
from ragged.errors import OptionError
from ragged.models import ModelConfig
from ragged.protocol import Backend
from ragged.training.lr_schedules import Constant, LRSchedule
from ragged.training.objective import LOSSES, Objective
from ragged.training.optimizers import AdamW, Optimizer
from ragged.training.precision import PRECISIONS


@dataclass(frozen=True)
class TrainerConfig:
    """How a model is trained.

    Args:
        max_epochs: epochs at the most, 1 or more.
        patience: epochs without one worth keeping before training stops, 1 or more.
        tolerance: an epoch is worth keeping if its validation loss is less than this share above
            the lowest so far. Above 0, chance in few validation rows does not keep an early epoch
            where a later one, of a lower learning rate, is as good.
        device: "auto" (the best available), "cpu" or "cuda".
        devices: how many devices share each batch, on JAX; with torch, start as many processes
            (`torchrun --nproc-per-node N -m ragged train ...`).
        precision: "float32" or "float64" (JAX needs JAX_ENABLE_X64=1 for it); "bfloat16" and
            "float16" compute with fewer bits and keep the parameters in float32; "tf32" is float32
            whose products a GPU may compute with 10 bits of 23, which "float32" never does.
        use_cuda_graphs: on a GPU and with torch, record a training step where batches of its
            shapes come again, and launch it as a whole from then on. It spares a small model the
            launches of its kernels; a warning says why where it cannot be.
        loss: name of a loss of ragged.losses that compares numbers; None = the model's own.
        use_loss_masking: average the loss over valid steps alone. False gives the plain mean over
            each batch as it is padded to its longest horizon, where padding counts as forecast
            without an error; a warning is raised where horizons differ. Scores are masked always.
        quantiles: levels of the quantile loss, inside 0..1; None = 2, 10, 25, 50, 75, 90, 98 %.
        calibrate: after training move the quantiles of each step so that intervals between levels
            such as 0.1 and 0.9 hold their share of the validation rows, by split conformal
            prediction; see `ragged.evaluation.calibration`.
        max_grad_norm: largest global norm of the gradient, above 0; None = any.
        accumulate_grad_batches: batches that make one step, exactly as one batch of all their rows
            would; 1 or more.
        ema_decay: decay of a running average of the parameters (0.999, say), which then is what
            is validated and kept; None = no average.
        optimizer: AdamW, Adam or SGD of ragged.training.optimizers, with all its constants.
        lr_schedule: Constant, WarmupCosine or ReduceLROnPlateau of `lr_schedules`: what becomes of
            the optimizer's learning rate over the run.

    Raises:
        OptionError: a value outside its range.

    Example:
        >>> TrainerConfig(max_epochs=3).optimizer.learning_rate
        0.003
    """

    max_epochs: int = 40
    patience: int = 10
    tolerance: float = 0.0
    device: str = "auto"
    devices: int = 1
    precision: str = "float32"
    use_cuda_graphs: bool = False
    loss: str | None = None
    use_loss_masking: bool = True
    quantiles: tuple[float, ...] | None = None
    calibrate: bool = False
    max_grad_norm: float | None = 1.0
    accumulate_grad_batches: int = 1
    ema_decay: float | None = None
    optimizer: Optimizer = field(default_factory=AdamW)
    lr_schedule: LRSchedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        levels, clip, decay = self.quantiles, self.max_grad_norm, self.ema_decay
        for name in ("max_epochs", "patience", "devices", "accumulate_grad_batches"):
            check(self, name, getattr(self, name) >= 1, "1 or more")
        check(self, "tolerance", self.tolerance >= 0, "0 or more")
        check(self, "precision", self.precision in PRECISIONS, f"one of {PRECISIONS}")
        check(self, "loss", self.loss in (None, *LOSSES), f"one of {list(LOSSES)}")
        is_schedule = isinstance(self.lr_schedule, LRSchedule)
        check(self, "lr_schedule", is_schedule, "one of ragged.training.lr_schedules")
        for name in ("use_cuda_graphs", "use_loss_masking"):
            check(self, name, isinstance(getattr(self, name), bool), "True or False")
        is_valid = levels is None or (levels and all(0 < level < 1 for level in levels))
        check(self, "quantiles", bool(is_valid), "one level or more, each inside 0..1, or None")
        names = [f"{level:g}" for level in levels or ()]  # of the columns of forecasts
        check(self, "quantiles", len({*names}) == len(names), "levels that differ in six digits")
        check(self, "max_grad_norm", clip is None or clip > 0, "above 0, or None")
        check(self, "ema_decay", decay is None or 0 <= decay < 1, "0 or more, below 1, or None")

    def objective(self, model: ModelConfig, data: EncoderDecoderDataModule) -> Objective:
        """Return the loss of a model on data; see `Objective.of`.

        Raises:
            OptionError: as `Objective.of`; intervals to calibrate, of which the loss has none.
        """
        objective = Objective.of(self.loss, self.quantiles, model, data.target_features)
        if self.calibrate and not objective.pairs:
            got, expected = (
                f"True with {objective.name}",
                "quantiles such as 0.1 and 0.9",
            )
            raise OptionError.of("train", "trainer.calibrate", got, expected, "Set quantiles.")
        return objective

    def pick_device(self, backend: Backend) -> str:
        """Return the device to run on.

        Raises:
            OptionError: the backend has no such device.
        """
        devices = backend.devices()
        if self.device == "auto":
            return devices[0]
        if self.device not in devices:
            expected = f"one of {devices} on this machine"
            remedy = "Use device=auto, or install the framework's build for that device."
            raise OptionError.of("TrainerConfig", "device", repr(self.device), expected, remedy)
        return self.device
