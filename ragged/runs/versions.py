"""What a run is computed with: the versions of packages, the machine, the device."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("numpy", "torch", "jax", "flax", "optax")


def version_of(package: str) -> str:
    """The version of an installed distribution, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def describe_environment(device: str) -> dict[str, str]:
    """Say what computes here, ready for JSON.

    Args:
        device: what the models run on.
    """
    return {
        "ragged-sequences": version_of("ragged-sequences"),
        "Python": platform.python_version(),
        **{package: version_of(package) for package in PACKAGES},
        "device": device,
        "platform": platform.platform(),
    }
