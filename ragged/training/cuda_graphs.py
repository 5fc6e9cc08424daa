"""CUDA graphs of training steps, as far as a backend can do without them."""

from __future__ import annotations

import warnings


def warn_without_graphs(reason: str) -> None:
    """Say why steps run without the CUDA graphs that were asked for."""
    warnings.warn(
        f"TrainingStep: `use_cuda_graphs` is true, but {reason}: steps run without CUDA graphs. "
        "Set it to false to be told no more.",
        UserWarning,
        stacklevel=3,
    )
