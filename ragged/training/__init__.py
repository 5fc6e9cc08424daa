"""Training: the loop, the scores beside baselines, the run folder and its figures."""

from ragged.training.trainer import TrainerConfig

__all__ = ["TrainerConfig"]
