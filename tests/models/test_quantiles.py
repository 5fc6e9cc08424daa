"""Quantile outputs from training to the table of forecasts, and what an output means."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import ragged
from ragged.cli import main as cli
from ragged.errors import OptionError
from ragged.evaluation.forecasts import RowForecast
from ragged.evaluation.metrics import coverage, pinball
from ragged.models import XTFT, AttentionLSTM
from ragged.training.objective import QUANTILES, ROW_NORMALIZATION, Objective

SMALL = {"model.class_path": "XTFT", "model.init_args.num_heads": 2, "trainer.max_epochs": 1}


@pytest.fixture(scope="module")
def run(need, tiny_arguments, tmp_path_factory):
    need("torch")
    runs = tmp_path_factory.mktemp("runs")
    options = [part for key, value in SMALL.items() for part in (f"--{key}", str(value))]
    assert cli.main([*tiny_arguments(runs, "torch"), *options]) == 0
    (folder,) = (path for path in runs.glob("*/*") if path.is_dir())
    return folder


def test_a_short_name_trains_quantiles_and_their_calibration_is_kept(run, capsys):
    assert "class_path: ragged.models.XTFT" in (run / "config.yaml").read_text()
    scores = json.loads((run / "scores.json").read_text())
    assert "XTFT" in scores["targets"]["field"]
    pinball, coverage = scores["pinball"]["field"], scores["coverage"]["field"]
    assert pinball > 0
    assert 0 <= coverage <= 1
    assert cli.main(["evaluate", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"pinball loss {pinball:.3f}" in said
    assert f"{coverage:.1%} of the truths lie in the 10..90 % band" in said


def test_a_prediction_has_a_column_for_each_quantile(run, write_magnet, tmp_path):
    given, output = tmp_path / "cycles.csv", tmp_path / "forecast.csv"
    write_magnet(given)
    command = ["predict", str(run), "--input", str(given), "--output", str(output)]
    assert cli.main(command) == 0
    with output.open() as file:
        rows = list(csv.DictReader(file))
    heads = list(rows[0])
    assert [head.partition("_q")[2] for head in heads[2:]] == [f"{q:g}" for q in QUANTILES]
    for row in rows:
        forecast = [float(row[head]) for head in heads[2:]]
        assert forecast == sorted(forecast)


def test_what_a_step_of_outputs_means():
    two = Objective.of("quantile", (0.1, 0.5, 0.9), XTFT.describe(1, 1, output_size=6), targets=2)
    forecast = np.arange(12.0).reshape(2, 6)  # two steps of [a10, a50, a90, b10, b50, b90]
    np.testing.assert_array_equal(two.point(forecast), [[1, 4], [7, 10]])
    levels = two.at_levels(forecast)
    np.testing.assert_array_equal(levels[0.1], [[0, 3], [6, 9]])
    np.testing.assert_array_equal(levels[0.9], [[2, 5], [8, 11]])
    plain = Objective.of(None, None, AttentionLSTM.describe(1, 1), targets=1)
    assert (plain.name, plain.outputs, plain.at_levels(np.zeros((2, 1)))) == ("mse", 1, {})
    own = Objective.of(None, None, XTFT.describe(1, 1), targets=1)
    assert (own.name, own.quantiles) == ("quantile", QUANTILES)
    no_band = Objective.of("quantile", (0.4, 0.7), XTFT.describe(1, 1, output_size=2), targets=1)
    np.testing.assert_array_equal(no_band.point(np.array([[1.0, 2.0]])), [[1.0]])
    gaussian = Objective.of("gaussian_nll", None, AttentionLSTM.describe(1, 1, output_size=2), 1)
    np.testing.assert_array_equal(gaussian.point(np.array([[1.0, 2.0]])), [[1.0]])


def test_quantiles_never_cross_and_their_loss_never_grows():
    generator, levels = np.random.default_rng(0), (0.9, 0.1, 0.5)  # in the order of the outputs
    objective = Objective.of("quantile", levels, XTFT.describe(1, 1, output_size=6), targets=2)
    outputs, truth = generator.normal(size=(40, 6)), generator.normal(size=(40, 2))
    outputs[:5, :3] = 1.0  # ties
    found = objective.at_levels(outputs)
    assert list(found) == [0.9, 0.1, 0.5]
    for target in range(2):
        raw = outputs[:, 3 * target : 3 * target + 3]
        for step in range(40):
            expected = sorted(raw[step])
            assert [found[q][step, target] for q in (0.1, 0.5, 0.9)] == expected
            assert objective.point(outputs)[step, target] == expected[1]
            one, own = truth[step : step + 1, target], dict(zip(levels, raw[step], strict=True))
            before = pinball(one, {q: np.array([value]) for q, value in own.items()})
            after = pinball(one, {q: found[q][step : step + 1, target] for q in levels})
            assert after <= before + 1e-12


def test_a_log_variance_is_in_no_unit_that_rows_could_be_normalised_in():
    describe = AttentionLSTM.describe
    assert Objective.chosen(None, None, type(describe(1, 1))).row_normalization == ROW_NORMALIZATION
    gaussian = Objective.of("gaussian_nll", None, describe(1, 1, output_size=2), 1)
    assert gaussian.row_normalization == "none"
    normalised = describe(1, 1, output_size=2, row_normalization="standard")
    with pytest.raises(OptionError, match=r"`model.init_args.row_normalization` is 'standard'; e"):
        Objective.of("gaussian_nll", None, normalised, 1)


def test_a_band_needs_both_of_its_levels():
    point, low, high = np.array([[1.0]]), np.array([[0.0]]), np.array([[2.0]])
    rows = [RowForecast(point, {0.1: low, 0.9: high})] * 2
    for found, expected in zip(RowForecast.joined(rows).band, (low, high), strict=True):
        np.testing.assert_array_equal(found, np.concatenate([expected] * 2))
    assert RowForecast(point, {0.4: low, 0.9: high}).band is None
    assert RowForecast(point, {}).band is None


@pytest.mark.parametrize("loss", ["quantile", "gaussian_nll", "mse"])
def test_an_objective_is_its_loss_over_split_outputs(loss, need):
    need("torch")
    rng = np.random.default_rng(0)
    outputs = {"quantile": 3, "gaussian_nll": 2, "mse": 1}[loss]
    model = XTFT.describe(1, 1, output_size=2 * outputs)
    objective = Objective.of(loss, (0.1, 0.5, 0.9), model, targets=2)
    prediction, target = rng.normal(size=(2, 3, 2 * outputs)), rng.normal(size=(2, 3, 2))
    target[0, 1, 0] = np.nan  # valid and unknown: it counts neither way
    target[1, 2, 1] = np.nan  # padding
    total = 0.0
    for row, length in enumerate(lengths := [3, 1]):
        for step in range(length):
            for i in range(2):
                if np.isnan(target[row, step, i]):
                    continue
                own = prediction[row, step, outputs * i : outputs * (i + 1)]
                error = target[row, step, i] - own
                if loss == "quantile":
                    levels = zip((0.1, 0.5, 0.9), error, strict=True)
                    total += np.mean([max(q * e, (q - 1) * e) for q, e in levels])
                elif loss == "mse":
                    total += error[0] ** 2
                else:
                    total += (own[1] + error[0] ** 2 / np.exp(own[1])) / 2
    with ragged.use_backend("torch") as backend:
        arrays = backend.asarray(prediction), backend.asarray(target)
        sums, count = objective.total_and_count(*arrays, lengths=lengths)
    assert (float(sums), float(count)) == (pytest.approx(total), 7)


def test_outputs_that_do_not_fit_the_loss_are_refused():
    message = r"`model.init_args.output_size` is 7; expected 1: the mse loss .* Set it to 1, or"
    with pytest.raises(OptionError, match=message):
        Objective.of(None, None, AttentionLSTM.describe(1, 1, output_size=7), targets=1)
    with pytest.raises(OptionError, match="is 7; expected 3: the quantile loss has 1 target"):
        Objective.of(None, (0.1, 0.5, 0.9), XTFT.describe(1, 1), targets=1)
    with pytest.raises(OptionError, match=r"`quantiles` is \(0.1, 1.0\); expected one level or"):
        ragged.training.TrainerConfig(quantiles=(0.1, 1.0))


def test_pinball_and_coverage():
    truth = np.array([0.0, 1.0, 2.0, 3.0])
    levels = {0.1: np.zeros(4), 0.9: np.full(4, 2.0)}
    by_hand = np.mean([0.0, 0.1, 0.2, 0.3, 0.2, 0.1, 0.0, 0.9])
    assert pinball(truth, levels) == pytest.approx(by_hand)
    assert coverage(truth, levels[0.1], levels[0.9]) == 0.75
