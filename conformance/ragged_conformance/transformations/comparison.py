"""The comparison of a transformation's results with the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ragged_conformance.evaluation import to_numpy
from ragged_conformance.oracle import padding_mask
from ragged_conformance.tolerances import MODEL, assert_all_close, assert_close
from ragged_conformance.transformations.lines import Results
from ragged_conformance.transformations.problems import Point, Trial, Values

BATCHES = ("original", "other inputs")  # points of one shape, stacked
RAGGED_BATCHES = ("original", "other lengths")
MEMBERS = ("original", "other parameters")


def check(trial: Trial, results: Results) -> None:
    """Compare all results of a transformation with the oracle."""
    for what, value in results.items():
        CHECKS[what](trial, value)


def _outputs(trial: Trial, arrays: Values, point: Point | None = None) -> None:
    subject, point = trial.subject, point or trial.point
    assert_all_close(arrays, point.outputs, trial.adapter.dtype, subject.kind)
    for output, source in subject.sequences.items():
        padding = ~padding_mask(point.batch.lengths[source], arrays[output].shape[1])
        assert (arrays[output][padding] == 0).all(), f"{output} at padding"


def _gradient(trial: Trial, arrays: Values, point: Point | None = None) -> None:
    point = point or trial.point
    for name, lengths in point.batch.lengths.items():
        padding = ~padding_mask(lengths, arrays[name].shape[1])
        assert (arrays[name][padding] == 0).all(), f"gradient of {name} at padding"
    assert set(arrays) == set(point.variables)
    for name, gradient in arrays.items():
        assert gradient.shape == point.variables[name].shape, f"gradient of {name}"
    assert_all_close(point.project(arrays), point.slopes, trial.adapter.dtype)


def _tangent(trial: Trial, tangent: Values) -> None:
    assert_all_close(tangent, trial.point.tangent(), trial.adapter.dtype)


def _jacobian(trial: Trial, jacobian: Values) -> None:
    direction = trial.point.directions[trial.small]
    moved = {
        name: np.tensordot(array, direction, direction.ndim) for name, array in jacobian.items()
    }
    assert_all_close(moved, trial.point.tangent([trial.small]), trial.adapter.dtype)


def _curvature(trial: Trial, value: Any) -> None:
    expected = np.array(trial.point.curvature())
    assert_close(trial.adapter.to_numpy(value), expected, trial.adapter.dtype, MODEL, "curvature")


def _hessian(trial: Trial, value: Any) -> None:
    direction, hessian = trial.point.directions[trial.small], trial.adapter.to_numpy(value)
    for _ in range(2):
        hessian = np.tensordot(hessian, direction, direction.ndim)
    expected = np.array(trial.point.curvature([trial.small]))
    assert_close(hessian, expected, trial.adapter.dtype, MODEL, "Hessian")


def _shapes(trial: Trial, value: Any) -> None:
    assert value == {name: array.shape for name, array in trial.point.outputs.items()}


def _on_host(compare: Callable[[Trial, Values], None]) -> Callable[[Trial, Any], None]:
    return lambda trial, arrays: compare(trial, to_numpy(trial.adapter, arrays))


def _for_all(points: tuple[str, ...], compare: Callable[..., None]) -> Callable[[Trial, Any], None]:
    def compare_all(trial: Trial, stacked: Values) -> None:
        for index, point in enumerate(points):
            arrays = {name: array[index] for name, array in stacked.items()}
            compare(trial, arrays, trial.problem.points[point])

    return _on_host(compare_all)


CHECKS: Mapping[str, Callable[[Trial, Any], None]] = {
    "outputs": _on_host(_outputs),
    "gradient": _on_host(_gradient),
    "tangent": _on_host(_tangent),
    "Jacobian": _on_host(_jacobian),
    "curvature": _curvature,
    "Hessian": _hessian,
    "shapes": _shapes,
    "outputs of batches": _for_all(BATCHES, _outputs),
    "gradient of batches": _for_all(BATCHES, _gradient),
    "outputs of ragged batches": _for_all(RAGGED_BATCHES, _outputs),
    "gradient of ragged batches": _for_all(RAGGED_BATCHES, _gradient),
    "outputs of members": _for_all(MEMBERS, _outputs),
    "gradient of members": _for_all(MEMBERS, _gradient),
}
