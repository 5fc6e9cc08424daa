"""Names of the previous release: configurations with them are read, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
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
VALUES: dict[tuple[str, str | None], str] = {
    ("missing", "hold"): "ffill",
    ("windows", None): "whole",
    **{("class_path", old): new for old, new in CLASSES.items()},
}
SCHEDULE = {"cut": "factor", "final": "min_lr_ratio"}  # within `lr_schedule`


def rename(config: Any) -> Any:
    """Replace the old names in a configuration.

    Args:
        config: plain values.

    Returns:
        The configuration; each old name in it gives one `FutureWarning` with the new one.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     rename({"trainer": {"gradient_clip": 1.0}})
    {'trainer': {'max_grad_norm': 1.0}}
    """
    found: dict[str, str] = {}
    renamed = _rename(config, KEYS, found)
    for old, new in found.items():
        _warn(old, new)
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
        renamed = ".".join(known.get(part, part) for part in parts)
        _warn(option, renamed)
        option = renamed
    if value in CLASSES:
        _warn(value, CLASSES[value])
    return f"{option}{is_pair}{CLASSES.get(value, value)}"


def _rename(config: Any, keys: Mapping[str, str], found: dict[str, str]) -> Any:
    """Replace the old ones of the `keys`, and all old values; note them in `found`."""
    if isinstance(config, list):
        return [_rename(value, keys, found) for value in config]
    if not isinstance(config, dict):
        return config
    renamed = {}
    for key, value in config.items():
        new_key, new_value = keys.get(key, key), _new_value(key, value)
        if new_key != key:
            found[key] = new_key
        if new_value is not value:
            prefix = "" if key == "class_path" else f"{key}: "
            found[f"{prefix}{'null' if value is None else value}"] = f"{prefix}{new_value}"
        inside = {**KEYS, **SCHEDULE} if new_key == "lr_schedule" else keys
        renamed[new_key] = _rename(new_value, inside, found)
    return renamed


def _new_value(key: str, value: Any) -> Any:
    """Return the new name of a value, or the value itself."""
    return VALUES.get((key, value), value) if isinstance(value, str | None) else value


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"config: `{old}` is now `{new}`; the old name goes with the next release. "
        "Write the new one.",
        FutureWarning,
        stacklevel=3,
    )
