"""Names of the previous release: configurations with them are read, with a warning."""

from __future__ import annotations

import warnings
from typing import Any

KEYS = {
    "gradient_clip": "max_grad_norm",
    "accumulate": "accumulate_grad_batches",
    "rate_schedule": "lr_schedule",
}
CLASSES = {
    **{f"ragged.optimizer.{name}": f"ragged.training.optimizers.{name}"
       for name in ("AdamW", "Adam", "SGD")},
    **{f"ragged.learning_rate.{name}": f"ragged.training.lr_schedules.{name}"
       for name in ("Constant", "WarmupCosine")},
    "ragged.learning_rate.Plateau": "ragged.training.lr_schedules.ReduceLROnPlateau",
    "ragged.data.Standard": "ragged.data.StandardScaler",
    "ragged.data.Robust": "ragged.data.RobustScaler",
}  # fmt: skip
SCHEDULE = {"cut": "factor", "final": "min_lr_ratio"}


def rename(config: Any) -> Any:
    """Replace the old names in a configuration.

    Args:
        config: plain values.

    Returns:
        The configuration; each old name in it raises a `FutureWarning` with the new one.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     rename({"trainer": {"gradient_clip": 1.0}})
    {'trainer': {'max_grad_norm': 1.0}}
    """
    if isinstance(config, list):
        return [rename(value) for value in config]
    if not isinstance(config, dict):
        return config
    renamed = {}
    for key, value in config.items():
        if key == "class_path" and value in CLASSES:
            value = _renamed(value, CLASSES[value])
        elif key == "missing" and value == "hold":
            value = _renamed("missing: hold", "ffill", "missing: ")
        elif key == "windows" and value is None:
            value = _renamed("windows: null", "whole", "windows: ")
        elif key in ("rate_schedule", "lr_schedule") and isinstance(value, dict):
            value = _rename_schedule(value)
        renamed[_renamed(key, KEYS[key]) if key in KEYS else key] = rename(value)
    return renamed


def rename_option(argument: str) -> str:
    """Replace the old name of an option of the command line.

    >>> rename_option("--trainer.max_epochs=3")
    '--trainer.max_epochs=3'
    """
    option, is_pair, value = argument.partition("=")
    if not option.startswith("--trainer."):
        return argument
    parts = option.split(".")
    known = KEYS if len(parts) == 2 else {**KEYS, **SCHEDULE}
    if set(parts) & set(known) and not (set(parts) & {"optimizer"}):
        option = _renamed(option, ".".join(known.get(part, part) for part in parts))
    value = _renamed(value, CLASSES[value]) if value in CLASSES else value
    return f"{option}{is_pair}{value}"


def _rename_schedule(section: dict[str, Any]) -> dict[str, Any]:
    arguments = section.get("init_args")
    if not isinstance(arguments, dict) or not SCHEDULE.keys() & arguments.keys():
        return section
    renamed = {_renamed(k, SCHEDULE[k]) if k in SCHEDULE else k: v for k, v in arguments.items()}
    return {**section, "init_args": renamed}


def _renamed(old: str, new: str, prefix: str = "") -> str:
    warnings.warn(
        f"config: `{old}` is now `{prefix}{new}`; the old name goes with the next release. "
        "Write the new one.",
        FutureWarning,
        stacklevel=3,
    )
    return new
