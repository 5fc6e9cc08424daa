"""Calibrated quantiles: split conformal prediction, against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ragged.errors import CheckpointError, OptionError
from ragged.evaluation.calibration import Calibration, check_rows
from ragged.training.objective import LOSSES, Objective

OBJECTIVE = Objective(LOSSES["quantile"], (0.9, 0.5, 0.1, 0.3))  # in any order; 0.3 has no partner
HIGH, LOW = 0, 2


def rows(count: int, steps: int, targets: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs of rows, of which some cross, and truths, of which some are unknown."""
    generator = np.random.default_rng(count)
    outputs = list(generator.normal(size=(count, steps, targets * 4)))
    truths = list(3 * generator.normal(size=(count, steps, targets)))
    return outputs, truths


def score(output: np.ndarray, truth: float) -> float:
    low, high = np.sort(output)[[0, -1]]
    return max(low - truth, truth - high)


def bound(scores: list[float]) -> float:
    """The ceil((n + 1) 0.8)-th smallest score."""
    return sorted(scores)[math.ceil(round((len(scores) + 1) * 0.8, 9)) - 1]


def test_offsets_are_those_of_the_definition():
    outputs, truths = rows(9, 3, targets=2)
    truths[4][1, 0] = np.nan
    outputs[7], truths[7] = outputs[7][:1], truths[7][:1]
    found = Calibration.fit(outputs, truths, OBJECTIVE)
    offsets = found.offsets.reshape(4, 2, 4)
    assert found.pooled == 0
    for target in range(2):
        by_step: list[list[float]] = [[], [], []]
        for output, truth in zip(outputs, truths, strict=True):
            for step in range(len(truth)):
                if not np.isnan(truth[step, target]):
                    own = output[step, 4 * target : 4 * target + 4]
                    by_step[step].append(score(own, truth[step, target]))
        together = [one for scores in by_step for one in scores]
        expected = [*map(bound, by_step), bound(together)]
        np.testing.assert_allclose(offsets[:, target, HIGH], expected, rtol=1e-12)
        np.testing.assert_array_equal(offsets[:, target, LOW], -offsets[:, target, HIGH])
    assert not offsets[..., [1, 3]].any()


def test_a_new_row_is_inside_as_often_as_is_promised():
    """Of n + 1 rows, each forecast from the others, exactly ceil((n + 1) (1 - a)) are inside."""
    objective = Objective(LOSSES["quantile"], (0.1, 0.9))
    outputs, truths = rows(21, 2)
    outputs = [np.sort(output[:, :2], axis=-1) for output in outputs]
    inside = np.zeros(2, dtype=int)
    for row in range(21):
        others = [each[:row] + each[row + 1 :] for each in (outputs, truths)]
        low, high = Calibration.fit(*others, objective).apply(outputs[row], objective).T
        truth = truths[row][:, 0]
        inside += (low <= truth) & (truth <= high)
    assert inside.tolist() == [17, 17]


def test_steps_with_too_few_rows_and_further_steps_have_those_of_all():
    outputs, truths = rows(5, 2)
    truths[0][1], truths[1][1] = np.nan, np.nan  # 3 are left, 4 are needed
    found = Calibration.fit(outputs, truths, OBJECTIVE)
    assert found.pooled == 1
    np.testing.assert_array_equal(found.offsets[1], found.offsets[2])
    moved = found.apply(np.zeros((4, 4)), OBJECTIVE)
    np.testing.assert_array_equal(moved, found.offsets[[0, 1, 2, 2]])


def test_too_few_rows_and_foreign_offsets_are_refused():
    for count in (0, 3):
        message = rf"`trainer.calibrate` is True with {count} known validation .*; expected 4 or m"
        with pytest.raises(OptionError, match=message):
            check_rows(rows(3, 1)[1][:count], OBJECTIVE)
    for saved in (None, "x", [[1.0, 2.0]], [[math.inf] * 4], [1.0] * 4):
        with pytest.raises(CheckpointError, match="expected rows of 4 finite numbers"):
            Calibration.from_list(saved, 4)
