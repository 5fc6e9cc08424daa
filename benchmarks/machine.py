"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ragged.backend import load_backend

PACKAGES = ("numpy", "torch", "jax", "flax", "keras")
FRAMEWORKS = ("torch", "jax")


def find_frameworks(device: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Name the frameworks that see a device, and say why the others are left out.

    A machine has its own versions of them: what their import raises is told, not raised.
    """
    seen, reasons = [], {}
    for name in FRAMEWORKS:
        try:
            if device in load_backend(name).devices():
                seen.append(name)
            else:
                reasons[name] = f"it sees no {device}"
        except Exception as error:
            reasons[name] = f"{type(error).__name__}: {error}"
    return tuple(seen), reasons


def describe(device: str) -> dict[str, object]:
    """Name the processor, its cores and the versions of all that was compared."""
    found: dict[str, object] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "device": device,
    }
    if device == "cuda":
        found |= _describe_gpu(find_frameworks(device)[0])
    return found | {package: _version(package) for package in PACKAGES}


def _describe_gpu(frameworks: tuple[str, ...]) -> dict[str, object]:
    if "torch" in frameworks:
        import torch

        return {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    import jax

    return {"gpu": jax.devices("cuda")[0].device_kind}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
