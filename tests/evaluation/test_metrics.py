"""Scores and baselines, against their own computation, where not all of the truth is known."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import ragged.backend
from ragged.data import EncoderDecoderDataModule, Roles, Sample, Series, Source
from ragged.errors import ShapeError, TargetError
from ragged.evaluation import evaluate
from ragged.evaluation.baselines import baselines
from ragged.evaluation.evaluate import Evaluation
from ragged.evaluation.forecasts import RowForecast
from ragged.evaluation.metrics import (
    Score,
    TargetScores,
    accuracy,
    coverage,
    pinball,
    scores_table,
    to_json,
)
from ragged.report import figures
from ragged.report.figures import Axes, Panel, draw_forecasts, new_figure, style


def rows_of(known: dict[str, np.ndarray], target: np.ndarray, split: int) -> Sample:
    time = np.arange(float(len(target)))
    event = Series("0", time, {**known, "y": target})
    ahead = len(target) - split
    return Sample(np.zeros((split, 0)), np.zeros((ahead, 0)), np.zeros((ahead, 1)), event, split)


def test_baselines_are_least_squares_whatever_the_units():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 60))
    for scale, shift in ((1.0, 0.0), (1e6, 3e8)):
        row = rows_of({"x": scale * x + shift}, y, 20)
        found = baselines([row], [row], "y", driver="x", known=["x"])
        assert list(found) == [
            "rating curve, line",
            "rating curve, parabola",
            "rating curve, last observed",
            "persistence",
            "drift",
        ]
        for degree, name in ((1, "rating curve, line"), (2, "rating curve, parabola")):
            expected = np.polyval(np.polyfit(x[20:], y[20:], degree), x[20:])
            np.testing.assert_allclose(found[name][0], expected, rtol=1e-6, atol=1e-8)
        assert found["persistence"][0].tolist() == [y[19]] * 40


class Turning(Source):
    """Events whose target is a line of the known column, another one in each split."""

    roles = Roles(known=("x",), past=(), target=("y", "z"))
    time_label = "step"
    driver = "x"
    units: dict[str, str] = {}  # noqa: RUF012
    slopes = (1.0, 1.0, 3.0, -5.0)

    def events(self) -> list[Series]:
        generator, time = np.random.default_rng(0), np.arange(12.0)
        found = []
        for place, slope in enumerate(self.slopes):
            x, noise = generator.normal(size=(2, 12))
            columns = {"x": x, "y": slope * x + 0.1 * noise, "z": noise}
            found.append(Series(str(place), time, columns))
        return found

    def read(self, path) -> list[Series]:
        return self.events()


def test_baselines_know_training_and_validation_and_are_scored_on_the_test(monkeypatch):
    data = EncoderDecoderDataModule(Turning(), context_fraction=0.25, validation=0.25, test=0.25)
    events = data.events
    before, after = slice(3, 12), np.arange(3, 12)
    forecast = np.random.default_rng(1).normal(size=(9, 2))
    levels = {0.1: forecast - 1, 0.5: forecast, 0.9: forecast + 1}
    monkeypatch.setattr(evaluate, "forecast_rows", lambda *given: [RowForecast(forecast, levels)])
    found = evaluate.evaluate_model(
        SimpleNamespace(config=SimpleNamespace(model="m")), data, trainer=None
    )
    x = np.concatenate([each.columns["x"][before] for each in events[:3]])
    for place, target in enumerate(("y", "z")):
        y = np.concatenate([each.columns[target][before] for each in events[:3]])
        truth = events[3].columns[target][after]
        for degree, name in ((1, "rating curve, line"), (2, "rating curve, parabola")):
            expected = np.polyval(np.polyfit(x, y, degree), events[3].columns["x"][after])
            np.testing.assert_allclose(found.baselines[target][name][0], expected, atol=1e-9)
            score = found.targets[target].scores[name]
            assert score.rmse == pytest.approx(np.sqrt(np.mean((expected - truth) ** 2)))
        own = found.targets[target].scores["m"]
        error = forecast[:, place] - truth
        assert own.mae == pytest.approx(np.mean(np.abs(error)))
        assert own.rmse == pytest.approx(np.sqrt(np.mean(error**2)))
        assert own.r2 == pytest.approx(1 - (error**2).sum() / ((truth - truth.mean()) ** 2).sum())
        inside = np.mean(np.abs(error) <= 1)
        assert found.targets[target].coverage == pytest.approx(inside)
        by_hand = [
            max(q * e, (q - 1) * e)
            for q, shift in ((0.1, -1), (0.5, 0), (0.9, 1))
            for e in -error - shift
        ]
        assert found.targets[target].pinball == pytest.approx(np.mean(by_hand))


def test_a_rate_is_used_only_where_one_is_known():
    generator = np.random.default_rng(0)
    x, other, y = generator.normal(size=(3, 30))
    rate = np.concatenate([[0.0], np.diff(x)])
    with_rate = rows_of({"x": x, "other": other, "rate": rate}, y, 10)
    known = ["other", "rate", "x"]
    names = list(baselines([with_rate], [with_rate], "y", driver="x", known=known))
    assert "rating curve, rate of change, last observed" in names
    assert "all known columns, last observed" in names
    without = rows_of({"x": x, "rate": other}, y, 10)
    names = list(baselines([without], [without], "y", driver="x", known=["x", "rate"]))
    assert "rating curve, rate of change, last observed" not in names
    assert "rating curve, last observed" in names
    assert "all known columns, last observed" in names


def test_a_rows_own_past_is_forecast_without_a_driver():
    row = rows_of({"x": np.zeros(9)}, np.array([1.0, 2.0, 6.0, np.nan, 5.0, 6.0, 7.0, 8.0, 9.0]), 4)
    found = baselines([row], [row], "y", season=3, known=["x"])
    assert {name: parts[0].tolist() for name, parts in found.items()} == {
        "persistence": [6.0] * 5,
        "drift": pytest.approx([6 + 5 / 3, 6 + 10 / 3, 11, 6 + 20 / 3, 6 + 25 / 3]),
        "seasonal naive": [2.0, 6.0, 6.0, 2.0, 6.0],
    }
    short = baselines([row], [row], "y", season=5)["seasonal naive"]
    assert short[0].tolist() == [6.0] * 5
    assert "seasonal naive" not in baselines([row], [row], "y")
    (one,) = baselines([row], [rows_of({}, np.array([3.0, 1.0, 1.0]), 1)], "y")["drift"]
    assert one.tolist() == [3.0, 3.0]


def test_a_row_has_one_rank_and_none_without_a_truth():
    truths = [np.full(5, level) for level in (0.0, 3.0, np.nan, 1.0, 2.0)]
    for count, expected in (
        (5, {"best": (0, 0.0), "median": (4, 2.0), "worst": (1, 3.0)}),
        (2, {"best": (0, 0.0), "worst": (1, 3.0)}),
        (1, {"best": (0, 0.0)}),
    ):
        rows = [rows_of({}, truth, 2) for truth in truths[:count]]
        forecasts = [RowForecast(np.zeros((3, 1)), {}) for _ in rows]
        found = Evaluation("m", rows, forecasts, {}, {"y": TargetScores("y", {})})
        assert found.examples("y") == expected
        assert list(found.examples("y")) == list(expected)


def test_rows_are_ranked_by_each_target_alone():
    rows = []
    for first, second in ((0.0, 2.0), (1.0, 0.0)):
        rows.append(rows_of({"z": np.full(5, second)}, np.full(5, first), 2))
    forecasts = [RowForecast(np.zeros((3, 2)), {}) for _ in rows]
    targets = {name: TargetScores(name, {}) for name in ("y", "z")}
    found = Evaluation("m", rows, forecasts, {}, targets)
    assert found.examples("y") == {"best": (0, 0.0), "worst": (1, 1.0)}
    assert found.examples("z") == {"best": (1, 0.0), "worst": (0, 2.0)}
    shifted = [RowForecast(np.array([[0.0, 9.0]] * 3), {}), forecasts[1]]
    found = Evaluation("m", rows, shifted, {}, targets)
    assert found.examples("z") == {"best": (1, 0.0), "worst": (0, 7.0)}


def test_without_a_driver_there_is_no_loop():
    panel = Panel("one", np.arange(5.0), None, np.arange(5.0), np.zeros(3))
    with style():
        figure = new_figure(4, 3)
        draw_forecasts(figure, [panel], Axes("h", None, "y"))
    (axis,) = figure.axes
    forecast = next(line for line in axis.lines if line.get_label() == "forecast")
    assert forecast.get_xdata().tolist() == [2.0, 3.0, 4.0]


def test_a_target_without_a_known_truth_has_no_picture(tmp_path, monkeypatch):
    time = np.arange(4.0)
    panels = {"y": [Panel("best", time, None, time, np.ones(2))], "z": []}

    def make_panels(data, evaluation, target):
        return panels[target], Axes("t", None, target)

    monkeypatch.setattr(figures, "make_panels", make_panels)
    evaluation = Evaluation("m", [], [], {}, {"y": None, "z": None})
    figures.save_forecasts(tmp_path / "forecast.png", None, evaluation)
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_truths_are_neither_fitted_nor_scored():
    x = np.arange(10.0)
    target = 3 * x + 1
    target[[5, 8]] = np.nan
    row = rows_of({"x": x}, target, 2)
    line = baselines([row], [row], "y", driver="x", known=["x"])["rating curve, line"][0]
    np.testing.assert_allclose(line, 3 * x[2:] + 1)
    truth, forecast = np.array([1.0, np.nan, 3.0]), np.array([1.0, 9.0, 5.0])
    assert Score.of(truth, forecast) == Score.of(truth[[0, 2]], forecast[[0, 2]])
    assert Score.of(truth, forecast).mae == 1.0
    assert pinball(truth, {0.5: forecast}) == 0.5
    assert coverage(truth, forecast - 1, forecast + 1) == 0.5
    assert np.isnan([pinball(truth[1:2], {0.5: truth[1:2]}), coverage(*[truth[1:2]] * 3)]).all()


def test_a_driver_that_is_not_known_goes_on_as_it_was():
    x = np.array([np.nan, np.nan, 3.0, np.nan, 5.0, 1.0])
    held = np.array([3.0, 3.0, 5.0, 1.0])
    row = rows_of({"x": x}, 2 * np.arange(6.0), 2)
    line = baselines([row], [row], "y", driver="x", known=["x"])["rating curve, line"][0]
    expected = np.polyval(np.polyfit(held, 2 * np.arange(2.0, 6.0), 1), held)
    np.testing.assert_allclose(line, expected)
    early = rows_of({"x": np.full(6, np.nan)}, np.full(6, np.nan), 2)
    found = baselines([row], [early], "y", driver="x", known=["x"])
    np.testing.assert_allclose(found["rating curve, line"][0], np.full(4, 7.0))
    np.testing.assert_allclose(found["persistence"][0], np.full(4, 7.0))


def test_a_truth_that_does_not_vary_has_no_share_explained():
    found = Score.of(np.full(3, 0.1), np.array([0.1, 0.2, 0.1]))  # whose mean is rounded
    assert np.isnan(found.r2)
    near, far = Score.of(np.ones(2), np.full(2, 1.1)), Score.of(np.ones(2), np.full(2, 6.0))
    ranked = TargetScores("y", {"far": far, "near": near}).best_first()
    assert [name for name, _ in ranked] == ["near", "far"]


def test_scores_that_are_not_defined_are_null_and_stand_last():
    flat = Score.of(np.ones(3), np.zeros(3))
    none = Score.of(np.full(3, np.nan), np.zeros(3))
    scores = {"none": none, "flat": flat, "good": Score(0.5, 0.5, 1.0)}
    target = TargetScores("y [m]", scores, pinball=0.25)
    saved = json.loads(to_json({"y": target}))
    assert saved["targets"]["y"]["flat"] == {"r2": None, "rmse": 1.0, "mae": 1.0}
    assert saved["pinball"] == {"y": 0.25}
    assert "coverage" not in saved
    assert [line.split()[0] for line in scores_table({"y": target}).splitlines()[1:]] == [
        "good", "flat", "none", "pinball",
    ]  # fmt: skip


@pytest.fixture(params=["torch", "jax"])
def own(request, need):
    """Make an array of each backend, and the host's of what it computes."""
    need(request.param)
    with ragged.backend.use_backend(request.param) as backend:
        yield backend


def test_accuracy_is_the_share_of_labels_that_are_right(own):
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(4, 6, 3)), generator.integers(0, 3, (4, 6))
    lengths, weights = np.array([6, 0, 2, 5]), generator.uniform(size=(4, 6))
    valid = np.arange(6) < lengths[:, None]
    hits = logits.argmax(axis=-1) == labels
    logits[~valid], labels[~valid], weights[~valid] = np.nan, -100, np.nan
    given = {"target": own.asarray(labels), "lengths": lengths}
    for prediction in (logits, np.where(valid, hits, False) * labels + ~hits * (labels + 1)):
        found = accuracy(own.asarray(prediction), **given)
        assert float(found) == pytest.approx(hits[valid].mean())
        found = accuracy(own.asarray(prediction), **given, weights=own.asarray(weights))
        assert float(found) == pytest.approx(np.average(hits[valid], weights=weights[valid]))
        total, count = accuracy.total_and_count(own.asarray(prediction), **given)
        assert (float(total), float(count)) == (hits[valid].sum(), valid.sum())
        found = accuracy(own.asarray(prediction), own.asarray(labels), mask=own.asarray(valid))
        assert float(found) == pytest.approx(hits[valid].mean())
        assert float(accuracy(own.asarray(prediction), own.asarray(labels), lengths=[0] * 4)) == 0


def test_accuracy_of_whole_rows_and_what_it_refuses(own):
    logits, labels = np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([1, 1])
    assert float(accuracy(own.asarray(logits), own.asarray(labels))) == 0.5
    with pytest.raises(ShapeError, match=r"accuracy\(\): `prediction` is of shape \(2, 3\) beside"):
        accuracy(own.asarray(np.zeros((2, 3))), own.asarray(np.zeros((3, 2))))
    with pytest.raises(
        ShapeError, match=r"is of shape \(2, 0\); expected a last axis of one class"
    ):
        accuracy(own.asarray(np.zeros((2, 0))), own.asarray(labels))
    for name, sides in {
        "prediction": (logits - 0.5, logits),
        "target": (logits, logits + 0.25),
    }.items():
        with pytest.raises(TargetError, match=f"`{name}` is .* expected a label, which is a whole"):
            accuracy(*map(own.asarray, sides))
