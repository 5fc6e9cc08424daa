"""Schedules of the learning rate, by hand."""

from __future__ import annotations

import math

import pytest

from ragged.training.lr_schedules import Constant, LRSchedule, ReduceLROnPlateau, WarmupCosine

nan = math.nan


def factors(schedule: LRSchedule, losses: list[float]) -> list[float]:
    """The factor before each loss is known, and after the last one."""
    return [schedule.multiplier(0, 9, losses[:epochs]) for epochs in range(len(losses) + 1)]


PLATEAUS = {
    # 95 is no new lowest: it is not 10 % below 100. 89 is, and after it 81 is not.
    "threshold": (
        ReduceLROnPlateau(factor=0.5, patience=2, threshold=0.1),
        [100, 95, 89, 81, 80.5, 80],
        [1, 1, 1, 1, 1, 0.5, 0.5],
    ),
    # Of a negative lowest loss the share goes downwards too.
    "threshold below zero": (
        ReduceLROnPlateau(factor=0.5, patience=1, threshold=0.1),
        [-100, -105, -111, -120],
        [1, 1, 0.5, 0.5, 0.25],
    ),
    "no threshold": (ReduceLROnPlateau(patience=1, threshold=0), [1, 1 - 1e-9, 1], [1, 1, 1, 0.5]),
    "the threshold is a ten-thousandth by default": (
        ReduceLROnPlateau(patience=1),
        [1, 1 - 5e-5, 1 - 2e-4],
        [1, 1, 0.5, 0.5],
    ),
    "patience of three": (
        ReduceLROnPlateau(factor=0.1, patience=3),
        [1, 2, 2, 2, 2, 2, 2],
        [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01],
    ),
    "a new lowest starts patience anew": (
        ReduceLROnPlateau(factor=0.1, patience=2),
        [3, 4, 2, 4, 4],
        [1, 1, 1, 1, 1, 0.1],
    ),
    "never below final": (
        ReduceLROnPlateau(factor=0.1, patience=1, min_lr_ratio=0.05),
        [1, 1, 1, 1],
        [1, 1, 0.1, 0.05, 0.05],
    ),
    "epochs without validation do not count": (ReduceLROnPlateau(patience=1), [nan] * 5, [1] * 6),
    "nor between others": (
        ReduceLROnPlateau(patience=2),
        [1, 2, nan, nan, 2],
        [1, 1, 1, 1, 1, 0.5],
    ),
}


@pytest.mark.parametrize(("schedule", "losses", "expected"), PLATEAUS.values(), ids=list(PLATEAUS))
def test_a_plateau_is_cut(schedule, losses, expected):
    assert factors(schedule, losses) == pytest.approx(expected)


def half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (WarmupCosine(), [half_cosine(step / 6) for step in range(6)] + [0, 0]),
        (
            WarmupCosine(warmup_steps=2, decay_steps=3, min_lr_ratio=0.25),
            [1 / 3, 2 / 3, 1]
            + [0.25 + 0.75 * half_cosine(share) for share in (1 / 3, 2 / 3)]
            + [0.25] * 3,
        ),
        (
            WarmupCosine(warmup_steps=3),
            [0.25, 0.5, 0.75, 1, half_cosine(1 / 3), half_cosine(2 / 3), 0, 0],
        ),
        (Constant(), [1] * 8),
    ],
    ids=str,
)
def test_a_schedule_of_steps(schedule, expected):
    found = [schedule.multiplier(step, 6, [1.0] * step) for step in range(8)]
    assert found == pytest.approx(expected)
