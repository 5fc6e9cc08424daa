"""The environment of a run: the versions of packages, the machine, the device."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("numpy", "torch", "jax", "flax", "optax")


def version_of(package: str) -> str:
    """Return the version of a distribution, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def describe_environment(device: str) -> dict[str, str]:
    """Describe the environment, ready for JSON.

    Args:
        device: of the models.
    """
    return {
        "ragged-sequences": version_of("ragged-sequences"),
        "Python": platform.python_version(),
        **{package: version_of(package) for package in PACKAGES},
        "device": device,
        "platform": platform.platform(),
    }
